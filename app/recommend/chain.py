"""The chain with a model: branches, recall in modest slates, and a last look at the best."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.ranking import ModelRanker, Question, reciprocal_rank
from app.ranking.fusion import RANK_OFFSET, FloatArray
from app.recommend.candidates import Candidates, Pool
from app.recommend.lines import LINE_CHARS
from app.recommend.reading import Reading
from app.recommend.walk import Walk, narrowed
from prompts import load
from tree.node import Node
from tree.rows import IntArray
from tree.search import beam, rows_below

_WANTED = 32  # items worth a score
_TRIED = 4  # records read per wanted one, where a filter has to see them
_LEAD = 1  # items that a branch may bring before the next one brings its first


class Chain:
    """One request's candidates, by the model and the embedded ranker together. Used once."""

    def __init__(
        self, reading: Reading, pool: Pool, walk: Walk, *, model_weight: float, anchors: int
    ) -> None:
        self._reading = reading
        self._pool = pool
        self._walk = walk
        self._shares = [model_weight, 1 - model_weight]
        self._anchors = anchors
        self._ranker = ModelRanker(reading.account, reading.mode)

    async def run(self, wanted: int) -> Candidates:
        """The best `wanted` candidates.

        Where the model fails the embedded ranker stands in, slate by slate, and the account says
        so. Raises ModelRejected, StoreUnavailable.
        """
        reading, effort = self._reading, self._reading.effort
        branches: list[Node] = []
        if effort.levels and not reading.tree.root.is_leaf:
            branches = await self._walk.run()
        else:
            reading.need = narrowed(reading.need)
            reading.tell_profile()
        with reading.clock.stage("recall"):
            return await self._recall(branches, wanted)

    async def _recall(self, branches: Sequence[Node], wanted: int) -> Candidates:
        reading, effort = self._reading, self._reading.effort
        best = await self._pool.best(
            reading.tree, reading.need, reading.allowed, max(wanted, effort.nearest), reading.passes
        )
        rows = await self._with_found(best.rows[: effort.nearest], branches)
        lines = await self._pool.lines(reading.tree, rows.tolist())
        rows = np.array([row for row in rows.tolist() if row in lines], np.int32)
        reading.tell_candidates(len(rows))
        if not len(rows):
            return best
        return filled_up(rows[await self._order(rows, lines)], best, wanted)

    async def _order(self, rows: IntArray, lines: dict[int, str]) -> npt.NDArray[np.int64]:
        """Positions of the candidates, best first."""
        reading, effort = self._reading, self._reading.effort
        near = self._pool.ranker.scores(reading.tree, reading.need, rows)
        judged = await self._judge("recall", rows, near, lines, reading.columns(), effort.glances)
        marks = judged.max(axis=1)
        fused = reciprocal_rank([marks, near], self._shares)
        if not effort.final or len(rows) <= effort.final:
            return every_interest(np.argsort(-fused, kind="stable"), judged, reading.limit)
        picked = self._finalists(judged, fused)
        last = await self._judge("rerank", rows[picked], fused[picked], lines, (), effort.looks)
        looks = effort.looks + effort.glances
        both = (last[:, 0] * effort.looks + marks[picked] * effort.glances) / looks
        fused[picked] = 1 + reciprocal_rank([both, near[picked]], self._shares)  # above the others
        return every_interest(np.argsort(-fused, kind="stable"), judged, reading.limit)

    async def _with_found(self, nearest: IntArray, branches: Sequence[Node]) -> IntArray:
        """The nearest rows and the best ones of every branch in turn, without repetition."""
        reading, wanted = self._reading, self._reading.effort.found
        if not branches or not wanted:
            return nearest
        below = [rows_below(list(reading.tree.leaves(branch.id))) for branch in branches]
        rank = np.repeat(np.arange(len(below)), [len(rows) for rows in below])
        rows = np.concatenate(below)
        new = reading.allowed[rows] & ~np.isin(rows, nearest)
        rows, rank = rows[new], rank[new]
        order = np.argsort(-self._pool.ranker.scores(reading.tree, reading.need, rows))
        rows, rank = rows[order], rank[order]
        turn = np.zeros(len(rows), np.int64)  # of a row: its place in its branch, best first
        for branch in range(len(below)):
            mine = rank == branch
            turn[mine] = np.arange(int(mine.sum()))
        found = rows[np.lexsort((rank, turn + _LEAD * rank))][: wanted * _TRIED].tolist()
        if reading.passes is not None:
            records = await self._pool.records(reading.tree, found)
            found = [row for row in found if row in records and reading.passes.holds(records[row])]
        return np.array([*nearest.tolist(), *found[:wanted]], np.int32)

    async def _judge(
        self,
        stage: Literal["recall", "rerank"],
        rows: IntArray,
        near: FloatArray,
        lines: dict[int, str],
        columns: Sequence[str],
        looks: int = 1,
    ) -> FloatArray:
        reading = self._reading
        wide = np.repeat(near[:, None], max(1, len(columns)), axis=1)
        question = Question(
            load(stage, reading.perspective),
            [lines[row] for row in rows.tolist()],
            wide.astype(np.float32),
            reading.need_text(),
            columns,
            _WANTED,
            reading.seed,
            LINE_CHARS,
            self._anchors,
        )
        return await self._ranker.score(stage, question, looks)

    def _finalists(self, judged: FloatArray, fused: FloatArray) -> npt.NDArray[np.int64]:
        """Mostly the best; a quarter is kept for each interest's own favourites."""
        marks = np.column_stack([fused, judged * (fused.max() / max(float(judged.max()), 1e-6))])
        return np.array(beam(marks, self._reading.effort.final), np.int64)


def every_interest(
    order: npt.NDArray[np.int64], judged: FloatArray, limit: int
) -> npt.NDArray[np.int64]:
    """The order with the best candidate of every interest among the first `limit`.

    Those that are not there by themselves come last among them, in place of the weakest.
    `judged` is float32[candidates, interests].
    """
    if judged.shape[1] > limit:
        return order
    wanted = list(dict.fromkeys(judged.argmax(axis=0).tolist()))
    first = order[:limit].tolist()
    for candidate in wanted:
        if candidate not in first and len(first) == limit:
            first.remove(next(at for at in reversed(first) if at not in wanted))
            first.append(candidate)
    rest = [at for at in order.tolist() if at not in set(first)]
    return np.array([*first, *rest], np.int64)


def filled_up(rows: IntArray, best: Candidates, wanted: int) -> Candidates:
    """As many as wanted: what the model has ordered, then the embedded ranker's best.

    Scores fall along the list as those of a rank fusion do, the same for the same place in any
    list: a fused order says who comes before whom, not by how much.
    """
    known = set(rows.tolist())
    rest = [row for row in best.rows.tolist() if row not in known]
    every = np.array([*rows.tolist(), *rest[: max(0, wanted - len(rows))]], np.int32)
    scores = (RANK_OFFSET / (RANK_OFFSET + np.arange(len(every)))).astype(np.float32)
    return Candidates(best.ranking, every, scores)
