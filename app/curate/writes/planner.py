"""`Planner`: edits for items, made without holding up the event loop."""

import asyncio
from collections.abc import Sequence
from functools import partial

from app.curate.writes.item_encoder import ItemEncoder
from app.curate.writes.placement import Placement
from app.curate.writes.sizes import SMALL_ITEMS, have_long_texts
from app.embedders import EmbedderCache
from tree.edits import Edit
from tree.item import Item
from tree.snapshot import SemanticTree


class Planner:
    """Plans placements with the embedder of each tree; large ones in a thread."""

    def __init__(self, embedders: EmbedderCache, encoder: ItemEncoder) -> None:
        self._embedders = embedders
        self._encoder = encoder

    async def plan(
        self,
        tree: SemanticTree,
        placement: Placement,
        items: Sequence[Item],
        drops: Sequence[str] = (),
    ) -> list[Edit]:
        """See `place.plan`. Raises EmbedderUnavailable."""
        await self._encoder.complete(tree, placement.vectors, items)
        work = partial(placement.plan, tree, self._embedders.of(tree.space), items, drops)
        if len(items) + len(drops) <= SMALL_ITEMS and not have_long_texts(items):
            return work()
        return await asyncio.to_thread(work)

    async def find_leaves(
        self, tree: SemanticTree, placement: Placement, items: Sequence[Item]
    ) -> None:
        """The first half of `plan`, which the second half need not do again."""
        await self._encoder.complete(tree, placement.vectors, items)
        embedder = self._embedders.of(tree.space)
        await asyncio.to_thread(placement.find_leaves, tree, embedder, items)
