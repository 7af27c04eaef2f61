"""`EventScores`: what the events of all users add to the scores of one user."""

from dataclasses import dataclass

import numpy as np

from tree.rows import IntArray
from tree.vectors import FloatArray


@dataclass(frozen=True, slots=True)
class EventScores:
    """`counts` is float32[at least tree.size], the users who count for the popularity of each row.

    `rows`, ascending, go together with the user's history; `scores` is what that adds to the score
    of each. The weight of the counts is multiplied by `prior`, which is 1 where the history is
    known. `rising` is like `counts`, of those who make an item rise now.
    """

    counts: FloatArray
    rows: IntArray
    scores: FloatArray
    prior: float = 1.0
    rising: FloatArray | None = None

    def add_to(self, scores: FloatArray, rows: IntArray | slice) -> None:
        """Add to the scores of some rows, in place; a slice stands for all rows."""
        if not len(self.rows):
            return
        if isinstance(rows, slice):
            scores[self.rows] += self.scores
            return
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        scores += np.where(self.rows[place] == rows, self.scores[place], np.float32(0))

    def weighed(self, *, history: float, prior: float) -> "EventScores":
        """The same with so much of the weight on the history, and that prior."""
        scores = self.scores * np.float32(history)
        return EventScores(self.counts, self.rows, scores, prior, self.rising)

    def most_rising(self, most: int) -> IntArray:
        """Rows of items that rise now, best first, at most so many."""
        if self.rising is None:
            return np.zeros(0, np.int32)
        rows = np.flatnonzero(self.rising)
        if len(rows) > most:
            rows = rows[np.argpartition(-self.rising[rows], most)[:most]]
        order = np.argsort(-self.rising[rows], kind="stable")
        return rows[order].astype(np.int32)
