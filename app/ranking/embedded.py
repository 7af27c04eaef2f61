"""The embedded ranker: what a reader needs as directions, how near items are, how unlike.

It serves every stage without a model, and any stage whose model fails.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.signals import Evidence
from tree.node import Node
from tree.rows import IntArray
from tree.scan import scan, scores_of
from tree.search import Similarity, rows_below, search
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix, cosines, inverse_norms

_SCANS_AT_ONCE = 16


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
    direction i. A reader of whom nothing is known has no directions. `evidence` is what others
    did who had what this reader had; None where there are no events.
    """

    interests: tuple[Interest, ...]
    directions: Int8Matrix
    weights: FloatArray
    owner: npt.NDArray[np.int64]
    sources: tuple[str, ...]  # what each direction came from: an item's id, or words
    dislikes: tuple[str, ...] = ()  # normalised; what must not be offered
    evidence: Evidence | None = None

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


class SharedScans:
    """Full scans that wait for a core at the same time are done in one pass over the vectors."""

    def __init__(self) -> None:
        self._waiting: list[tuple[SemanticTree, Similarity, asyncio.Future[FloatArray]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def scores(self, tree: SemanticTree, scorer: Similarity) -> FloatArray:
        """float32[tree.size]: the score of every row."""
        done: asyncio.Future[FloatArray] = asyncio.get_running_loop().create_future()
        self._waiting.append((tree, scorer, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        while self._waiting:
            tree = self._waiting[0][0]
            same = [at for at, (of, _, _) in enumerate(self._waiting) if of is tree]
            batch = [self._waiting.pop(at) for at in reversed(same[:_SCANS_AT_ONCE])]
            try:
                scores = await asyncio.to_thread(scan, tree, [scorer for _, scorer, _ in batch])
            except Exception as error:  # noqa: BLE001 - belongs to those who wait
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for (_, _, done), row in zip(batch, scores, strict=True):
                    if not done.done():
                        done.set_result(row)


@dataclass(frozen=True, slots=True)
class EmbeddedRanker:
    """Scores items by similarity, popularity and co-occurrence.

    Score = blend of the cosines to the need's directions (see `tree.search.blend`)
    + `popularity_weight` · ln(1 + popularity + users who had it) + co-occurrence with the history
    (see `app.signals.Signals`). With no need at all, popularity alone, then order of the
    catalogue; with no events, similarity and stated popularity. The users who had it count
    `Evidence.prior` times.
    """

    sharpness: float
    popularity_weight: float
    exact_scan_items: int
    beam_leaves: int
    beam_breadth: int
    scans: SharedScans = field(default_factory=SharedScans)

    async def rank(
        self,
        tree: SemanticTree,
        need: Need,
        allowed: npt.NDArray[np.bool_],
        wanted: int,
    ) -> Ranking:
        """The best `wanted` allowed rows, best first; fewer only when fewer were found.

        Small catalogues are scanned; in larger ones the leaves of a wide beam are, and more of
        them while these hold too few allowed rows, and what goes together with the history,
        wherever it lives. `allowed` is bool[tree.size].
        """
        if need.is_empty or tree.size <= self.exact_scan_items:
            scores = await self._all_scores(tree, need)
            rows, best = _best(scores, allowed, wanted)
            return Ranking(rows, best, [], tree.size, 0, 0)
        leaves, breadth = self.beam_leaves, self.beam_breadth
        scorer = self.similarity(need)
        while True:
            found = await search(tree, scorer, leaves=leaves, breadth=breadth)
            reached = rows_below(found.leaves)
            inside = reached[allowed[reached]]
            if len(inside) >= wanted or len(reached) == len(tree):
                break
            leaves, breadth = leaves * 4, breadth * 4
        if need.evidence is not None:
            known = need.evidence.rows
            inside = np.union1d(inside, known[allowed[known]])
        scores = self._with_prior(tree, need, scores_of(tree, scorer, inside), inside)
        order, best = _best(scores, None, wanted)
        return Ranking(inside[order], best, found.leaves, len(inside), found.offered, found.levels)

    def similarity(self, need: Need) -> Similarity:
        """The need as a scorer of nodes and rows."""
        return Similarity(need.directions, need.weights, need.owner, self.sharpness)

    def near_nodes(self, tree: SemanticTree, need: Need, nodes: Sequence[Node]) -> FloatArray:
        """float32[nodes, interests]: as near as the nearer of a node's facets; 0 without a need."""
        if need.is_empty:
            return np.zeros((len(nodes), 1), np.float32)
        facets = np.concatenate([tree.facets_of(node) for node in nodes])
        marks = cosines(facets, inverse_norms(facets), need.directions) * np.float32(self.sharpness)
        own = need.owner[:, None] == np.arange(int(need.owner.max()) + 1)
        shares = need.weights[:, None] * own
        with np.errstate(divide="ignore"):
            near = np.log(np.exp(marks) @ shares) / np.float32(self.sharpness)
        return near.reshape(len(nodes), -1, near.shape[1]).max(axis=1)

    def scores(self, tree: SemanticTree, need: Need, rows: IntArray) -> FloatArray:
        """float32[rows]: the ranker's own scores of some rows, in their order."""
        if need.is_empty or not len(rows):
            return self._with_prior(tree, need, np.zeros(len(rows), np.float32), rows)
        return self._with_prior(tree, need, scores_of(tree, self.similarity(need), rows), rows)

    async def _all_scores(self, tree: SemanticTree, need: Need) -> FloatArray:
        if need.is_empty:
            return self._with_prior(tree, need, np.zeros(tree.size, np.float32), slice(None))
        scores = await self.scans.scores(tree, self.similarity(need))
        return self._with_prior(tree, need, scores, slice(None))

    def _with_prior(
        self, tree: SemanticTree, need: Need, scores: FloatArray, rows: IntArray | slice
    ) -> FloatArray:
        stated, evidence = tree.rows.popularity[: tree.size][rows], need.evidence
        weight = np.float32(self.popularity_weight)
        if evidence is None:
            if weight and stated.any():
                scores += weight * np.log1p(stated)
            return scores
        counts = evidence.counts[: tree.size][rows]
        if weight:
            scores += weight * np.log1p(stated + counts)
            if evidence.prior != 1:
                scores += weight * np.float32(evidence.prior - 1) * np.log1p(counts)
        evidence.add_to(scores, rows)
        return scores


def strongest(
    tree: SemanticTree, need: Need, rows: IntArray, sharpness: float
) -> npt.NDArray[np.int64]:
    """For every row, the direction of the need that adds most to its score: int64[rows]."""
    near = cosines(tree.rows.vectors[rows], tree.rows.scale[rows], need.directions)
    return (near + np.log(need.weights) / sharpness).argmax(axis=1)


def diversified(
    tree: SemanticTree,
    rows: IntArray,
    scores: FloatArray,
    diversity: float,
    limit: int,
    *,
    spare: int = 0,
) -> list[int]:
    """Positions in `rows` for an answer of `limit` items, and `spare` more; fewer for fewer rows.

    MMR (Carbonell & Goldstein 1998): next comes the item with the best
    (1 - λ) · relevance - λ · similarity to what was chosen before. `rows` are given best first;
    relevance is the score, scaled to 0 … 1 over them. λ grows with the place, from 0 for the first
    to `diversity` in the middle of the answer and twice that (at most 1) at its end: what is most
    relevant stays on top, where it is looked at most, and the rest of the list spreads.
    """
    wanted = min(limit + spare, len(rows))
    if not diversity or wanted <= 1:
        return list(range(wanted))
    span = float(scores.max() - scores.min()) or 1.0
    relevance = (scores - scores.min()) / span
    vectors = tree.rows.vectors[rows]
    alike = cosines(vectors, tree.rows.scale[rows], vectors)
    chosen = [0]
    closest = alike[0]
    while len(chosen) < wanted:
        share = min(1.0, diversity * 2 * len(chosen) / limit)
        worth = (1 - share) * relevance - share * closest
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
    if allowed is not None:
        scores = np.where(allowed, scores, np.float32(-np.inf))
    edge = -np.inf
    if len(scores) > wanted:
        edge = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
    at = np.flatnonzero((scores >= edge) & (scores > -np.inf))
    order = at[np.argsort(-scores[at], kind="stable")[:wanted]]
    return order.astype(np.int32), scores[order]
