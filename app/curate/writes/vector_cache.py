"""`ItemVectorCache`: the vectors that a write has so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from app.embedders import Embedder
from tree.item import Item
from tree.passage import Passage
from tree.vectors import Int8Matrix


@dataclass(slots=True)
class ItemVectorCache:
    """Vectors of items by what an embedder reads of them, all of one vector space."""

    fingerprint: str = ""
    known: dict[Passage, Int8Matrix] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence["ItemVectorCache"]) -> "ItemVectorCache":
        """The vectors of the first space among `parts`; those of other spaces are left out."""
        fingerprint = next((part.fingerprint for part in parts if part.known), "")
        alike = [part.known for part in parts if part.fingerprint == fingerprint]
        return cls(fingerprint, {key: row for known in alike for key, row in known.items()})

    def add(self, fingerprint: str, items: Sequence[Item], rows: Int8Matrix) -> None:
        """Remember the `rows` of some items. Those of another space are forgotten."""
        if self.fingerprint != fingerprint:
            self.fingerprint, self.known = fingerprint, {}
        self.known.update(zip((item.passage for item in items), rows, strict=True))

    def missing(self, fingerprint: str, items: Sequence[Item]) -> list[Item]:
        """The items without a vector in the space of that fingerprint; one of those that
        read alike."""
        known = self.known if fingerprint == self.fingerprint else {}
        fresh = {passage: item for item in items if (passage := item.passage) not in known}
        return list(fresh.values())

    def encode(self, embedder: Embedder, items: Sequence[Item]) -> Int8Matrix:
        """int8[items, dimensions]; only what is missing is given to the embedder."""
        space = embedder.space.fingerprint
        if fresh := self.missing(space, items):
            self.add(space, fresh, embedder.encode([item.passage for item in fresh]))
        if not items:
            return np.zeros((0, embedder.space.dimensions), np.int8)
        return np.stack([self.known[item.passage] for item in items])
