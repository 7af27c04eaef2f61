"""`Placement`: where a batch goes, with what a lost race leaves good."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tree import place
from tree.edits import Edit
from tree.embedders import Embedder
from tree.item import Item
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, Int8Matrix


@dataclass(slots=True)
class Vectors:
    """Vectors of items by their text, all of one space."""

    fingerprint: str = ""
    known: dict[str, Int8Matrix] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence["Vectors"]) -> "Vectors":
        """Those of one space among `parts`; the others are read again when they are needed."""
        fingerprint = next((part.fingerprint for part in parts if part.known), "")
        alike = [part.known for part in parts if part.fingerprint == fingerprint]
        return cls(fingerprint, {key: row for known in alike for key, row in known.items()})

    def learn(self, fingerprint: str, items: Sequence[Item], rows: Int8Matrix) -> None:
        """The `rows` of some items, in the space of that fingerprint."""
        if self.fingerprint != fingerprint:
            self.fingerprint, self.known = fingerprint, {}
        self.known.update(zip((item.text for item in items), rows, strict=True))

    def unknown(self, fingerprint: str, items: Sequence[Item]) -> list[Item]:
        """Those of the items that have no vector in the space of that fingerprint yet.

        Of those with one text, one.
        """
        known = self.known if fingerprint == self.fingerprint else {}
        fresh = {text: item for item in items if (text := item.text) not in known}
        return list(fresh.values())

    def read(self, embedder: Embedder, items: Sequence[Item]) -> Int8Matrix:
        """int8[items, DIMENSIONS], of which only those not known are embedded now."""
        space = embedder.space.fingerprint
        if fresh := self.unknown(space, items):
            self.learn(space, fresh, embedder.encode([item.text for item in fresh]))
        if not items:
            return np.zeros((0, DIMENSIONS), np.int8)
        return np.stack([self.known[item.text] for item in items])


class Placement:
    """The leaves of a batch of items, version after version until a commit wins.

    A vector hangs on the space only, and a leaf that has at most been added to since stays the
    right one: so the second attempt takes a fraction of the first.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self._leaves: dict[str, int] = {}
        self._tree: SemanticTree | None = None  # that the leaves were found in

    def plan(
        self, tree: SemanticTree, embedder: Embedder, items: Sequence[Item], drops: Sequence[str]
    ) -> list[Edit]:
        """See `place.plan`."""
        vectors = self.find(tree, embedder, items)
        leaves = [self._leaves[item.id] for item in items]
        return place.plan(tree, items, vectors, drops, leaves=leaves)

    def find(self, tree: SemanticTree, embedder: Embedder, items: Sequence[Item]) -> Int8Matrix:
        """The vectors of `items`, once it is known where they go: the first half of `plan`."""
        vectors = self.vectors.read(embedder, items)
        self._keep(tree)
        lost = [at for at, item in enumerate(items) if item.id not in self._leaves]
        keys = [items[at].key for at in lost]
        found = place.route(tree, keys, vectors[lost])
        self._leaves.update((items[at].id, leaf) for at, leaf in zip(lost, found, strict=True))
        self._tree = tree
        return vectors

    def _keep(self, tree: SemanticTree) -> None:
        """Forget the leaves that are others in `tree`; all of them when it does not descend."""
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
    """Whether a leaf is one still, and has lost nothing since."""
    known = len(before.rows)
    return now is before or (
        now.is_leaf and known > 0 and np.array_equal(now.rows[:known], before.rows)
    )
