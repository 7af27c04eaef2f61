"""`BranchRetriever`: the best items of the branches that the search has chosen."""

from collections.abc import Sequence

import numpy as np

from app.recommend.candidates import CandidatePool
from app.recommend.context import ModelContext
from app.recommend.profile import Profile
from tree.beam_search import rows_below
from tree.node import Node
from tree.rows import IntArray

_LEAD = 1  # items that a branch may bring before the next one brings its first


class BranchRetriever:
    """The best rows of every branch in turn. The first branch has the most."""

    def __init__(self, pool: CandidatePool, branches: Sequence[Node]) -> None:
        self._pool = pool
        self._branches = branches

    async def retrieve(self, context: ModelContext, profile: Profile, known: IntArray) -> IntArray:
        """See Retriever."""
        wanted = context.effort.branch_candidates
        if not self._branches or not wanted:
            return np.zeros(0, np.int32)
        below = [rows_below(list(context.tree.leaves(branch.id))) for branch in self._branches]
        rank = np.repeat(np.arange(len(below)), [len(rows) for rows in below])
        rows = np.concatenate(below)
        new = context.allowed[rows] & ~np.isin(rows, known)
        rows, rank = rows[new], rank[new]
        order = np.argsort(-self._pool.ranker.scores(context.tree, profile.need, rows))
        rows, rank = rows[order], rank[order]
        turn = np.zeros(len(rows), np.int64)  # of a row: its place in its branch, best first
        for branch in range(len(below)):
            mine = rank == branch
            turn[mine] = np.arange(int(mine.sum()))
        return rows[np.lexsort((rank, turn + _LEAD * rank))][:wanted]
