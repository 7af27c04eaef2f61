"""`Spending`: what texts cost at an endpoint, within budgets."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Lock

from app.budget import BudgetExceeded, SharedBudget, SharedClaim
from app.embedders.account import current_account
from tree.errors import EmbedderBudgetSpent

# A call is claimed with a token for every three bytes: more than English takes, and about what
# other scripts take. What it has really cost replaces the claim.
_BYTES_PER_TOKEN = 3
_MILLION = 1_000_000


@dataclass(slots=True)
class EmbedderUsage:
    """What this process has asked one model for."""

    texts: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


@dataclass(slots=True)
class Bill:
    """What one call costs: an estimate, until the endpoint says it."""

    tokens: int
    texts: int = 0  # that were answered


@dataclass(frozen=True, slots=True, eq=False)
class Spending:
    """The prices of models, and the budget of a day that all processes share.

    A model without a price costs nothing, as far as anyone knows. Thread-safe.
    """

    prices: Mapping[str, float] = field(
        default_factory=dict
    )  # dollars per million tokens, by model
    daily: SharedBudget | None = None
    loop: asyncio.AbstractEventLoop | None = None  # of `daily`
    usage: dict[str, EmbedderUsage] = field(default_factory=dict)  # by model
    _lock: Lock = field(default_factory=Lock)

    @asynccontextmanager
    async def claiming(self, model: str, texts: Sequence[str]) -> AsyncIterator[Bill]:
        """A bill for one call of these texts, claimed from the budgets of its job and of its day.

        Raises EmbedderBudgetSpent, and then the call must not be made.
        """
        price = self.prices.get(model)
        account = current_account()
        bill = Bill(
            sum(len(text.encode(errors="ignore")) for text in texts) // _BYTES_PER_TOKEN + 1
        )
        claimed = self._cost(price, bill.tokens)
        if account is not None:
            account.claim(claimed)
        try:
            daily = await self._claim_of_day(model, claimed)
        except EmbedderBudgetSpent:
            if account is not None:
                account.settle(claimed, 0, None)
            raise
        try:
            yield bill
        finally:
            cost = self._cost(price, bill.tokens)
            if account is not None:
                account.settle(claimed, bill.tokens, None if price is None else cost)
            self._settle_of_day(daily, cost)
            with self._lock:
                spent = self.usage.setdefault(model, EmbedderUsage())
                spent.texts += bill.texts
                spent.tokens += bill.tokens
                spent.cost_usd += cost

    async def _claim_of_day(self, model: str, cost_usd: float) -> SharedClaim | None:
        if self.daily is None or self.loop is None or model not in self.prices:
            return None
        claim = asyncio.run_coroutine_threadsafe(_claimed(self.daily, cost_usd), self.loop)
        try:
            return await asyncio.wrap_future(claim)
        except BudgetExceeded as error:
            raise EmbedderBudgetSpent(
                f"what the embedder 'openai:{model}' may cost in a day is spent, so it is not "
                "asked: try again after midnight (UTC), or raise "
                "UNILLMREC_EMBEDDER_MAX_COST_USD_PER_DAY"
            ) from error

    def _settle_of_day(self, claim: SharedClaim | None, cost_usd: float) -> None:
        if claim is not None and self.loop is not None and not self.loop.is_closed():
            asyncio.run_coroutine_threadsafe(_settled(claim, cost_usd), self.loop)

    @staticmethod
    def _cost(price: float | None, tokens: int) -> float:
        return 0.0 if price is None else tokens * price / _MILLION


async def _claimed(budget: SharedBudget, cost_usd: float) -> SharedClaim:
    return await budget.claim(cost_usd)


async def _settled(claim: SharedClaim, cost_usd: float) -> None:
    await claim.settle(cost_usd)
