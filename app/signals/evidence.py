"""`Evidence`: what users' events say about the items of one tree, for one reader."""

from dataclasses import dataclass

import numpy as np

from tree.rows import IntArray
from tree.vectors import FloatArray


@dataclass(frozen=True, slots=True)
class Evidence:
    """`counts` is float32[at least tree.size], the users who had each row's item.

    `rows`, ascending, are what goes together with the reader's history; `scores` what that adds
    to the score of each. `prior` is how many times as much the counts weigh as they do for a reader
    whose history is known.
    """

    counts: FloatArray
    rows: IntArray
    scores: FloatArray
    prior: float = 1.0

    def add_to(self, scores: FloatArray, rows: IntArray | slice) -> None:
        """Add to the scores of some rows, in place; a slice stands for all rows."""
        if not len(self.rows):
            return
        if isinstance(rows, slice):
            scores[self.rows] += self.scores
            return
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        scores += np.where(self.rows[place] == rows, self.scores[place], np.float32(0))

    def weighed(self, *, history: float, prior: float) -> "Evidence":
        """The same with so much of the weight on the history, and that prior."""
        return Evidence(self.counts, self.rows, self.scores * np.float32(history), prior)
