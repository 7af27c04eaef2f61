"""`Placement`: the leaves for a batch of items, kept from one attempt to the next."""

from collections.abc import Sequence

import numpy as np

from app.curate.writes.vector_cache import ItemVectorCache
from app.embedders import Embedder
from tree import place
from tree.edits import Edit
from tree.item import Item
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix


class Placement:
    """Plans a batch of items for version after version, until its commit wins.

    A second attempt takes a fraction of the first: a vector depends on the space alone, and a leaf
    that has only gained items since stays the right one.
    """

    def __init__(self, vectors: ItemVectorCache) -> None:
        self.vectors = vectors
        self._leaves: dict[str, int] = {}
        self._tree: SemanticTree | None = None  # that the leaves were found in

    def plan(
        self, tree: SemanticTree, embedder: Embedder, items: Sequence[Item], drops: Sequence[str]
    ) -> list[Edit]:
        """See `place.plan`."""
        vectors = self.find_leaves(tree, embedder, items)
        leaves = [self._leaves[item.id] for item in items]
        return place.plan(tree, items, vectors, drops, leaves=leaves)

    def find_leaves(
        self, tree: SemanticTree, embedder: Embedder, items: Sequence[Item]
    ) -> Int8Matrix:
        """The vectors of `items`, after their leaves were found: the first half of `plan`."""
        vectors = self.vectors.encode(embedder, items)
        self._forget_changed_leaves(tree)
        lost = [at for at, item in enumerate(items) if item.id not in self._leaves]
        keys = [items[at].key for at in lost]
        found = place.route(tree, keys, vectors[lost])
        self._leaves.update((items[at].id, leaf) for at, leaf in zip(lost, found, strict=True))
        self._tree = tree
        return vectors

    def _forget_changed_leaves(self, tree: SemanticTree) -> None:
        """Forget all leaves where `tree` was built anew since."""
        before = self._tree
        if before is None or before.rows is not tree.rows:
            self._leaves = {}
            return
        same = {
            leaf
            for leaf in set(self._leaves.values())
            if tree.has_node(leaf) and _holds_all(tree.node(leaf), before.node(leaf))
        }
        self._leaves = {item: leaf for item, leaf in self._leaves.items() if leaf in same}


def _holds_all(now: Node, before: Node) -> bool:
    """Whether a node is a leaf still, and has lost no item since."""
    known = len(before.rows)
    return now is before or (
        now.is_leaf and known > 0 and np.array_equal(now.rows[:known], before.rows)
    )
