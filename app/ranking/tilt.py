"""`Tilt`: how the task of an answer changes the scores of items."""

from dataclasses import dataclass, field

import numpy as np

from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray


def _none() -> IntArray:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Tilt:
    """Changes of scores; without any, the scores stay as they are.

    An item in one of the `leaves` (ids of nodes) loses `beside`. `rising` is the weight of
    ln(1 + the users who make an item rise now).
    """

    beside: float = 0.0
    leaves: IntArray = field(default_factory=_none)
    rising: float = 0.0

    def apply(self, tree: SemanticTree, scores: FloatArray, rows: IntArray | slice) -> None:
        """Change the scores of some rows, in place; a slice stands for all rows."""
        if self.beside and len(self.leaves):
            leaf = tree.rows.leaf[: tree.size][rows]
            scores[np.isin(leaf, self.leaves)] -= np.float32(self.beside)
