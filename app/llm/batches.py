"""`BatchApi`: many calls to a model at half the price, answered within a day.

It speaks to the /v1/files and /v1/batches of OpenAI, which Azure, Groq, Together and others have
as well. Mistral's batch jobs have other routes, and vLLM runs batches only from its command line.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterable

from openai import AsyncOpenAI

from app.llm.ask import FREE, Price, UsageTotals
from app.llm.batch_calls import Batch, BatchCalls, BatchTimes
from app.llm.batch_lines import BatchLimits, BatchPart, ResultLine, read_results, split
from app.llm.chat import Reply, Turn
from app.llm.client import OpenAIChat
from app.llm.errors import ModelError, ModelRejected, ModelUnavailable

logger = logging.getLogger(__name__)

# A batch that failed for one of these may be accepted later.
_PASSING = {"token_limit_exceeded", "rate_limit_exceeded", "server_error", "insufficient_quota"}
_PAGES = 10  # of a hundred batches each, the newest ones, to find those of a run
_GROWTH = 1.5  # of the time between two polls


class BatchApi:
    """Batches of one model. The caller owns and closes `client`, which is that of `chat`.

    `chat` tells which parameters the endpoint rejects: ask it once before the first batch.
    Every method raises ModelUnavailable and ModelRejected.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        chat: OpenAIChat,
        limits: BatchLimits | None = None,
        times: BatchTimes | None = None,
    ) -> None:
        self._chat = chat
        self._limits = limits or BatchLimits()
        self._times = times or BatchTimes()
        self._calls = BatchCalls(client, chat.name, self._times)

    async def submit(
        self, run: str, requests: AsyncIterator[tuple[str, Turn]]
    ) -> AsyncIterator[Batch]:
        """The batches of these turns, by custom id; each is yielded as soon as it exists.

        Store its id before the next one is asked for: any process can go on with it. A batch that
        `run` has submitted before with the same turns is yielded and not submitted again, so a
        process that died before it had stored the id repeats the call and pays nothing twice.
        Raises NoBatchApi; ValueError for custom ids that repeat or have more than 64 characters.
        """
        bodies = ((custom_id, self._chat.body_of(turn)) async for custom_id, turn in requests)
        # Of a batch that failed nothing was asked, and nothing is paid.
        known = {batch.part: batch for batch in await self.find(run) if batch.status != "failed"}
        async for part in split(bodies, self._limits):
            yield known.get(part.digest) or await self._submitted(run, part)

    async def find(self, run: str) -> list[Batch]:
        """The batches of a run, oldest first, of the last thousand. Raises NoBatchApi."""
        found: list[Batch] = []
        after: str | None = None
        for _ in range(_PAGES):
            page, after = await self._calls.newest(after)
            found += [batch for batch in page if batch.run == run]
            if after is None:
                break
        return found[::-1]

    async def follow(self, batch_id: str) -> AsyncIterator[Batch]:
        """The batch whenever it has moved on, and at last as it has ended.

        Polls every `first_poll_s`, later every `longest_poll_s`. Raises ModelUnavailable after an
        outage of `outage_s`; the batch goes on at the provider.
        """
        last: Batch | None = None
        wait_s = self._times.first_poll_s
        answered = time.monotonic()
        while True:
            try:
                batch = await self._calls.state(batch_id)
            except ModelUnavailable:
                if time.monotonic() - answered > self._times.outage_s:
                    raise
            else:
                answered = time.monotonic()
                if batch != last:
                    yield batch
                if batch.ended:
                    return
                last = batch
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * _GROWTH, self._times.longest_poll_s)

    async def results(
        self,
        batch: Batch,
        expected: Iterable[str],
        *,
        price: Price = FREE,
        totals: UsageTotals | None = None,
    ) -> AsyncIterator[tuple[str, Reply | ModelError]]:
        """For each of the `expected` custom ids once, in any order, its reply or error.

        Without a line of the provider, the error says why: the batch has failed, has expired, was
        cancelled, or the line is missing. Lines that nobody has asked for are dropped. Usage is
        added to `totals` at half of `price`. Nothing is removed: see `discard`. Raises ValueError
        for a batch that has not ended.
        """
        if not batch.ended:
            raise ValueError(f"the batch {batch.id} has not ended")
        left = dict.fromkeys(expected)
        failures: dict[str, ResultLine] = {}
        dropped = 0
        for file_id in (batch.output_file, batch.error_file):
            if file_id is None:
                continue
            with tempfile.TemporaryFile() as file:
                await self._calls.fetch(file_id, file)
                for result in read_results(file):
                    if result is None or result.custom_id not in left:
                        dropped += 1
                    elif isinstance(result.outcome, Reply):
                        del left[result.custom_id]
                        _count(result, price, totals)
                        yield result.custom_id, result.outcome
                    else:  # a later line may have the reply
                        failures.setdefault(result.custom_id, result)
        if dropped:
            logger.warning("%s: %d lines of a batch are of no use", self._chat.name, dropped)
        for custom_id in left:
            failure = failures.get(custom_id) or ResultLine(custom_id, _missing(batch))
            _count(failure, price, totals)
            yield custom_id, failure.outcome

    async def cancel(self, batch_id: str) -> None:
        """Ask the provider to end a batch that has not ended; `follow` tells when it has."""
        await self._calls.cancel(batch_id)

    async def discard(self, batch: Batch) -> None:
        """Remove the files of a batch from the provider, after its results have been stored."""
        for file_id in (batch.input_file, batch.output_file, batch.error_file):
            if file_id is not None:
                await self._calls.remove(file_id)

    async def _submitted(self, run: str, part: BatchPart) -> Batch:
        file_id = await self._calls.upload(part)
        try:
            return await self._calls.create(run, part, file_id)
        except ModelUnavailable:
            # It may exist, and only the answer is lost: a second one would be paid, too.
            lost = [one for one in await self.find(run) if one.input_file == file_id]
            if lost:
                return lost[0]
            await self._calls.remove(file_id)
            raise
        except ModelRejected:
            await self._calls.remove(file_id)
            raise


def _count(result: ResultLine, price: Price, totals: UsageTotals | None) -> None:
    if totals is not None and result.usage is not None:
        totals.add(result.usage, price.halved().of(result.usage))


def _missing(batch: Batch) -> ModelError:
    """Why there is no line in the files of a batch that has ended."""
    match batch.status:
        case "failed":
            reason = f"the provider refuses the batch: {', '.join(batch.problems) or 'no reason'}"
            if batch.problems and _PASSING.issuperset(batch.problems):
                return ModelUnavailable(reason, asked=False)
            return ModelRejected(reason)
        case "completed":
            return ModelUnavailable("the results of the batch lack this line")
        case status:
            return ModelUnavailable(f"the batch has ended before: {status}", asked=False)
