"""The embedded ranker: scores of items and branches by vectors.

It serves every stage without a model, and any stage whose model fails.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from app.ranking import known_items
from app.ranking.need import Need
from app.ranking.words import WordMix
from tree.beam_search import SimilarityScorer, rows_below, search
from tree.node import Node
from tree.rows import IntArray
from tree.scan import is_fast, off_loop, scan, scores_of
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray, cosines, inverse_norms
from tree.worker import Closed, Worker

_SCANS_AT_ONCE = 16
_SPARSE = 4  # where at most one row in so many is allowed, only the allowed rows are scored
_INLINE_ROWS = 2_000  # gathering and scoring more would hold up the event loop
_MOST_SCANS = 10_000
_RISING = 1_000  # rows that a beam search gets beside those of its leaves
_LOWERED, _TIMES = 500, 2  # rows of a scan whose scores dislikes may lower: the best by far


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows best first with their scores, and what had to be looked at to find them."""

    rows: IntArray
    scores: FloatArray
    leaves: list[Node]  # reached by the search; empty after a full scan
    scored_items: int
    scored_nodes: int
    levels: int


@dataclass(frozen=True, slots=True, eq=False)
class _Scan:
    tree: SemanticTree
    scorer: SimilarityScorer
    done: asyncio.Future[FloatArray]


class SharedScans:
    """Does full scans that wait at the same time in one pass over the vectors."""

    def __init__(self) -> None:
        self._worker = Worker[_Scan](
            "scans", self._work, most=_MOST_SCANS, full="refuse", pick=_of_one_tree
        )

    async def scores(self, tree: SemanticTree, scorer: SimilarityScorer) -> FloatArray:
        """float32[tree.size]: the score of every row. Raises Closed."""
        mine = _Scan(tree, scorer, asyncio.get_running_loop().create_future())
        if not self._worker.put([mine]):
            raise Closed
        return await mine.done

    async def _work(self, batch: Sequence[_Scan]) -> None:
        wanted = [one for one in batch if not one.done.done()]  # the others were cancelled
        if not wanted:
            return
        found: list[FloatArray] | BaseException
        try:
            tree = batch[0].tree
            work = partial(scan, tree, [one.scorer for one in wanted])
            if is_fast(tree, sum(len(one.scorer.weights) for one in wanted)):
                found = list(work())
            else:
                found = list(await off_loop(tree.size, work, inline=0))
        except (Exception, asyncio.CancelledError) as error:
            for one in wanted:
                if not one.done.done():
                    one.done.set_exception(error if isinstance(error, Exception) else Closed())
            raise
        for one, row in zip(wanted, found, strict=True):
            if not one.done.done():
                one.done.set_result(row)


def _of_one_tree(waiting: Collection[_Scan]) -> Iterable[_Scan]:
    tree = next(iter(waiting)).tree
    return islice((one for one in waiting if one.tree is tree), _SCANS_AT_ONCE)


