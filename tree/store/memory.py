"""`MemoryTreeStore`: a catalogue in this process, for tests and benchmarks."""

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import islice

from tree.edits import Edit
from tree.errors import StaleVersion, UnknownVersion
from tree.item import Item
from tree.node import Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.protocol import NEVER_STAGED, Carry, Looked, Mark, TreeVersion

_KEPT_VERSIONS = 2


class MemoryTreeStore:
    """See TreeStore. Gone with the process."""

    def __init__(
        self,
        *,
        space: Space,
        settings: TreeSettings = TreeSettings(),  # noqa: B008
    ) -> None:
        self._empty = space, settings
        self._reader = wire.RecordReader()
        self._start()

    def _start(self) -> None:
        self._tree = SemanticTree.empty(*self._empty)
        self._log: dict[int, bytes] = {}
        self._records: dict[str, bytes] = {}
        self._staged: dict[str, int] = {}  # stamps by item id
        self._stamp = NEVER_STAGED
        self._marks: dict[str, bytes] = {}
        self._published: list[tuple[TreeVersion, SemanticTree]] = []

    async def load(self) -> SemanticTree:
        """See TreeStore."""
        return self._tree

    async def recent(self) -> SemanticTree:
        """See TreeStore."""
        return self._tree

    def seen(self) -> SemanticTree | None:
        """See TreeStore."""
        return self._tree

    async def follow(self, followed: Callable[[float], None]) -> None:
        """See TreeStore. There are no others to follow."""

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[str]:
        """See TreeStore. Nobody else commits here between two steps."""
        yield ""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """See TreeStore. Nobody else writes here."""
        yield

    async def commit(
        self,
        edits: Sequence[Edit],
        *,
        base: int,
        stamp: int = NEVER_STAGED,
        hold: str = "",  # noqa: ARG002
    ) -> SemanticTree:
        """See TreeStore."""
        self._check(base)
        self._tree = self._tree.apply(edits)
        self._log[self._tree.version] = wire.pack_edits(edits)
        for item_id, record in wire.records(edits).items():
            if record == b"":
                self._settle(item_id, stamp)
                continue
            self._staged.pop(item_id, None)
            if record is None:
                self._records.pop(item_id, None)
            else:
                self._records[item_id] = record
        return self._tree

    async def replace(
        self,
        tree: SemanticTree,
        *,
        base: int,
        stamp: int = NEVER_STAGED,
        note: str = "rebuild",
        carry: Carry | None = None,
    ) -> SemanticTree:
        """See TreeStore."""
        while carry is not None and base != self._tree.version:
            upto, edits = self._tree.version, await self.changes(since=base)
            tree, _ = await carry(tree, edits)
            base = upto
        self._check(base)
        if self._published:
            self._published[0] = self._published[0][0], self._tree
        self._tree = tree.at_version(base + 1)
        self._log.clear()
        entry = TreeVersion(base + 1, len(tree), time.time(), note)
        self._published = [(entry, self._tree), *self._published][:_KEPT_VERSIONS]
        for item_id in [item_id for item_id in self._staged if item_id in self._tree]:
            self._settle(item_id, stamp)
        return self._tree

    async def versions(self) -> list[TreeVersion]:
        """See TreeStore."""
        return [entry for entry, _ in self._published]

    async def version(self, number: int) -> SemanticTree:
        """See TreeStore."""
        for entry, tree in self._published:
            if entry.version == number:
                return tree.at_version(tree.version)
        raise UnknownVersion(f"version {number} is not kept: see the list of versions")

    async def changes(self, *, since: int) -> list[Edit]:
        """See TreeStore."""
        wanted = range(since + 1, self._tree.version + 1)
        if since > self._tree.version or not self._log.keys() >= set(wanted):
            raise StaleVersion(f"the log no longer reaches back to version {since}")
        return [edit for version in wanted for edit in wire.read_edits(version, self._log[version])]

    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        return self._reader.items({item_id: self._records.get(item_id) for item_id in ids})

    async def records(self, ids: Collection[str]) -> dict[str, bytes]:
        """See TreeStore."""
        return {item_id: self._records[item_id] for item_id in ids if item_id in self._records}

    async def flaws(self, ids: Collection[str]) -> dict[str, str]:
        """See TreeStore."""
        return wire.record_flaws({item_id: self._records.get(item_id) for item_id in ids})

    async def known(self, ids: Collection[str]) -> set[str]:
        """See TreeStore."""
        return {item_id for item_id in ids if item_id in self._records or item_id in self._staged}

    async def stage(self, items: Sequence[Item], mark: Mark | None = None) -> None:
        """See TreeStore."""
        if mark and self._marks.get(mark.name, b"") not in (mark.before, mark.content):
            raise StaleVersion("somebody else goes on with what is staged here")
        self._stamp += 1
        self._records |= {item.id: wire.pack_item(item) for item in items}
        self._staged |= {item.id: self._stamp for item in items}
        if mark:
            self._marks[mark.name] = mark.content

    async def mark(self, name: str) -> bytes | None:
        """See TreeStore."""
        return self._marks.get(name)

    async def stamp(self) -> int:
        """See TreeStore."""
        return self._stamp

    async def staged(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        ids = iter(list(self._staged))
        while page := list(islice(ids, batch)):
            yield page

    async def waiting(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        return await self.items([item_id for item_id in ids if item_id in self._staged])

    async def survey(self) -> AsyncIterator[Looked]:
        """See TreeStore."""
        waiting = wire.record_flaws({one: self._records.get(one) for one in self._staged})
        yield Looked("waiting", len(self._staged), tuple(waiting.values()))

    async def recorded(self) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        yield list(self._records)

    async def compact(self) -> None:
        """See TreeStore. The log is the snapshot's own business here: nothing to do."""

    async def drop(self) -> None:
        """See TreeStore."""
        self._start()

    async def aclose(self) -> None:
        """Nothing to wait for."""

    def _check(self, base: int) -> None:
        if base != self._tree.version:
            raise StaleVersion(f"version {base} is not the newest: {self._tree.version} is")

    def _settle(self, item_id: str, stamp: int) -> None:
        if self._staged.get(item_id, 0) <= stamp:
            self._staged.pop(item_id, None)
