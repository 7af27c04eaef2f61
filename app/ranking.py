"""The embedded ranker: what a reader needs as directions, how near items are, how unlike.

It serves every stage without a model, and any stage whose model fails.
"""

import asyncio
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tree.rows import IntArray
from tree.search import Similarity, rows_below, search
from tree.snapshot import Node, SemanticTree
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix, cosines


@dataclass(frozen=True, slots=True)
class Interest:
    """One line of a reader's interests.

    `said` when the name is the reader's own words (a wish, a title from elsewhere) and not a
    path of the tree.
    """

    name: str
    weight: float
    said: Literal["wish", "title"] | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """What is asked for: interests, and the weighted directions that stand for them.

    `directions` is int8[n, dimensions]; `weights` sums to 1; `owner[i]` is the interest of
    direction i. A reader of whom nothing is known has no directions.
    """

    interests: tuple[Interest, ...]
    directions: Int8Matrix
    weights: FloatArray
    owner: npt.NDArray[np.int64]
    sources: tuple[str, ...]  # what each direction came from: an item's id, or words
    dislikes: tuple[str, ...] = ()  # normalised; what must not be offered

    @property
    def is_empty(self) -> bool:
        return not len(self.directions)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows best first with their scores, and what had to be looked at to find them."""

    rows: IntArray
    scores: FloatArray
    leaves: list[Node]  # reached by the search; empty after a full scan
    scored_items: int
    scored_nodes: int
    levels: int


@dataclass(frozen=True, slots=True)
class EmbeddedRanker:
    """Scores items by similarity and popularity.

    Score = blend of the cosines to the need's directions (see `tree.search.blend`)
    + `popularity_weight` · ln(1 + popularity). With no need at all, popularity alone, then order
    of the catalogue.
    """

    sharpness: float
    popularity_weight: float
    exact_scan_items: int
    beam_leaves: int
    beam_breadth: int

    async def rank(
        self,
        tree: SemanticTree,
        need: Need,
        allowed: npt.NDArray[np.bool_],
        wanted: int,
    ) -> Ranking:
        """The best `wanted` allowed rows, best first; fewer only when fewer were found.

        Small catalogues are scanned; in larger ones the leaves of a wide beam are, and more of
        them while these hold too few allowed rows. `allowed` is bool[tree.size].
        """
        if need.is_empty or tree.size <= self.exact_scan_items:
            rows, best = await asyncio.to_thread(self._scan, tree, need, allowed, wanted)
            return Ranking(rows, best, [], tree.size, 0, 0)
        leaves = self.beam_leaves
        scorer = self.similarity(need)
        while True:
            found = await search(tree, scorer, leaves=leaves, breadth=self.beam_breadth)
            reached = rows_below(found.leaves)
            inside = reached[allowed[reached]]
            if len(inside) >= wanted or len(found.leaves) < leaves:
                break
            leaves *= 4
        order, best = _best(self._scores(tree, need, inside), None, wanted)
        return Ranking(inside[order], best, found.leaves, len(inside), found.offered, found.levels)

    def similarity(self, need: Need) -> Similarity:
        """The need as a scorer of nodes and rows."""
        return Similarity(need.directions, need.weights, need.owner, self.sharpness)

    def _scan(
        self, tree: SemanticTree, need: Need, allowed: npt.NDArray[np.bool_], wanted: int
    ) -> tuple[IntArray, FloatArray]:
        return _best(self._scores(tree, need, None), allowed, wanted)

    def _scores(self, tree: SemanticTree, need: Need, rows: IntArray | None) -> FloatArray:
        popularity = tree.rows.popularity[: tree.size]
        if rows is not None:
            popularity = popularity[rows]
        if need.is_empty:
            scores = np.zeros(len(popularity), np.float32)
        else:
            scores = self.similarity(need).of_rows(tree, rows)
        if self.popularity_weight and popularity.any():
            scores += np.float32(self.popularity_weight) * np.log1p(popularity)
        return scores


def strongest(
    tree: SemanticTree, need: Need, rows: IntArray, sharpness: float
) -> npt.NDArray[np.int64]:
    """For every row, the direction of the need that adds most to its score: int64[rows]."""
    near = cosines(tree.rows.vectors[rows], tree.rows.scale[rows], need.directions)
    return (near + np.log(need.weights) / sharpness).argmax(axis=1)


def diversified(
    tree: SemanticTree, rows: IntArray, scores: FloatArray, diversity: float, wanted: int
) -> list[int]:
    """Positions in `rows`, in the order of maximal marginal relevance; at most `wanted`.

    MMR (Carbonell & Goldstein 1998): next comes the item with the best
    (1 - diversity) · relevance - diversity · similarity to what was chosen before. `rows` are
    given best first; relevance is the score, scaled to 0 … 1 over them.
    """
    wanted = min(wanted, len(rows))
    if not diversity or wanted <= 1:
        return list(range(wanted))
    span = float(scores.max() - scores.min()) or 1.0
    gain = (1 - diversity) * (scores - scores.min()) / span
    vectors = tree.rows.vectors[rows]
    alike = diversity * cosines(vectors, tree.rows.scale[rows], vectors)
    chosen = [0]
    closest = alike[0]
    while len(chosen) < wanted:
        worth = gain - closest
        worth[chosen] = -np.inf
        pick = int(worth.argmax())
        chosen.append(pick)
        closest = np.maximum(closest, alike[pick])
    return chosen


def no_need() -> Need:
    """The need of a reader of whom nothing is known."""
    return Need(
        (),
        np.zeros((0, DIMENSIONS), np.int8),
        np.zeros(0, np.float32),
        np.zeros(0, np.int64),
        (),
    )


def _best(
    scores: FloatArray, allowed: npt.NDArray[np.bool_] | None, wanted: int
) -> tuple[IntArray, FloatArray]:
    """Positions of the best allowed scores and the scores; of equals, the first comes first."""
    at = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
    kept = scores[at]
    if len(kept) > wanted:
        edge = np.partition(kept, len(kept) - wanted)[len(kept) - wanted]
        near = np.flatnonzero(kept >= edge)
        at, kept = at[near], kept[near]
    order = np.argsort(-kept, kind="stable")[:wanted]
    return at[order].astype(np.int32), kept[order]