@dataclass(frozen=True, slots=True)
class EmbeddedRanker:
    """Scores items by similarity, popularity and co-occurrence, as the weights of the need say.

    Score = blend of the cosines to the need's directions (see `tree.beam_search.blend`), mixed with
    the very words of history and wish (see `app.ranking.words`)
    + `popularity_weight` · ln(1 + popularity + users who had it) + co-occurrence with the history
    (see `app.signals.Signals`). With no need at all, popularity alone, then order of the
    catalogue; with no events, similarity and stated popularity. The users who had it count
    `EventScores.prior` times. What is like a disliked item loses (see `app.ranking.known_items`).
    """

    inverse_temperature: float
    exact_scan_items: int
    beam_leaves: int
    beam_breadth: int
    mix: WordMix = field(default_factory=WordMix)
    scans: SharedScans = field(default_factory=SharedScans)

    async def rank(
        self,
        tree: SemanticTree,
        need: Need,
        allowed: npt.NDArray[np.bool_],
        wanted: int,
    ) -> Ranking:
        """The best `wanted` allowed rows, best first; fewer only when fewer were found.

        All rows of a small catalogue are scored, and all allowed rows when they are few. Otherwise
        the leaves of a wide beam are scored, more leaves while these hold too few allowed rows, and
        the items that co-occur with the history, or share its words or those of the wish, anywhere
        in the tree. `allowed` is bool[tree.size].
        """
        few = int(np.count_nonzero(allowed))
        if few <= min(self.exact_scan_items, tree.size // _SPARSE):
            return await self._ranked_alone(
                tree, need, np.flatnonzero(allowed).astype(np.int32), wanted
            )
        if need.is_empty or tree.size <= self.exact_scan_items:
            rows, best = await self._scanned(tree, need, allowed, wanted)
            return Ranking(rows, best, [], tree.size, 0, 0)
        leaves, breadth = self.beam_leaves, self.beam_breadth
        scorer = self.scorer(need)
        while True:
            found = await search(tree, scorer, leaves=leaves, breadth=breadth)
            reached = rows_below(found.leaves)
            inside = reached[allowed[reached]]
            if len(inside) >= wanted or len(reached) == len(tree):
                break
            leaves, breadth = leaves * 4, breadth * 4
        if need.event_scores is not None:
            known = need.event_scores.rows
            inside = np.union1d(inside, known[allowed[known]])
            if need.tilt.rising:
                rising = need.event_scores.most_rising(_RISING)
                inside = np.union1d(inside, rising[allowed[rising]])
        if need.words is not None:
            inside = need.words.joined(inside, self._mix_of(need), allowed)
        scores = self.scores(tree, need, inside)
        order, best = _best(scores, None, wanted)
        return Ranking(inside[order], best, found.leaves, len(inside), found.offered, found.levels)

    async def _ranked_alone(
        self, tree: SemanticTree, need: Need, rows: IntArray, wanted: int
    ) -> Ranking:
        """The best of some rows, all of which are scored."""
        work = partial(self.scores, tree, need, rows)
        scores = await off_loop(len(rows), work, inline=_INLINE_ROWS)
        order, best = _best(scores, None, wanted)
        return Ranking(rows[order], best, [], len(rows), 0, 0)

    def scorer(self, need: Need) -> SimilarityScorer:
        """The need as a scorer of nodes and rows."""
        return SimilarityScorer(
            need.vectors, need.weights, need.interest_index, self.inverse_temperature
        )

    def node_similarity(self, tree: SemanticTree, need: Need, nodes: Sequence[Node]) -> FloatArray:
        """float32[nodes, interests]: similarity of a node's nearer centroid; 0 without a need."""
        if need.is_empty:
            return np.zeros((len(nodes), 1), np.float32)
        centroids = np.concatenate([tree.centroids_of(node) for node in nodes])
        scores = cosines(centroids, inverse_norms(centroids), need.vectors) * np.float32(
            self.inverse_temperature
        )
        own = need.interest_index[:, None] == np.arange(int(need.interest_index.max()) + 1)
        shares = need.weights[:, None] * own
        with np.errstate(divide="ignore"):
            similarity = np.log(np.exp(scores) @ shares) / np.float32(self.inverse_temperature)
        return similarity.reshape(len(nodes), -1, similarity.shape[1]).max(axis=1)

    def scores(self, tree: SemanticTree, need: Need, rows: IntArray) -> FloatArray:
        """float32[rows]: the ranker's own scores of some rows, in their order."""
        scores = np.zeros(len(rows), np.float32)
        if not need.is_empty and len(rows):
            scores = scores_of(tree, self.scorer(need), rows)
        if need.words is not None:
            need.words.mix_into(scores, self._mix_of(need), rows)
        self._add_prior(tree, need, scores, rows)
        known_items.lower(tree, need, self.inverse_temperature, scores, rows)
        return scores

    async def _scanned(
        self, tree: SemanticTree, need: Need, allowed: npt.NDArray[np.bool_], wanted: int
    ) -> tuple[IntArray, FloatArray]:
        """The best of all rows, and their scores."""
        similarity = None if need.is_empty else await self.scans.scores(tree, self.scorer(need))

        def work() -> tuple[IntArray, FloatArray]:
            scores = np.zeros(tree.size, np.float32) if similarity is None else similarity
            if need.words is not None:
                need.words.mix_into(scores, self._mix_of(need), None, allowed)
            self._add_prior(tree, need, scores, slice(None))
            if need.is_empty and not len(need.disliked):
                return _best(scores, allowed, wanted)
            rows, best = _best(scores, allowed, max(_LOWERED, _TIMES * wanted))
            known_items.lower(tree, need, self.inverse_temperature, best, rows)
            order, best = _best(best, None, wanted)
            return rows[order], best

        return await off_loop(tree.size, work)

    def _mix_of(self, need: Need) -> WordMix:
        return self.mix.times(need.rank_weights.exact_words)

    def _add_prior(
        self, tree: SemanticTree, need: Need, scores: FloatArray, rows: IntArray | slice
    ) -> None:
        """Add what does not depend on similarity: popularity, events, the tilt of the task."""
        stated, event_scores = tree.rows.popularity[: tree.size][rows], need.event_scores
        weight = np.float32(need.rank_weights.popularity_weight)
        if event_scores is None:
            if weight and stated.any():
                scores += weight * np.log1p(stated)
        else:
            counts = event_scores.counts[: tree.size][rows]
            if weight:
                scores += weight * np.log1p(stated + counts)
                if event_scores.prior != 1:
                    scores += weight * np.float32(event_scores.prior - 1) * np.log1p(counts)
            event_scores.add_to(scores, rows)
            if need.tilt.rising and event_scores.rising is not None:
                rising = event_scores.rising[: tree.size][rows]
                scores += np.float32(need.tilt.rising) * np.log1p(rising)
        need.tilt.apply(tree, scores, rows)


def strongest(
    tree: SemanticTree, need: Need, rows: IntArray, inverse_temperature: float
) -> npt.NDArray[np.int64]:
    """For every row, the direction of the need that adds most to its score: int64[rows]."""
    similarity = cosines(tree.rows.vectors[rows], tree.rows.scale[rows], need.vectors)
    return (similarity + np.log(need.weights) / inverse_temperature).argmax(axis=1)


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
