"""Budgets for calls to models: claimed before a call, settled after it."""

import math
import time
from dataclasses import dataclass
from typing import Literal, Protocol

Resource = Literal["calls", "tokens", "cost", "time"]


class BudgetExceeded(Exception):
    """A call does not fit into the rest of a budget.

    `needed_usd` is what the call may cost, where that is too much.
    """

    def __init__(self, resource: Resource, needed_usd: float = 0.0) -> None:
        super().__init__(f"the {resource} left do not allow another call")
        self.resource = resource
        self.needed_usd = needed_usd


class SharedClaim(Protocol):
    """Money that counts as spent until the cost of its call is known."""

    async def settle(self, cost_usd: float) -> None:
        """Replace the claim by the cost. Never raises: on failure, the claim stays counted."""
        ...


class SharedBudget(Protocol):
    """Money that several requests share, also across processes."""

    async def claim(self, cost_usd: float) -> SharedClaim:
        """Count `cost_usd` as spent. Raises BudgetExceeded, and then nothing is counted."""
        ...


@dataclass(slots=True, eq=False)
class Claim:
    """The most that one call may use; it counts as spent until it is settled."""

    budget: "Budget"
    tokens: int
    cost_usd: float
    settled: bool = False

    def settle(self, tokens: int, cost_usd: float) -> None:
        """Replace the claim by what the call has used. Only the first time has an effect."""
        if not self.settled:
            self.settled = True
            self.budget.tokens_left += self.tokens - tokens
            self.budget.cost_left_usd += self.cost_usd - cost_usd

    def release(self) -> None:
        """Return the whole claim: the call was not made."""
        if not self.settled:
            self.settle(0, 0.0)
            self.budget.calls_left += 1


@dataclass(slots=True, eq=False)
class Budget:
    """Calls, tokens (input and output), money and time of one request.

    Claims are made and settled without an await, so concurrent calls cannot exceed it together.
    A provider that uses more than was claimed can exceed it; then the next claim fails.
    """

    calls_left: int
    tokens_left: int
    cost_left_usd: float = math.inf
    deadline: float = math.inf  # by time.monotonic()

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def claim(self, tokens: int, cost_usd: float = 0.0, *, seconds: float = 0.0) -> Claim:
        """A claim for one call of at most `tokens` and `cost_usd`.

        `seconds` is the shortest time in which a model could answer. Raises BudgetExceeded, and
        then nothing is claimed.
        """
        if self.calls_left < 1:
            raise BudgetExceeded("calls")
        if self.tokens_left < tokens:
            raise BudgetExceeded("tokens")
        if self.cost_left_usd < cost_usd:
            raise BudgetExceeded("cost", cost_usd)
        if self.seconds_left <= seconds:
            raise BudgetExceeded("time")
        self.calls_left -= 1
        self.tokens_left -= tokens
        self.cost_left_usd -= cost_usd
        return Claim(self, tokens, cost_usd)
