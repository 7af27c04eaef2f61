"""`BranchRetriever`: the best items of the branches that the search has chosen."""

from collections.abc import Sequence

import numpy as np

from app.ranking import Need
from app.recommend.candidates import CandidatePool
from app.recommend.context import ModelContext
from tree.beam_search import rows_below
from tree.node import Node
from tree.rows import IntArray

_LEAD = 1  # items that a branch may bring before the next one brings its first


class BranchRetriever:
    """The best rows of every branch in turn. The first branch has the most."""

    def __init__(
        self, pool: CandidatePool, need: Need, branches: Sequence[Node], weight: float = 1.0
    ) -> None:
        self._pool = pool
        self._need = need
        self._branches = branches
        self.weight = weight

    async def retrieve(self, context: ModelContext, wanted: int) -> IntArray:
        """See Retriever."""
        if not self._branches:
            return np.zeros(0, np.int32)
        below = [rows_below(list(context.tree.leaves(branch.id))) for branch in self._branches]
        rank = np.repeat(np.arange(len(below)), [len(rows) for rows in below])
        rows = np.concatenate(below)
        allowed = context.allowed[rows]
        rows, rank = rows[allowed], rank[allowed]
        order = np.argsort(-self._pool.ranker.scores(context.tree, self._need, rows))
        rows, rank = rows[order], rank[order]
        turn = np.zeros(len(rows), np.int64)  # of a row: its place in its branch, best first
        for branch in range(len(below)):
            mine = rank == branch
            turn[mine] = np.arange(int(mine.sum()))
        return rows[np.lexsort((rank, turn + _LEAD * rank))][:wanted]
