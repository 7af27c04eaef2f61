"""What a request may spend on models: claimed before a call, settled after it."""

import math
import time
from dataclasses import dataclass
from typing import Literal

Resource = Literal["calls", "tokens", "cost", "time"]


class BudgetExceeded(Exception):
    """A call does not fit into what is left."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(f"the {resource} left do not allow another call")
        self.resource = resource


@dataclass(slots=True, eq=False)
class Claim:
    """What one call may take at most; counted as spent until it is settled."""

    budget: "Budget"
    tokens: int
    cost_usd: float
    settled: bool = False

    def settle(self, tokens: int, cost_usd: float) -> None:
        """Put what the call took in place of the claim. Once; later calls change nothing."""
        if not self.settled:
            self.settled = True
            self.budget.tokens_left += self.tokens - tokens
            self.budget.cost_left_usd += self.cost_usd - cost_usd

    def release(self) -> None:
        """Take nothing, the call included: it was not made."""
        if not self.settled:
            self.settle(0, 0.0)
            self.budget.calls_left += 1


@dataclass(slots=True, eq=False)
class Budget:
    """Calls, tokens (input and output), money and time of one request.

    Claims are made and settled between two steps of the event loop, so concurrent calls cannot
    overrun together. A provider that takes more than was claimed can: that is settled, and the
    next claim fails.
    """

    calls_left: int
    tokens_left: int
    cost_left_usd: float = math.inf
    deadline: float = math.inf  # by time.monotonic()

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def claim(self, tokens: int, cost_usd: float = 0.0, *, seconds: float = 0.0) -> Claim:
        """Set aside one call of at most `tokens` and `cost_usd`.

        `seconds` is the least time in which it could be answered. Raises BudgetExceeded, having
        taken nothing.
        """
        if self.calls_left < 1:
            raise BudgetExceeded("calls")
        if self.tokens_left < tokens:
            raise BudgetExceeded("tokens")
        if self.cost_left_usd < cost_usd:
            raise BudgetExceeded("cost")
        if self.seconds_left <= seconds:
            raise BudgetExceeded("time")
        self.calls_left -= 1
        self.tokens_left -= tokens
        self.cost_left_usd -= cost_usd
        return Claim(self, tokens, cost_usd)
