"""`VectorRetriever`: the best items by the embedded ranker."""

import numpy as np

from app.recommend.candidates import Candidates
from app.recommend.context import ModelContext
from app.recommend.profile import Profile
from tree.rows import IntArray


class VectorRetriever:
    """The first of the embedded ranker's candidates of the whole tree.

    Its score blends similarity to the history and the words with popularity and co-occurrence.
    """

    def __init__(self, best: Candidates) -> None:
        self._best = best

    async def retrieve(
        self,
        context: ModelContext,
        profile: Profile,  # noqa: ARG002
        known: IntArray,
    ) -> IntArray:
        """See Retriever."""
        rows = self._best.rows[: context.effort.vector_candidates]
        return rows[~np.isin(rows, known)]
