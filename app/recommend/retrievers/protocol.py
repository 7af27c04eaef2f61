"""`Retriever`: a source of candidates."""

from typing import Protocol

from app.recommend.context import ModelContext
from app.recommend.profile import Profile
from tree.rows import IntArray


class Retriever(Protocol):
    """A source of candidates."""

    async def retrieve(self, context: ModelContext, profile: Profile, known: IntArray) -> IntArray:
        """Allowed rows that are not among the known ones, best first.

        How many is the effort's choice. Raises StoreUnavailable.
        """
        ...
