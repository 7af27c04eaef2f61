"""`TrendingRetriever`: what rises now, for every user."""

from dataclasses import dataclass

from app.recommend.context import ModelContext
from app.signals import EventScores
from tree.rows import IntArray


@dataclass(frozen=True, slots=True)
class TrendingRetriever:
    """The items that rise most among those that the request allows; none without events."""

    events: EventScores
    weight: float = 1.0

    async def retrieve(self, context: ModelContext, wanted: int) -> IntArray:
        """See Retriever."""
        rows = self.events.most_rising(len(self.events.counts))
        return rows[context.allowed[rows]][:wanted]
