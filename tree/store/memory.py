"""`MemoryTreeStore`: a catalogue in this process, for tests and benchmarks."""

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import islice

from tree.edits import Edit
from tree.errors import CatalogDeleted, Overtaken, StaleVersion, UnknownVersion
from tree.item import Item
from tree.node import Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.store import encoding
from tree.store.protocol import NEVER_STAGED, Carry, CheckedPart, Checkpoint, TreeVersion

_KEPT_VERSIONS = 2


class MemoryTreeStore:
    """See TreeStore. Gone with the process."""

    def __init__(
        self,
        *,
        space: Space,
        settings: TreeSettings = TreeSettings(),  # noqa: B008
    ) -> None:
        self._reader = encoding.RecordReader()
        self._deleted = False
        self._tree = SemanticTree.empty(space, settings)
        self._log: dict[int, bytes] = {}
        self._records: dict[str, bytes] = {}
        self._staged: dict[str, int] = {}  # staging numbers by item id
        self._staging_seq = NEVER_STAGED
        self._checkpoints: dict[str, bytes] = {}
        self._published: list[tuple[TreeVersion, SemanticTree]] = []

    async def load(self) -> SemanticTree:
        """See TreeStore."""
        self._check_there()
        return self._tree

    async def recent(self) -> SemanticTree:
        """See TreeStore."""
        return await self.load()

    def seen(self) -> SemanticTree | None:
        """See TreeStore."""
        return self._tree

    async def follow(self, followed: Callable[[float], None]) -> None:
        """See TreeStore. No other process writes here."""

    @asynccontextmanager
    async def commit_lock(self) -> AsyncIterator[str]:
        """See TreeStore. No other process commits here."""
        yield ""

    @asynccontextmanager
    async def bulk_write_lease(self) -> AsyncIterator[None]:
        """See TreeStore. No other process writes here."""
        yield

    async def commit(
        self,
        edits: Sequence[Edit],
        *,
        base: int,
        staging_seq: int = NEVER_STAGED,
        lock: str = "",  # noqa: ARG002
        made_of_records: bool = False,
    ) -> SemanticTree:
        """See TreeStore."""
        self._check(base)
        written = encoding.records(edits)
        if made_of_records and any(
            self._staged.get(item_id, 0) > staging_seq for item_id in written
        ):
            raise StaleVersion("an item was staged after its record was read")
        self._tree = self._tree.apply(edits)
        self._log[self._tree.version] = encoding.pack_edits(edits)
        for item_id, record in written.items():
            if record == b"":
                self._unstage(item_id, staging_seq)
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
        staging_seq: int = NEVER_STAGED,
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
            self._unstage(item_id, staging_seq)
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
        return [
            edit for version in wanted for edit in encoding.read_edits(version, self._log[version])
        ]

    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        self._check_there()
        return self._reader.items({item_id: self._records.get(item_id) for item_id in ids})

    async def records(self, ids: Collection[str]) -> dict[str, bytes]:
        """See TreeStore."""
        self._check_there()
        return {item_id: self._records[item_id] for item_id in ids if item_id in self._records}

    async def record_flaws(self, ids: Collection[str]) -> dict[str, str]:
        """See TreeStore."""
        return encoding.record_flaws({item_id: self._records.get(item_id) for item_id in ids})

    async def existing(self, ids: Collection[str]) -> set[str]:
        """See TreeStore."""
        return {item_id for item_id in ids if item_id in self._records or item_id in self._staged}

    async def stage(
        self,
        items: Sequence[Item],
        checkpoint: Checkpoint | None = None,
        *,
        lines_of: SemanticTree | None = None,
    ) -> None:
        """See TreeStore."""
        self._check_there()
        if checkpoint and self._checkpoints.get(checkpoint.name, b"") not in (
            checkpoint.before,
            checkpoint.content,
        ):
            raise StaleVersion("another process continues this import")
        newest = self._tree
        if lines_of and lines_of.version != newest.version and newest.rows.have_lines:
            raise Overtaken("lines of items were set meanwhile")
        self._staging_seq += 1
        self._records |= {item.id: encoding.pack_item(item) for item in items}
        self._staged |= {item.id: self._staging_seq for item in items}
        if checkpoint:
            self._checkpoints[checkpoint.name] = checkpoint.content

    async def checkpoint(self, name: str) -> bytes | None:
        """See TreeStore."""
        return self._checkpoints.get(name)

    async def staging_seq(self) -> int:
        """See TreeStore."""
        return self._staging_seq

    async def staged_ids(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        ids = iter(list(self._staged))
        while page := list(islice(ids, batch)):
            yield page

    async def staged_items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        return await self.items([item_id for item_id in ids if item_id in self._staged])

    async def check_integrity(self) -> AsyncIterator[CheckedPart]:
        """See TreeStore."""
        waiting = encoding.record_flaws({one: self._records.get(one) for one in self._staged})
        yield CheckedPart("waiting", len(self._staged), tuple(waiting.values()))

    async def record_ids(self) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        yield list(self._records)

    async def compact(self) -> None:
        """See TreeStore. There is no snapshot here."""

    async def drop(self) -> None:
        """See TreeStore."""
        self._deleted = True
        self._records.clear()
        self._staged.clear()

    async def aclose(self) -> None:
        """Nothing to wait for."""

    def _check_there(self) -> None:
        if self._deleted:
            raise CatalogDeleted("the catalogue was deleted")

    def _check(self, base: int) -> None:
        self._check_there()
        if base != self._tree.version:
            raise StaleVersion(f"version {base} is not the newest: {self._tree.version} is")

    def _unstage(self, item_id: str, staging_seq: int) -> None:
        if self._staged.get(item_id, 0) <= staging_seq:
            self._staged.pop(item_id, None)
