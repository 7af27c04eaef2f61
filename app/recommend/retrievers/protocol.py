"""`Retriever`: a source of candidates."""

from typing import Protocol

from app.recommend.context import ModelContext
from tree.rows import IntArray


class Retriever(Protocol):
    """A source of candidates, which `app.recommend.recall` fuses with others by rank."""

    @property
    def weight(self) -> float:
        """What a rank of this source counts beside those of others."""
        ...

    async def retrieve(self, context: ModelContext, wanted: int) -> IntArray:
        """Distinct allowed rows, best first, at most `wanted`. Raises StoreUnavailable."""
        ...
