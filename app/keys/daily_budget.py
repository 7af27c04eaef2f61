"""`DailyBudget`: what models may cost in a day, for all requests with a key."""

import asyncio
import logging
import math

from app.budget import BudgetExceeded
from app.storage.key_usage import NANO_USD, RedisKeyUsage, today
from tree.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_STORE_S = 0.5


class DailyBudget:
    """See SharedBudget. Counted in the store per key and UTC day: exact over all processes.

    When a process dies between a claim and its settlement, the claim stays counted.
    """

    def __init__(self, store: RedisKeyUsage, key_id: str, limit_usd: float) -> None:
        self._store = store
        self._key_id = key_id
        self._limit = math.floor(limit_usd * NANO_USD)

    async def claim(self, cost_usd: float) -> "_DailyClaim":
        """See SharedBudget."""
        nano, day = math.ceil(cost_usd * NANO_USD), today()
        try:
            async with asyncio.timeout(_STORE_S):
                fits = await self._store.claim(self._key_id, day, nano, self._limit)
        except (
            TimeoutError,
            StoreUnavailable,
        ) as error:  # spend only what is counted
            logger.warning("no model is asked for the key %s: %s", self._key_id, error)
            raise BudgetExceeded("cost") from error
        if not fits:
            raise BudgetExceeded("cost")
        return _DailyClaim(self._store, self._key_id, day, nano)


class _DailyClaim:
    """See SharedClaim."""

    def __init__(self, store: RedisKeyUsage, key_id: str, day: str, nano: int) -> None:
        self._store = store
        self._key_id = key_id
        self._day = day
        self._nano = nano

    async def settle(self, cost_usd: float) -> None:
        """See SharedClaim."""
        difference = math.ceil(cost_usd * NANO_USD) - self._nano
        if difference:
            await asyncio.shield(self._settled(difference))

    async def _settled(self, difference: int) -> None:
        try:
            await self._store.settle(self._key_id, self._day, difference)
        except StoreUnavailable as error:  # the claim stays counted
            logger.warning("a claim of the key %s stays: %s", self._key_id, error)
