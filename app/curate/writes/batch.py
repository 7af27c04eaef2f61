"""`BatchCommits`: many changes of items in one commit."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from msgspec import structs

from app.curate.commits import Decision, commit_until_won
from app.curate.writes.item_encoder import ItemEncoder
from app.curate.writes.kept_lines import with_kept_lines
from app.curate.writes.pending_labels import PendingLabels, fitting
from app.curate.writes.placement import Placement
from app.curate.writes.planner import Planner
from app.curate.writes.vector_cache import ItemVectorCache
from tree.edits import Edit, PutItem
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.protocol import NEVER_STAGED, WritableStore

LEASE_ITEMS = 100  # a larger plan takes longer than other writers leave between two commits

Committed = Callable[[SemanticTree, Sequence[Edit]], None]
"""Called with each new version and the edits that led to it."""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """Items to put, ids to delete, ids of staged items to place; no id is in two of them."""

    puts: Mapping[str, Item] = field(default_factory=dict)
    deletes: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    vectors: ItemVectorCache = field(default_factory=ItemVectorCache)

    @property
    def ids(self) -> Set[str]:
        return self.puts.keys() | self.deletes | self.places


class BatchCommits:
    """Commits changes of items, together with the labels that are pending."""

    def __init__(
        self,
        store: WritableStore,
        encoder: ItemEncoder,
        planner: Planner,
        labels: PendingLabels,
        committed: Committed,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._planner = planner
        self._labels = labels
        self._committed = committed

    async def commit(self, changes: Sequence[ItemChange]) -> dict[str, bool]:
        """Commit all changes at once.

        True for ids that were created, deleted or placed; False for items that were replaced, and
        for ids that were not there to delete. Ids that are no longer staged are left out.
        """
        puts = {item.id: item for change in changes for item in change.puts.values()}
        deletes = frozenset[str]().union(*(change.deletes for change in changes))
        places = frozenset[str]().union(*(change.places for change in changes))
        vectors = ItemVectorCache.joined([change.vectors for change in changes])
        change, placement = ItemChange(puts, deletes, places, vectors), Placement(vectors)
        if len(puts) + len(places) <= LEASE_ITEMS:
            return await self._commit(change, placement)
        tree = await self._store.load()
        items = await with_kept_lines(self._store, tree, list(puts.values()))
        await self._planner.find_leaves(tree, placement, items)
        async with self._store.bulk_write_lease():
            return await self._commit(change, placement)

    async def _commit(self, change: ItemChange, placement: Placement) -> dict[str, bool]:
        labels = self._labels.take()

        async def decide(tree: SemanticTree) -> Decision[dict[str, bool]]:
            staging_seq = await self._store.staging_seq() if change.places else NEVER_STAGED
            staged = await self._store.staged_items(change.places)
            placed = self._encoder.ready(tree, change.vectors, staged)
            there = await self._there(tree, [*change.puts, *change.deletes])
            gone = [item for item in change.deletes if there[item]]
            puts = await with_kept_lines(self._store, tree, list(change.puts.values()))
            items = [*puts, *placed.values()]
            edits: list[Edit] = [
                structs.replace(edit, record=b"")  # it is in the store already, perhaps newer
                if isinstance(edit, PutItem) and edit.id in placed
                else edit
                for edit in await self._planner.plan(tree, placement, items, gone)
            ]
            edits += fitting(tree, labels, edits)
            done = {item: there[item] == (item in change.deletes) for item in there}
            return Decision(edits, done | dict.fromkeys(placed, True), staging_seq)

        tree, decision = await commit_until_won(self._store, decide)
        if decision.edits and decision.result:
            self._committed(tree, decision.edits)
        return decision.result

    async def _there(self, tree: SemanticTree, ids: Sequence[str]) -> dict[str, bool]:
        """Whether each of some items exists, with or without a place in the tree."""
        unknown = [item for item, row in zip(ids, tree.rows_of(ids), strict=True) if row is None]
        lacking = set(unknown) - await self._store.existing(unknown)
        return {item: item not in lacking for item in ids}
