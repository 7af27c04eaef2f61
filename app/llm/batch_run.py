"""`BatchRun`: the calls of one job through the batch API, which any process can continue."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from secrets import token_hex

import msgspec

from app.llm.ask import FREE, Price, UsageTotals
from app.llm.batch_calls import Batch
from app.llm.batches import BatchApi
from app.llm.chat import Reply, Turn
from app.llm.errors import BatchGone, ModelError, ModelUnavailable
from app.storage.documents import Documents

_TTL_S = 14 * 86_400.0  # a batch ends within a day; a service may be down for longer


class _Known(msgspec.Struct):
    """A batch of the run, with the numbers of its requests."""

    id: str
    first: int
    last: int
    used: bool = False

    @property
    def requests(self) -> int:
        return self.last - self.first + 1

    @property
    def ids(self) -> Iterator[str]:
        return map(str, range(self.first, self.last + 1))


class _RunState(msgspec.Struct):
    name: str  # of the run, at the provider
    owner: str
    batches: list[_Known]
    complete: bool = False  # all requests are submitted


_state = msgspec.json.Decoder(_RunState)


class BatchRun:
    """Submits requests, each with a note, and yields their outcomes with the notes.

    The note says what a request is about, such as the items of a prompt: it is stored before the
    request is sent, so that another process understands the outcome. There is one run at a time
    for a `topic`, used by one process at a time: a job that fails leaves it to the next job. Every
    method raises StoreUnavailable too.
    """

    def __init__(
        self,
        api: BatchApi,
        documents: Documents,
        topic: str,
        *,
        price: Price = FREE,
        totals: UsageTotals | None = None,
    ) -> None:
        """Usage is added to `totals` at half of `price`, as outcomes are read."""
        self._api = api
        self._documents = documents
        self._topic = topic
        self._price = price
        self._totals = totals

    async def owner(self) -> str | None:
        """Who has submitted the run that is not read to its end; None when there is none.

        Empty when it was not submitted to its end.
        """
        state = await self._stored()
        if state is None:
            return None
        return state.owner if state.complete else ""

    async def submit(self, owner: str, requests: AsyncIterator[tuple[Turn, bytes]]) -> int:
        """Begin a run, while there is none; how many requests it has. Go on with `outcomes`.

        After an error, those of earlier batches are submitted: see `outcomes`. Raises as
        `BatchApi.submit`.
        """
        state = _RunState(f"{self._topic}-{token_hex(8)}", owner, [])
        await self._store(state)
        count = 0

        async def numbered() -> AsyncIterator[tuple[str, Turn]]:
            nonlocal count
            async for turn, note in requests:
                note_id = _note_id(state.name, str(count))
                await self._documents.put("batch", note_id, note, _TTL_S)
                yield str(count), turn
                count += 1

        try:
            async for batch in self._api.submit(state.name, numbered()):
                state.batches.append(_known(batch))
                await self._store(state)
        except ModelError:
            if not state.batches:
                await self._documents.delete("batch", self._topic)
            raise
        state.complete = True
        await self._store(state)
        return count

    async def outcomes(
        self, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> AsyncGenerator[tuple[bytes, Reply | ModelError], None]:
        """The note and the outcome of every request, as their batches end, in any order.

        At the end there is no run any more. Keep what an outcome is good for before the next one
        is asked for: a process that dies meanwhile gets the outcomes of a batch again that was not
        read to its end, and those of other batches once. Files of a batch that was read are
        removed. `progress` gets how many requests are answered, and how many there are. Raises as
        `BatchApi.follow`.
        """
        state = await self._loaded()
        if state is None:
            return
        total = sum(one.requests for one in state.batches)
        done = 0
        for one in state.batches:
            if not one.used:
                ended: Batch | None = None
                try:
                    async for batch in self._api.follow(one.id):
                        progress(done + batch.completed + batch.failed, total)
                        ended = batch
                except BatchGone:
                    ended = None
                async for outcome in self._outcomes_of(state.name, one, ended):
                    yield outcome
                one.used = True
                await self._store(state)
                await self._clean_up(state.name, one, ended)
            done += one.requests
            progress(done, total)
        await self._documents.delete("batch", self._topic)

    async def cancel(self) -> None:
        """Ask the provider to end what has not ended. Calls that it has made are paid."""
        state = await self._loaded()
        for one in state.batches if state else ():
            if not one.used:
                with suppress(ModelError):  # it has ended, or is gone
                    await self._api.cancel(one.id)

    async def _outcomes_of(
        self, name: str, known: _Known, ended: Batch | None
    ) -> AsyncIterator[tuple[bytes, Reply | ModelError]]:
        """Those of one batch; `ended` is None when the endpoint does not know it any more."""
        left = dict.fromkeys(known.ids)
        if ended is not None:
            results = self._api.results(ended, left, price=self._price, totals=self._totals)
            with suppress(BatchGone):
                async for custom_id, outcome in results:
                    del left[custom_id]
                    if (note := await self._note(name, custom_id)) is not None:
                        yield note, outcome
        for custom_id in left:
            if (note := await self._note(name, custom_id)) is not None:
                reason = "the endpoint does not know the batch any more"
                yield note, ModelUnavailable(reason, asked=False)

    async def _stored(self) -> _RunState | None:
        stored = await self._documents.get("batch", self._topic)
        return None if stored is None else _state.decode(stored)

    async def _loaded(self) -> _RunState | None:
        """The run with all its batches, also one whose id could not be stored any more."""
        state = await self._stored()
        if state is not None:
            ids = {one.id for one in state.batches}
            found = await self._api.find(state.name)
            state.batches += [_known(batch) for batch in found if batch.id not in ids]
        return state

    async def _store(self, state: _RunState) -> None:
        await self._documents.put("batch", self._topic, msgspec.json.encode(state), _TTL_S)

    async def _clean_up(self, name: str, known: _Known, ended: Batch | None) -> None:
        if ended is not None:
            await self._api.discard(ended)
        for custom_id in known.ids:
            await self._documents.delete("batch", _note_id(name, custom_id))

    async def _note(self, name: str, custom_id: str) -> bytes | None:
        return await self._documents.get("batch", _note_id(name, custom_id))


def _note_id(name: str, custom_id: str) -> str:
    return f"{name}:{custom_id}"


def _known(batch: Batch) -> _Known:
    return _Known(batch.id, int(batch.first), int(batch.last))
