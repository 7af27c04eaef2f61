"""`VectorRetriever`: the best items for a need by the embedded ranker."""

from dataclasses import dataclass

from app.recommend.candidates import Candidates
from app.recommend.context import ModelContext
from tree.rows import IntArray


@dataclass(frozen=True, slots=True)
class VectorRetriever:
    """The first of the embedded ranker's candidates of the whole tree, for one need.

    Its score blends similarity and common words with popularity and co-occurrence.
    """

    found: Candidates
    weight: float = 1.0

    async def retrieve(self, context: ModelContext, wanted: int) -> IntArray:  # noqa: ARG002
        """See Retriever."""
        return self.found.rows[:wanted]
