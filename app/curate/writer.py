"""`Writer`: the changes of one catalogue, grouped into commits that win or try again."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import random

from msgspec import structs

from app.curate.placement import Placement, Vectors
from app.curate.reading import INLINE_ITEMS, VectorReader
from app.curate.texts import TextReader
from tree.edits import Edit, PutItem, Relabel, Reshape
from tree.embedders import EmbedderCache
from tree.errors import StaleVersion, StoreUnreachable
from tree.item import Item
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.store.protocol import NEVER_STAGED, TreeStore

_MOST_WAITING = 20_000  # items; more callers are told to come back, so that memory is bounded
_RETRIES = 100  # some ten seconds of lost races: each means that somebody else's went through
_TURN_S = 5.0  # a patch that waits longer for those before it: the store does not answer
_SLICES_AT_ONCE = 2  # of an import that gets its place, where texts take time
_TURN_ITEMS = 100  # a larger plan takes longer than others leave between two commits
# Of writes that wait for each other: to follow an item in a commit of 2,000 takes three quarters
# of what it takes in one of 1,000 (2026-11, 100k items).
_SHARED_ITEMS = 2_000
_LABELS_WAIT_S = 0.5  # for a commit to go along with; one of their own makes larger ones lose
_FIRST_BACK_OFF_S = 0.01
_BACK_OFF_S = 0.2


class TooManyWrites(Exception):
    """More arrives than can be written: try again in a moment."""


class _Unread(Exception):
    """The text of an item has changed since its vector was made, or the space."""


@dataclass(slots=True)
class _Write:
    """One caller's puts and deletes; `done` gets, per id, whether it was created or was there.

    `places` are staged items that are to get their place.
    """

    puts: dict[str, Item]
    deletes: frozenset[str]
    done: asyncio.Future[dict[str, bool]]
    places: frozenset[str] = frozenset()
    vectors: Vectors = field(default_factory=Vectors)

    @property
    def ids(self) -> Set[str]:
        return self.puts.keys() | self.deletes | self.places


@dataclass(slots=True)
class _Queue:
    """Writes that wait for the next commit, and such as must have one to themselves."""

    writes: list[_Write] = field(default_factory=list)
    alone: deque[_Write] = field(default_factory=deque)
    labels: dict[int, tuple[Node, Relabel]] = field(default_factory=dict)
    labels_due: asyncio.TimerHandle | None = None
    overtaken: bool = False  # whether the last commit was one of small writes
    worker: asyncio.Task[None] | None = None


class Writer:
    """Writes that arrive within `window_s` share a commit; who loses a race decides again.

    `committed` is told of every new version and the edits that led to it. `texts` is closed by
    whoever gave it.
    """

    def __init__(
        self,
        store: TreeStore,
        embedders: EmbedderCache,
        window_s: float,
        committed: Callable[[SemanticTree, Sequence[Edit]], None],
        texts: TextReader | None = None,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._window_s = window_s
        self._committed = committed
        self._queue = _Queue()
        self._patching = asyncio.Lock()  # patches of one process need not race each other
        self._texts = texts or TextReader(embedders)
        self._own_texts = texts is None
        self._vectors = VectorReader(store, self._texts)
        self._arriving = 0  # items whose texts are being read

    async def write(self, puts: dict[str, Item], deletes: frozenset[str]) -> dict[str, bool]:
        """One caller's write, of disjoint ids; per id whether it was created, or was there.

        Raises TooManyWrites.
        """
        if not puts and not deletes:
            return {}
        queued = (*self._queue.alone, *self._queue.writes)
        waiting = self._arriving + sum(len(other.ids) for other in queued)
        if waiting > _MOST_WAITING:
            raise TooManyWrites(f"{waiting:,} items wait to be written: send more slowly")
        write = _Write(puts, deletes, asyncio.get_running_loop().create_future())
        self._arriving += len(puts)
        try:
            await self._vectors.read(write.vectors, list(puts.values()))
        finally:
            self._arriving -= len(puts)
        return await self._done(write)

    async def place(self, ids: Collection[str]) -> int:
        """Give staged items their place by their newest records; how many were still staged.

        What somebody deletes or writes meanwhile is not overwritten.
        """
        before = 0
        if not await self._vectors.slow():
            before = await self._placed(ids, Vectors())
            if not await self._vectors.slow():  # of the tree that was committed to, by now
                return before
        step, waiting = await self._vectors.at_once(), list(ids)
        slices = [waiting[start : start + step] for start in range(0, len(waiting), step)]

        async def some() -> int:
            placed = 0
            try:
                while slices:
                    placed += await self._read_and_placed(slices.pop(0))
            finally:
                slices.clear()  # who fails ends the others, but for what they are at
            return placed

        tasks = [asyncio.create_task(some()) for _ in range(_SLICES_AT_ONCE)]
        await asyncio.gather(*tasks, return_exceptions=True)
        return before + sum(task.result() for task in tasks)

    async def _read_and_placed(self, ids: Collection[str]) -> int:
        """See `place`; no commit waits for the embedder, nor does this give up on a slow one."""
        vectors, placed = Vectors(), 0
        while items := list((await self._store.waiting(ids)).values()):
            await self._vectors.read_at_leisure(vectors, items)
            placed += await self._placed([item.id for item in items], vectors)
        return placed

    async def _placed(self, ids: Collection[str], vectors: Vectors) -> int:
        done = asyncio.get_running_loop().create_future()
        return len(await self._done(_Write({}, frozenset(), done, frozenset(ids), vectors)))

    def relabel(self, tree: SemanticTree, edits: Sequence[Relabel]) -> None:
        """Take labels made for `tree` along with the next commit, where they still fit.

        Where none comes they have one of their own, which may make a batch lose its race.
        """
        queue = self._queue
        queue.labels.update((edit.node, (tree.node(edit.node), edit)) for edit in edits)
        if queue.labels_due is None:
            loop = asyncio.get_running_loop()
            queue.labels_due = loop.call_later(_LABELS_WAIT_S, self._label)

    def _label(self) -> None:
        self._queue.labels_due = None
        self._start()

    async def _done(self, write: _Write) -> dict[str, bool]:
        self._queue.writes.append(write)
        self._start()
        return await asyncio.shield(write.done)

    async def aclose(self, timeout_s: float) -> None:
        """Commit what waits, as far as `timeout_s` allows."""
        if self._queue.labels_due is not None:
            self._queue.labels_due.cancel()
            self._label()
        if self._queue.worker is not None:
            await asyncio.wait([self._queue.worker], timeout=timeout_s)
        if self._own_texts:
            await self._texts.aclose()

    def _start(self) -> None:
        if self._queue.worker is None or self._queue.worker.done():
            self._queue.worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        await asyncio.sleep(self._window_s)
        while (batch := self._next_batch()) or self._labels_wait():
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

    def _labels_wait(self) -> bool:
        """Whether there are labels for which no write has come."""
        return bool(self._queue.labels) and not self._queue.labels_due and not self._arriving

    def _fail(self, writes: Sequence[_Write], error: Exception) -> None:
        for write in writes:
            if not write.done.cancelled():
                write.done.set_exception(error)

    def _next_batch(self) -> list[_Write]:
        """The oldest writes that fit one commit and touch no item twice.

        Small ones go first every other time, but for such as touch what an older one touches.
        """
        if self._queue.alone:
            return [self._queue.alone.popleft()]
        older: set[str] = set()
        small: list[_Write] = []
        for write in self._queue.writes:
            if len(write.ids) <= INLINE_ITEMS and not older & write.ids:
                small.append(write)
            older |= write.ids
        batch: list[_Write] = []
        touched: set[str] = set()
        self._queue.overtaken = bool(small) and not self._queue.overtaken
        for write in small if self._queue.overtaken else self._queue.writes:
            if batch and (len(touched) + len(write.ids) > _SHARED_ITEMS or touched & write.ids):
                break
            batch.append(write)
            touched |= write.ids
        taken = set(map(id, batch))
        self._queue.writes = [write for write in self._queue.writes if id(write) not in taken]
        return batch

    async def _commit(self, batch: Sequence[_Write]) -> dict[str, bool]:
        puts = {item.id: item for write in batch for item in write.puts.values()}
        deletes = {item_id for write in batch for item_id in write.deletes}
        places = {item_id for write in batch for item_id in write.places}
        placement = Placement(Vectors.joined([write.vectors for write in batch]))
        if len(puts) + len(places) <= _TURN_ITEMS:
            return await self._raced(puts, deletes, places, placement)
        tree = await self._store.load()
        items, embedder = list(puts.values()), self._embedders.of(tree.space)
        await self._vectors.reread(tree, placement.vectors, items)
        await asyncio.to_thread(placement.find, tree, embedder, items)
        async with self._store.turn():
            return await self._raced(puts, deletes, places, placement)

    async def _raced(
        self, puts: dict[str, Item], deletes: set[str], places: set[str], placement: Placement
    ) -> dict[str, bool]:
        """Tries until a commit wins its race."""
        labels, self._queue.labels = self._queue.labels, {}
        async for _ in _races():
            tree = await self._store.load()
            stamp = await self._store.stamp() if places else NEVER_STAGED
            staged = await self._store.waiting(places)
            waiting = self._vectors.ready(tree, placement.vectors, staged)
            ids = [*puts, *deletes]
            unknown = [
                item for item, row in zip(ids, tree.rows_of(ids), strict=True) if row is None
            ]
            lacking = set(unknown) - await self._store.known(unknown)
            known = {item: item not in lacking for item in ids}
            gone = [item for item in deletes if known[item]]
            planned = await self._planned(
                tree, placement, [*puts.values(), *waiting.values()], gone
            )
            edits: list[Edit] = [
                structs.replace(edit, record=b"")  # it is in the store already, perhaps newer
                if isinstance(edit, PutItem) and edit.id in waiting
                else edit
                for edit in planned
            ]
            edits += _fitting(tree, labels, edits)
            if not edits:
                return {item: known[item] == (item in deletes) for item in known}
            try:
                after = await self._store.commit(edits, base=tree.version, stamp=stamp)
            except StaleVersion:
                continue
            if puts or deletes or waiting:
                self._committed(after, edits)
            done = {item: known[item] == (item in deletes) for item in known}
            return done | dict.fromkeys(waiting, True)
        raise StaleVersion(f"lost {_RETRIES} races for a commit: too many writers at once")

    async def _planned(
        self,
        tree: SemanticTree,
        placement: Placement,
        items: Sequence[Item],
        drops: Sequence[str],
    ) -> list[Edit]:
        await self._vectors.reread(tree, placement.vectors, items)
        work = partial(placement.plan, tree, self._embedders.of(tree.space), items, drops)
        if len(items) + len(drops) <= INLINE_ITEMS:
            return work()
        return await asyncio.to_thread(work)

    async def patch(self, item_id: str, change: Callable[[Item], Item]) -> Item | None:
        """The item as `change` makes it from its newest record; None when there is no such item.

        No patch overwrites another write: `change` is called again when somebody was faster.
        """
        vectors = Vectors()
        async for _ in _races():
            if await self._vectors.slow():
                found = await self._store.items([item_id])
                await self._vectors.read(vectors, [change(item) for item in found.values()])
            try:
                async with asyncio.timeout(_TURN_S):
                    await self._patching.acquire()
            except TimeoutError as error:
                raise StoreUnreachable("the patches before this one get no answer") from error
            try:
                with suppress(_Unread):  # others do not wait in turn for an embedder
                    return await self._patched(item_id, change, vectors)
            finally:
                self._patching.release()
        raise StaleVersion(f"lost {_RETRIES} races for a commit: too many writers at once")

    async def _patched(
        self, item_id: str, change: Callable[[Item], Item], vectors: Vectors
    ) -> Item | None:
        """See `patch`. Raises _Unread where the text has to be read first, which takes time."""
        async for _ in _races():
            tree = await self._store.load()
            record = (await self._store.items([item_id])).get(item_id)
            if record is None:
                return None
            item = change(record)
            if not self._vectors.ready(tree, vectors, {item_id: item}):
                raise _Unread
            edits = await self._planned(tree, Placement(vectors), [item], ())
            try:
                after = await self._store.commit(edits, base=tree.version)
            except StaleVersion:
                continue
            self._committed(after, edits)
            return item
        raise StaleVersion(f"lost {_RETRIES} races for a commit: too many writers at once")

    async def rename(self, node_id: int, label: str | None, locked: bool | None) -> Node:
        """Give a node another label, or lock the one it has. Raises UnknownNode."""
        async for _ in _races():
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


def _fitting(
    tree: SemanticTree, labels: Mapping[int, tuple[Node, Relabel]], edits: Sequence[Edit]
) -> list[Relabel]:
    """Labels of nodes that are named as they were, and that `edits` leave alone."""
    reshaped = {
        node
        for edit in edits
        if isinstance(edit, Reshape)
        for node in (*edit.drop, *(spec.id for spec in edit.put))
    }
    return [
        edit
        for node, (was, edit) in labels.items()
        if node not in reshaped and tree.has_node(node) and _named_alike(tree.node(node), was)
    ]


def _named_alike(now: Node, was: Node) -> bool:
    return (now.label, now.signpost, now.locked) == (was.label, was.signpost, was.locked)


async def _races() -> AsyncIterator[int]:
    """As many tries as make sense; whoever loses often waits longer, at random, between them."""
    for attempt in range(_RETRIES):
        if attempt:
            await asyncio.sleep(random() * min(_BACK_OFF_S, _FIRST_BACK_OFF_S * 2**attempt))
        yield attempt
