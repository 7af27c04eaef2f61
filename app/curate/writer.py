"""`Writer`: the changes of one catalogue, grouped into commits that win or try again."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, field

from msgspec import structs

from tree import place
from tree.edits import Edit, PutItem, Relabel
from tree.embedders import EmbedderCache
from tree.errors import StaleVersion, StoreUnreachable
from tree.item import Item
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.store.protocol import NEVER_STAGED, TreeStore

COMMIT_ITEMS = 1_000
_MOST_WAITING = 20_000  # items; more callers are told to come back, so that memory is bounded
_RETRIES = 50  # lost races in a row; each means that somebody else's commit went through
_TURN_S = 5.0  # a patch that waits longer for those before it: the store does not answer
_INLINE_ITEMS = 8  # a larger plan would hold up the event loop


class TooManyWrites(Exception):
    """More arrives than can be written: try again in a moment."""


@dataclass(slots=True)
class _Write:
    """One caller's puts and deletes; `done` gets, per id, whether it was created or was there.

    `places` are staged items that are to get their place.
    """

    puts: dict[str, Item]
    deletes: frozenset[str]
    done: asyncio.Future[dict[str, bool]]
    places: frozenset[str] = frozenset()

    @property
    def ids(self) -> Set[str]:
        return self.puts.keys() | self.deletes | self.places


@dataclass(slots=True)
class _Queue:
    """Writes that wait for the next commit, and such as must have one to themselves."""

    writes: list[_Write] = field(default_factory=list)
    alone: deque[_Write] = field(default_factory=deque)
    worker: asyncio.Task[None] | None = None


class Writer:
    """Writes that arrive within `window_s` share a commit; who loses a race decides again.

    `committed` is told of every new version and the edits that led to it.
    """

    def __init__(
        self,
        store: TreeStore,
        embedders: EmbedderCache,
        window_s: float,
        committed: Callable[[SemanticTree, Sequence[Edit]], None],
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._window_s = window_s
        self._committed = committed
        self._queue = _Queue()
        self._patching = asyncio.Lock()  # patches of one process need not race each other

    async def write(self, puts: dict[str, Item], deletes: frozenset[str]) -> dict[str, bool]:
        """One caller's write, of disjoint ids; per id whether it was created, or was there.

        Raises TooManyWrites.
        """
        if not puts and not deletes:
            return {}
        waiting = sum(len(other.ids) for other in self._queue.writes)
        if waiting > _MOST_WAITING:
            raise TooManyWrites(f"{waiting:,} items wait to be written: send more slowly")
        return await self._done(_Write(puts, deletes, asyncio.get_running_loop().create_future()))

    async def place(self, ids: Collection[str]) -> int:
        """Give staged items their place by their newest records; how many were still staged.

        What somebody deletes or writes meanwhile is not overwritten.
        """
        future = asyncio.get_running_loop().create_future()
        return len(await self._done(_Write({}, frozenset(), future, frozenset(ids))))

    async def _done(self, write: _Write) -> dict[str, bool]:
        self._queue.writes.append(write)
        if self._queue.worker is None or self._queue.worker.done():
            self._queue.worker = asyncio.create_task(self._work())
        return await asyncio.shield(write.done)

    async def _work(self) -> None:
        await asyncio.sleep(self._window_s)
        while batch := self._next_batch():
            try:
                done = await self._commit(batch)
            except StoreUnreachable as error:  # the others would each wait as long, in a row
                self._fail([*batch, *self._queue.alone, *self._queue.writes], error)
                self._queue.alone.clear()
                self._queue.writes.clear()
            except Exception as error:  # noqa: BLE001 - belongs to the caller who waits
                if len(batch) > 1:  # one write must not fail the others: each on its own
                    self._queue.alone.extend(batch)
                else:
                    self._fail(batch, error)
            else:
                for write in batch:
                    if not write.done.cancelled():
                        ids = write.ids & done.keys()
                        write.done.set_result({item: done[item] for item in ids})

    def _fail(self, writes: Sequence[_Write], error: Exception) -> None:
        for write in writes:
            if not write.done.cancelled():
                write.done.set_exception(error)

    def _next_batch(self) -> list[_Write]:
        """The oldest writes that fit one commit and touch no item twice."""
        if self._queue.alone:
            return [self._queue.alone.popleft()]
        batch: list[_Write] = []
        touched: set[str] = set()
        for write in self._queue.writes:
            ids = write.ids
            if batch and (len(touched) + len(ids) > COMMIT_ITEMS or touched & ids):
                break
            batch.append(write)
            touched |= ids
        del self._queue.writes[: len(batch)]
        return batch

    async def _commit(self, batch: Sequence[_Write]) -> dict[str, bool]:
        puts = {item.id: item for write in batch for item in write.puts.values()}
        deletes = {item_id for write in batch for item_id in write.deletes}
        places = {item_id for write in batch for item_id in write.places}
        for _ in range(_RETRIES):
            tree = await self._store.load()
            stamp = await self._store.stamp() if places else NEVER_STAGED
            waiting = await self._store.waiting(places)
            unknown = [item for item in (*puts, *deletes) if item not in tree]
            staged = await self._store.items(unknown) if unknown else {}
            known = {item: item in tree or item in staged for item in (*puts, *deletes)}
            gone = [item for item in deletes if known[item]]
            edits = [
                structs.replace(edit, record=b"")  # it is in the store already, perhaps newer
                if isinstance(edit, PutItem) and edit.id in waiting
                else edit
                for edit in await self._planned(tree, [*puts.values(), *waiting.values()], gone)
            ]
            if not edits:
                return {item: known[item] == (item in deletes) for item in known}
            try:
                after = await self._store.commit(edits, base=tree.version, stamp=stamp)
            except StaleVersion:
                continue
            self._committed(after, edits)
            done = {item: known[item] == (item in deletes) for item in known}
            return done | dict.fromkeys(waiting, True)
        raise StaleVersion(f"lost {_RETRIES} races for a commit: too many writers at once")

    async def _planned(
        self, tree: SemanticTree, items: Sequence[Item], drops: Sequence[str]
    ) -> list[Edit]:
        embedder = self._embedders.of(tree.space)

        def planned() -> list[Edit]:
            vectors = embedder.encode([item.text for item in items])
            return place.plan(tree, items, vectors, drops)

        if len(items) + len(drops) <= _INLINE_ITEMS:
            return planned()
        return await asyncio.to_thread(planned)

    async def patch(self, item_id: str, change: Callable[[Item], Item]) -> Item | None:
        """The item as `change` makes it from its newest record; None when there is no such item.

        No patch overwrites another write: `change` is called again when somebody was faster.
        """
        try:
            async with asyncio.timeout(_TURN_S):
                await self._patching.acquire()
        except TimeoutError as error:
            raise StoreUnreachable("the patches before this one get no answer") from error
        try:
            for _ in range(_RETRIES):
                tree = await self._store.load()
                record = (await self._store.items([item_id])).get(item_id)
                if record is None:
                    return None
                item = change(record)
                edits = await self._planned(tree, [item], ())
                try:
                    after = await self._store.commit(edits, base=tree.version)
                except StaleVersion:
                    continue
                self._committed(after, edits)
                return item
        finally:
            self._patching.release()
        raise StaleVersion(f"lost {_RETRIES} races for a commit: too many writers at once")

    async def rename(self, node_id: int, label: str | None, locked: bool | None) -> Node:
        """Give a node another label, or lock the one it has. Raises UnknownNode."""
        for _ in range(_RETRIES):
            tree = await self._store.load()
            node = tree.node(node_id)
            edit = Relabel(
                node_id,
                node.label if label is None else label,
                node.signpost,
                node.locked if locked is None else locked,
            )
            try:
                after = await self._store.commit([edit], base=tree.version)
            except StaleVersion:
                continue
            return after.node(node_id)
        raise StaleVersion(f"lost {_RETRIES} races for a commit: too many writers at once")
