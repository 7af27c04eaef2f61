"""`Rebuilder`: a tree grown anew beside the one in use, and put in its place in one step."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from app.curate.building import OpenEngine, build, labels_of
from app.jobs import Report
from tree import place
from tree.edits import DropItem, Edit, PutItem, Relabel
from tree.embedders import EmbedderCache
from tree.errors import StaleVersion
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

_READ = 1_000
_ATTEMPTS = 20


class Rebuilder:
    """Grows a private draft; writers never wait for it.

    What was written meanwhile is read from the log and put into the draft before it is
    published; if somebody commits in between, that is done again for the rest.
    """

    def __init__(self, store: TreeStore, embedders: EmbedderCache, engine: OpenEngine) -> None:
        self._store = store
        self._embedders = embedders
        self._engine = engine

    async def full(self, report: Report, *, publish: bool = True) -> SemanticTree:
        """A new vector space and a new tree over all items, the staged ones included."""
        for _ in range(_ATTEMPTS):
            base = await self._store.load()
            catalogue = await self._catalogue(base)
            draft = await build(catalogue, base.settings, report, engine=self._engine)
            draft = _with_locked_labels(draft, base)
            if not publish:
                return draft
            report.phase("publishing", len(draft))
            try:
                return await self._publish(draft, base.version)
            except StaleVersion:  # the log no longer reaches back to the base: start over
                continue
        raise StaleVersion(f"{_ATTEMPTS} rebuilds were overtaken by writers: try again later")

    async def subtree(self, top: int, report: Report, *, publish: bool = True) -> SemanticTree:
        """The nodes below `top` grown anew, in the same vector space."""
        report.phase("clustering", 1, "subtrees")
        for _ in range(_ATTEMPTS):
            tree = await self._store.load()
            records = await self._store.items(list(tree.item_ids(top)))
            edits = await asyncio.to_thread(place.regrow, tree, top, records)
            if not publish:
                return tree.at_version(tree.version).apply(edits)
            try:
                after = await self._store.commit(edits, base=tree.version)
            except StaleVersion:
                continue
            report.advance(1)
            return after
        raise StaleVersion(f"lost {_ATTEMPTS} races for a commit: too many writers at once")

    async def labels(self, report: Report, *, publish: bool = True) -> SemanticTree:
        """The same tree with its labels made anew; locked ones stay."""
        tree = await self._store.load()
        catalogue = await self._catalogue(tree, staged=False)
        specs = await labels_of(tree, catalogue, report, engine=self._engine)
        edits = [Relabel(spec.id, spec.label, spec.signpost) for spec in specs if not spec.locked]
        if not publish:
            return tree.at_version(tree.version).apply(edits)
        report.phase("publishing", len(edits), "nodes")
        while edits:
            some = edits[:_READ]
            now = await self._store.load()
            try:
                tree = await self._store.commit(
                    [edit for edit in some if now.has_node(edit.node)], base=now.version
                )
            except StaleVersion:
                continue
            del edits[: len(some)]
            report.advance(len(some))
        return tree

    async def _catalogue(self, tree: SemanticTree, *, staged: bool = True) -> "_Stored":
        """Every item with a record, in the order of the leaves, then what waits for a place."""
        ids = await asyncio.to_thread(lambda: list(tree.item_ids()))
        if staged:
            waiting = {item async for batch in self._store.staged() for item in batch}
            ids += sorted(item for item in waiting if item not in tree)
        return _Stored(self._store, ids)

    async def _publish(self, draft: SemanticTree, base: int) -> SemanticTree:
        """Raises StaleVersion only when the log does not tell what has changed since `base`."""
        while True:
            now = await self._store.load()
            if now.version != base:
                draft = await self._rebased(draft, await self._store.changes(since=base))
                base = now.version
            try:
                return await self._store.replace(draft, base=base)
            except StaleVersion:
                continue

    async def _rebased(self, draft: SemanticTree, edits: Iterable[Edit]) -> SemanticTree:
        """The draft with what the edits did to items: drop what left, place what arrived."""
        last: dict[str, Edit] = {
            edit.id: edit for edit in edits if isinstance(edit, PutItem | DropItem)
        }
        arrived = [item for item, edit in last.items() if isinstance(edit, PutItem)]
        left = [item for item, edit in last.items() if isinstance(edit, DropItem)]
        embedder = self._embedders.of(draft.space)
        for start in range(0, len(arrived), _READ):
            items = list((await self._store.items(arrived[start : start + _READ])).values())
            vectors = await asyncio.to_thread(embedder.encode, [item.text for item in items])
            draft = draft.apply(place.plan(draft, items, vectors))
        gone = [item for item in left if item in draft]
        return draft.apply(place.plan(draft, drops=gone)) if gone else draft


class _Stored:
    """See Source: items of a store by their ids, without those that are deleted meanwhile."""

    def __init__(self, store: TreeStore, ids: Sequence[str]) -> None:
        self._store = store
        self._ids = ids

    @property
    def size(self) -> int:
        """See Source."""
        return len(self._ids)

    async def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
        """See Source."""
        ids = self._ids[::step]
        for start in range(0, len(ids), _READ):
            yield await self._store.records(ids[start : start + _READ])


def _with_locked_labels(draft: SemanticTree, base: SemanticTree) -> SemanticTree:
    """The draft with the labels that an administrator locked, on the nodes of the same key."""
    locked = {node.key: node for node in base.walk() if node.locked and node.key}
    edits = [
        Relabel(node.id, locked[node.key].label, locked[node.key].signpost, locked=True)
        for node in (draft.walk() if locked else ())
        if node.key in locked
    ]
    return draft.apply(edits) if edits else draft
