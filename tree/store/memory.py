"""`MemoryTreeStore`: a catalogue in this process, for tests and benchmarks."""

from collections.abc import AsyncIterator, Collection, Sequence
from itertools import islice

from tree.edits import Edit
from tree.errors import StaleVersion
from tree.item import Item
from tree.node import Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.protocol import Looked


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
        self._staged: set[str] = set()

    async def load(self) -> SemanticTree:
        """See TreeStore."""
        return self._tree

    async def commit(self, edits: Sequence[Edit], *, base: int) -> SemanticTree:
        """See TreeStore."""
        self._check(base)
        self._tree = self._tree.apply(edits)
        self._log[self._tree.version] = wire.pack_edits(edits)
        for item_id, record in wire.records(edits).items():
            self._staged.discard(item_id)
            if record is None:
                self._records.pop(item_id, None)
            elif record:
                self._records[item_id] = record
        return self._tree

    async def replace(self, tree: SemanticTree, *, base: int) -> SemanticTree:
        """See TreeStore."""
        self._check(base)
        self._tree = tree.at_version(base + 1)
        self._log.clear()
        self._staged = {item_id for item_id in self._staged if item_id not in self._tree}
        return self._tree

    async def changes(self, *, since: int) -> list[Edit]:
        """See TreeStore."""
        wanted = range(since + 1, self._tree.version + 1)
        if since > self._tree.version or not self._log.keys() >= set(wanted):
            raise StaleVersion(f"the log no longer reaches back to version {since}")
        return [edit for version in wanted for edit in wire.read_edits(version, self._log[version])]

    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        return self._reader.items({item_id: self._records.get(item_id) for item_id in ids})

    async def flaws(self, ids: Collection[str]) -> dict[str, str]:
        """See TreeStore."""
        return wire.record_flaws({item_id: self._records.get(item_id) for item_id in ids})

    async def stage(self, items: Sequence[Item]) -> None:
        """See TreeStore."""
        self._records |= {item.id: wire.pack_item(item) for item in items}
        self._staged |= {item.id for item in items}

    async def staged(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        ids = iter(list(self._staged))
        while page := list(islice(ids, batch)):
            yield page

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
