"""Random schedules over several replicas of one catalogue, against a plain model of it.

A replica is what one process has of a catalogue: a store object with what that has seen, a
writer and a rebuilder. Everything runs on a real server; a rebuild is held before its last step,
so that any other act may come in between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from app.embedders import EmbedderCache
from app.jobs import JobReport
from tests.faults.replicas import (
    IDS,
    PATIENCE_S,
    REPLICAS,
    TIMES,
    WORDS,
    Model,
    Rebuild,
    Replica,
    contents,
    dies_after,
    ids,
    numbers,
    replicas,
    some_ids,
    steps,
)
from tree.edits import DropItem, Edit, PutItem
from tree.errors import StaleVersion
from tree.inspect import violations
from tree.item import Item
from tree.place import plan
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.snapshot import SemanticTree
from tree.store.keys import CatalogKeys

_T = TypeVar("_T")

# -- the schedules


class Server:
    """An embedded server that comes back with what it had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running = asyncio.run(EmbeddedServer.start(folder))

    async def restart(self) -> None:
        await self.running.stop()
        self.running = await EmbeddedServer.start(self.folder)


class Schedules(RuleBasedStateMachine):
    """Any order of acts on any replica; every reader sees the model."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    @initialize(grown=st.booleans())
    def open(self, grown: bool) -> None:
        """Three replicas over an empty catalogue, or one that is large enough to have levels."""
        self.runner = asyncio.Runner()
        self.model = Model()
        self.embedders = EmbedderCache()
        self.prefix = f"test-{token_hex(4)}"
        self.run(self._open())
        if grown:
            many = [Item(id=one, title=f"{WORDS[n % len(WORDS)]} {WORDS[n % 5]}", domain=one[:4])
                    for n, one in enumerate(IDS[::2])]  # fmt: skip
            self.run(self.replicas[0].writer.write({item.id: item for item in many}, frozenset()))
            self.model.put(many)

    async def _open(self) -> None:
        self.client = connect(self.server.running.connect_url)
        self.replicas = [Replica(self.client, self.prefix) for _ in range(REPLICAS)]
        self.observer = Replica(self.client, self.prefix)

    def run(self, work: Awaitable[_T]) -> _T:
        return self.runner.run(asyncio.wait_for(work, PATIENCE_S))

    # -- writes

    @rule(at=replicas, some=some_ids, make=contents())
    def put(self, at: int, some: list[str], make: Callable[[str], Item]) -> None:
        items = {one: make(one) for one in some}
        created = self.run(self.replicas[at].writer.write(items, frozenset()))
        assert created == {one: one not in self.model.records for one in some}
        self.model.put(items.values())
        self.run(self._observed())

    @rule(at=replicas, some=some_ids)
    def delete(self, at: int, some: list[str]) -> None:
        there = self.run(self.replicas[at].writer.write({}, frozenset(some)))
        assert there == {one: one in self.model.records for one in some}
        self.model.delete(some)
        self.run(self._observed())

    @rule(some=some_ids, gone=some_ids, make=contents())
    def write_at_once(self, some: list[str], gone: list[str], make: Callable[[str], Item]) -> None:
        """Every replica at the same time, each its own items."""
        gone = [one for one in gone if one not in some]
        shares = [some[at::REPLICAS] for at in range(REPLICAS)]
        left = [gone[at::REPLICAS] for at in range(REPLICAS)]

        async def written() -> None:
            await asyncio.gather(
                *(
                    replica.writer.write({one: make(one) for one in puts}, frozenset(deletes))
                    for replica, puts, deletes in zip(self.replicas, shares, left, strict=True)
                )
            )

        self.run(written())
        self.model.put(map(make, some))
        self.model.delete(gone)
        self.run(self._observed())

    @rule(at=replicas, item_id=ids, how=st.sampled_from(["hide", "show", "expire", "last"]))
    def patch(self, at: int, item_id: str, how: str) -> None:
        changes: dict[str, dict[str, object]] = {
            "hide": {"hidden": True},
            "show": {"hidden": False},
            "expire": {"expires_at": TIMES["past"]},
            "last": {"expires_at": None},
        }
        change = changes[how]
        patched = self.run(
            self.replicas[at].writer.patch(item_id, lambda item: item.model_copy(update=change))
        )
        before = self.model.records.get(item_id)
        assert patched == (before and before.model_copy(update=change))
        if patched is not None:
            self.model.put([patched])
        self.run(self._observed())

    @rule(at=replicas, some=some_ids, make=contents())
    def stage(self, at: int, some: list[str], make: Callable[[str], Item]) -> None:
        items = list(map(make, some))
        self.run(self.replicas[at].store.stage(items))
        self.model.stage(items)

    @rule(at=replicas)
    def place(self, at: int) -> None:
        """What was staged gets its place, as at the end of an import."""
        waiting = sorted(self.model.staged)
        assert self.run(self.replicas[at].writer.place(waiting)) == len(waiting)
        self.model.place(waiting)
        self.run(self._observed())

    # -- labels

    @rule(at=replicas, number=numbers)
    def lock(self, at: int, number: int) -> None:
        tree = self.run(self.replicas[at].store.load())
        every = list(tree.walk())
        nodes = [node for node in every if node.key and number % 2] or every
        node = nodes[number % len(nodes)].id
        renamed = self.run(self.replicas[at].writer.rename(node, f"locked {number}", True))
        self.model.locked[node] = renamed
        self.run(self._observed())

    @rule(at=replicas, number=numbers)
    def unlock(self, at: int, number: int) -> None:
        locked = sorted(self.model.locked)
        if locked:
            node = locked[number % len(locked)]
            self.run(self.replicas[at].writer.rename(node, None, False))
            del self.model.locked[node]
            self.run(self._observed())

    @rule(at=replicas, numbers=st.lists(numbers, max_size=2))
    def relabel(self, at: int, numbers: list[int]) -> None:
        """Labels made anew; an administrator locks some while they are made."""
        rebuilder = self.replicas[at].rebuilder
        _, edits = self.run(rebuilder.relabelled(JobReport.unwatched()))
        for number in numbers:
            self.lock((at + 1) % REPLICAS, number)
        self.run(rebuilder.publish_labels(edits, JobReport.unwatched()))
        self.run(self._observed())

    # -- the shape

    @rule(at=replicas, number=numbers)
    def regrow(self, at: int, number: int) -> None:
        tree = self.run(self.replicas[at].store.load())
        nodes = list(tree.walk())
        top = nodes[number % len(nodes)].id
        self.run(self.replicas[at].rebuilder.subtree(top, JobReport.unwatched()))
        self.run(self._observed())

    @rule(at=replicas)
    def begin_rebuild(self, at: int) -> None:
        """Read and build; the draft waits to be published."""
        replica = self.replicas[at]
        if replica.rebuild is None:
            read = {one: self.model.records[one] for one in self.model.staged}

            async def begun() -> None:
                replica.store.go.clear()
                replica.store.waits.clear()
                work = replica.rebuilder.full(JobReport.unwatched())
                replica.rebuild = Rebuild(asyncio.create_task(work), read)
                await replica.store.waits.wait()

            self.run(begun())

    @rule(number=numbers)
    def publish(self, number: int) -> None:
        """A draft takes over, with what was written meanwhile."""
        begun = [replica for replica in self.replicas if replica.rebuild is not None]
        if begun:
            replica = begun[number % len(begun)]
            rebuild, replica.rebuild = replica.rebuild, None
            assert rebuild is not None
            replica.store.go.set()
            self.run(rebuild.task)
            self.run(self._settled(rebuild.read))

    async def _settled(self, read: dict[str, Item]) -> None:
        """Which staged items a rebuild has placed: at least those that it read and that nobody
        staged again. It may have begun anew, and then have read more of them."""
        tree = await self._republished()
        waiting = {one async for batch in self.observer.store.staged_ids() for one in batch}
        sure = {one for one, item in read.items() if self.model.records.get(one) is item}
        assert not waiting & sure
        assert waiting <= self.model.staged
        self.model.place(self.model.staged - waiting)
        for one in waiting & set(tree.item_ids()):  # with what it was before it was staged again
            self.model.placed.setdefault(one, self.model.records[one])

    async def _republished(self) -> SemanticTree:
        """Nodes have other numbers now: what was locked is known by its key."""
        labels: dict[tuple[str, ...], set[str]] = {}
        for node in self.model.locked.values():
            labels.setdefault(node.key, set()).add(node.label)
        self.model.locked.clear()
        tree = await self._observed()
        found: dict[tuple[str, ...], set[str]] = {}
        for node in tree.walk():
            if node.key and node.key in labels:  # splits leave several, and the likest is locked
                found.setdefault(node.key, set())
                if node.locked:
                    found[node.key].add(node.label)
                    self.model.locked[node.id] = node
        assert all(named & labels[key] for key, named in found.items())
        return tree

    @rule(at=replicas, number=numbers)
    def activate(self, at: int, number: int) -> None:
        """The shape of an older version, with the items of now."""
        replica = self.replicas[at]
        kept = self.run(replica.store.versions())
        if kept and replica.rebuild is None:
            chosen = kept[number % len(kept)].version
            self.run(replica.rebuilder.activate(chosen, JobReport.unwatched()))
            self.run(self._republished())

    @rule(at=replicas)
    def compact(self, at: int) -> None:
        self.run(self.replicas[at].store.compact())

    # -- failures

    @rule(at=replicas)
    def crash(self, at: int) -> None:
        self.run(self._reborn(at))

    @rule(at=replicas, some=some_ids, gone=some_ids, make=contents(), after=steps)
    def crash_in_a_commit(
        self, at: int, some: list[str], gone: list[str], make: Callable[[str], Item], after: int
    ) -> None:
        """The reply is lost: all of it happened, or nothing."""
        items = list(map(make, some))
        gone = [one for one in gone if one not in some]

        async def crashed() -> bool:
            store = self.replicas[at].store
            tree = await store.load()
            vectors = self.embedders.of(tree.space).encode([item.text for item in items])
            drops = [one for one in gone if one in tree]
            edits = plan(tree, items, vectors, drops)
            await dies_after(after, store.commit(edits, base=tree.version))
            await self._reborn(at)
            return (await self.observer.store.load()).version > tree.version

        placed = {one for one in gone if one in self.model.placed}
        if self.run(crashed()):
            self.model.put(items)
            self.model.delete(placed)
        self.run(self._observed())

    @rule(at=replicas, after=st.integers(0, 400), compacting=st.booleans())
    def crash_in_an_upload(self, at: int, after: int, compacting: bool) -> None:
        """Nobody misses the snapshot that was half written."""
        replica = self.replicas[at]

        async def crashed() -> None:
            await replica.die()  # but for this upload
            replica.store.go.set()
            tree = await replica.store.load()
            work = (
                replica.store.compact()
                if compacting
                else replica.store.replace(tree, base=tree.version)
            )
            await dies_after(after, work)
            await self._reborn(at)

        self.run(crashed())
        self.run(self._observed())

    @rule()
    def restart_store(self) -> None:
        """The server ends and comes back with its file; clients find it again by themselves."""
        self.run(self.server.restart())

    async def _reborn(self, at: int) -> None:
        await self.replicas[at].die()
        self.replicas[at] = Replica(self.client, self.prefix)

    # -- what has to hold

    @rule(at=replicas)
    def read(self, at: int) -> None:
        """A replica that may be many versions behind."""
        self.run(self._check(self.replicas[at]))

    def teardown(self) -> None:
        """Every replica, and one that knows nothing yet, ends at the same tree."""
        try:
            self.run(self._converged())
        finally:
            self.runner.run(self._close())
            self.runner.close()

    async def _converged(self) -> None:
        readers = [*self.replicas, Replica(self.client, self.prefix)]
        trees = [await self._check(reader) for reader in readers]
        assert all(shape(tree) == shape(trees[0]) for tree in trees)
        for replica in self.replicas:
            await replica.die()
        await self._check_keys()

    async def _close(self) -> None:
        await self.observer.store.drop()
        await self.client.aclose()

    async def _observed(self) -> SemanticTree:
        """What holds after every commit; a node that vanished takes its lock with it."""
        tree = await self.observer.store.load()
        assert tree.version >= self.model.version
        self.model.version = tree.version
        self.model.locked = {n: node for n, node in self.model.locked.items() if tree.has_node(n)}
        for number, node in self.model.locked.items():
            assert (tree.node(number).label, tree.node(number).locked) == (node.label, True)
        return tree

    async def _check(self, replica: Replica) -> SemanticTree:
        model, store = self.model, replica.store
        tree = await store.load()
        assert tree.version >= max(model.version, replica.seen.version if replica.seen else 0)
        assert violations(tree) == []
        held = set(tree.item_ids())
        assert held == model.placed.keys()
        assert await store.items(IDS) == model.records
        assert {one async for batch in store.staged_ids() for one in batch} == model.staged
        self._check_rows(tree)
        if replica.seen is not None:
            with suppress(StaleVersion):  # the log may reach less far back
                edits = await store.changes(since=replica.seen.version)
                assert replayed(replica.held, edits) == held
        replica.seen, replica.held = tree, held
        return tree

    def _check_rows(self, tree: SemanticTree) -> None:
        """The tree knows of an item what its record says, unless that waits for its turn."""
        placed = [one for one in self.model.placed.values() if one.id not in self.model.staged]
        rows = np.array([tree.row(item.id) for item in placed], np.int64)
        vectors = self.embedders.of(tree.space).encode([item.text for item in placed])
        assert np.array_equal(tree.rows.vectors[rows], vectors)
        for row, item in zip(rows.tolist(), placed, strict=True):
            facts = tree.rows.columns(np.array([row]))
            until = item.expires_at.timestamp() if item.expires_at else np.inf
            assert (facts.hidden[0], facts.expires_at[0]) == (item.hidden, until)
            assert (facts.domains[0], facts.popularity[0]) == (item.domain, item.popularity or 0.0)

    async def _check_keys(self) -> None:
        """Snapshots that nobody needs any more have been given an end."""
        keys = CatalogKeys("shop", self.prefix)
        kept = len(await self.observer.store.versions())
        found = [key async for key in self.client.scan_iter(match=keys.snapshot("*"))]
        staying = [key for key in found if await self.client.ttl(key) == -1]
        assert len(staying) == kept


def shape(tree: SemanticTree) -> list[object]:
    return [tree.version, tree.space, [tree.spec(node) for node in tree.walk()]]


def replayed(held: set[str], edits: Iterable[Edit]) -> set[str]:
    """The ids that are held after some edits."""
    now = set(held)
    for edit in edits:
        match edit:
            case PutItem():
                now.add(edit.id)
            case DropItem():
                now.discard(edit.id)
    return now
