"""`CatalogReader`: one version of a catalogue, read while others write."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from itertools import islice

from tree.edits import DropItem, PutItem
from tree.errors import StaleVersion, StoreUnavailable
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore

_AT_ONCE = 500
_ROUNDS = 30
_FEW = 200  # items that are read while writers wait: some hundredths of a second


class CatalogReader:
    """Reads a catalogue until all records are those of one version of its tree.

    Records are read while others write. Records that change in between are read again; when these
    are few, writers wait a moment while the rest is read.
    """

    def __init__(self, store: WritableStore) -> None:
        self._store = store
        self._read: set[str] = set()
        self._unreadable: set[str] = set()
        self._tree: SemanticTree | None = None
        self.waiting: list[str] = []
        """Staged items, which have no place in the tree yet, or are to get a new one."""

    @property
    def tree(self) -> SemanticTree:
        """The version; known once all of `items` was read."""
        assert self._tree is not None, "it is not read yet"
        return self._tree

    @property
    def damaged(self) -> int:
        """How many items of the tree have no record that can be read."""
        return sum(item_id in self.tree for item_id in self._unreadable)

    async def items(self) -> AsyncIterator[Sequence[Item]]:
        """The items of the version, and the staged ones, in batches.

        Of an item that comes twice, the later one counts. An item that is neither in `tree` nor in
        `waiting` at the end was removed meanwhile.

        Raises CorruptSnapshot, and StoreUnavailable when others write so much that no version can
        be read as a whole.
        """
        tree = await self._store.load()
        async for batch in self._records(tree.item_ids()):
            yield batch
        async for batch in self._staged():
            yield batch
        for _ in range(_ROUNDS):
            newer = await self._store.load()
            changed = await self._changed(tree, newer)
            if len(changed) > _FEW:
                async for batch in self._records(iter(changed)):
                    yield batch
                tree = newer
                continue
            late, tree, whole = await self._undisturbed(tree)
            for batch in late:
                yield batch
            if whole:
                self._tree = tree
                return
        raise StoreUnavailable(
            "too much is written at once to read one version of the catalogue: try again later"
        )

    async def _undisturbed(
        self, tree: SemanticTree
    ) -> tuple[list[Sequence[Item]], SemanticTree, bool]:
        """What has changed since `tree`, the newest version, and whether no commit came between.

        Nothing is yielded while writers wait, because the caller may be slow.
        """
        async with self._store.commit_lock():
            newest = await self._store.load()
            changed = await self._changed(tree, newest)
            if len(changed) > 2 * _FEW:
                return [], tree, False
            late = [batch async for batch in self._records(iter(changed))]
            late += [batch async for batch in self._staged()]
            after = await self._store.load()
        return late, newest, after.version == newest.version

    async def _changed(self, tree: SemanticTree, newer: SemanticTree) -> Collection[str]:
        """The items that were written or removed after `tree`; all where that is not known."""
        if newer.version == tree.version:
            return ()
        try:
            edits = await self._store.changes(since=tree.version)
        except StaleVersion:  # a rebuilt tree has taken its place
            return list(newer.item_ids())
        return {edit.id for edit in edits if isinstance(edit, PutItem | DropItem)}

    async def _staged(self) -> AsyncIterator[Sequence[Item]]:
        self.waiting = list({item_id async for ids in self._store.staged_ids() for item_id in ids})
        fresh = (item_id for item_id in self.waiting if item_id not in self._read)
        async for batch in self._records(fresh):
            yield batch

    async def _records(self, ids: Iterator[str]) -> AsyncIterator[Sequence[Item]]:
        while batch := list(islice(ids, _AT_ONCE)):
            found = await self._store.items(batch)
            self._read.update(batch)
            self._unreadable.difference_update(found)
            self._unreadable.update(set(batch) - found.keys())
            if found:
                yield list(found.values())
