"""`ask`: the only function that calls a model."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from app.budget import Budget, BudgetExceeded, Claim, SharedBudget, SharedClaim
from app.llm.chat import ChatModel, Choice, Decisions, Reply, TokenUsage, Turn
from app.llm.errors import (
    InvalidReply,
    ModelRejected,
    ModelUnavailable,
    ReplyFlaw,
    SpentOnThinking,
)
from app.llm.tokens import PICTURE_TOKENS, estimated_tokens

_T = TypeVar("_T")
_TRIES = 3  # of a call, while the provider has a passing fault
_TOKENS_PER_CHOICE = 4  # of a decision: its number, as JSON
_SHORTEST_CALL_S = 0.05  # no model answers faster


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    input_usd: float = 0.0
    output_usd: float = 0.0
    cached_usd: float | None = None  # for input from the provider's cache; None: as for other input

    def of(self, usage: TokenUsage) -> float:
        """The cost of a call in dollars."""
        cached = self.input_usd if self.cached_usd is None else self.cached_usd
        fresh = usage.input_tokens - usage.cached_tokens
        return (
            fresh * self.input_usd
            + usage.cached_tokens * cached
            + usage.output_tokens * self.output_usd
        ) / 1e6

    def halved(self) -> "Price":
        """Half of it, which providers ask for calls in a batch."""
        cached = None if self.cached_usd is None else self.cached_usd / 2
        return Price(self.input_usd / 2, self.output_usd / 2, cached)


FREE = Price()


@dataclass(slots=True)
class UsageTotals:
    """The calls and tokens of one stage so far."""

    calls: int = 0
    rounds: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    fallbacks: int = 0
    flaws: Counter[ReplyFlaw] = field(default_factory=Counter)
    between_rounds: bool = True

    def add(self, usage: TokenUsage, cost_usd: float) -> None:
        if self.between_rounds:
            self.rounds += 1
            self.between_rounds = False
        self.calls += 1
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cached_tokens += usage.cached_tokens
        self.cost_usd += cost_usd


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a call needs: the model, its price, the budgets, and the totals to add to."""

    model: ChatModel
    price: Price
    budget: Budget
    totals: UsageTotals
    shared_budget: SharedBudget | None = None  # several requests share it


async def ask(
    context: CallContext,
    turn: Turn,
    read: Callable[[Reply], _T],
    *,
    again: Callable[[], Turn] | None = None,
) -> _T:
    """The value that `read` returns for the model's reply.

    Every call is claimed from the budget before, and settled after. A passing fault of the
    provider is retried while the budget's deadline allows. A model that has spent all tokens on
    thinking is asked again with more. A reply that `read` rejects is asked for once more, with the
    turn of `again`, which may be shorter.
    Raises ModelUnavailable, InvalidReply, ModelRejected, BudgetExceeded.
    """
    try:
        return await _read(context, turn, read)
    except InvalidReply:
        if again is None:
            raise
    return await _read(context, again(), read)


async def _read(context: CallContext, turn: Turn, read: Callable[[Reply], _T]) -> _T:
    try:
        reply = await _call(context, turn)
        value = read(reply)
    except InvalidReply as error:
        context.totals.flaws[error.flaw] += 1
        raise
    if reply.keep is not None:
        await reply.keep()
    return value


async def _call(context: CallContext, turn: Turn) -> Reply:
    while True:
        try:
            return await _overcoming(context, turn)
        except SpentOnThinking as error:
            if not error.more_room:
                raise


async def _overcoming(context: CallContext, turn: Turn) -> Reply:
    """The reply to a call that is repeated while the provider has a passing fault."""
    for attempt in range(1, _TRIES + 1):
        try:
            return await _once(context, turn)
        except ModelUnavailable as error:
            wait = error.retry_after_s
            if wait is None or attempt == _TRIES:
                raise
            wait *= attempt
            if wait + _SHORTEST_CALL_S >= context.budget.seconds_left:
                raise
            await asyncio.sleep(wait)
    raise AssertionError


async def _once(context: CallContext, turn: Turn) -> Reply:
    estimate = TokenUsage(estimated_input(turn), turn.longest(context.model.room))
    claim = await _claimed(context, estimate)
    timeout_s = min(turn.timeout_s, context.budget.seconds_left)
    try:
        reply = await context.model.complete(replace(turn, timeout_s=timeout_s))
    except ModelUnavailable as error:
        # A provider may charge for a call that timed out, but not for one that it refused.
        if error.asked:
            used = TokenUsage(estimate.input_tokens) if error.timed_out else TokenUsage()
            await _settle(context, claim, used)
        else:
            await _release(claim)
        raise
    except ModelRejected:
        await _settle(context, claim, TokenUsage())
        raise
    except SpentOnThinking as error:
        await _settle(context, claim, error.usage or estimate)
        raise
    except BaseException:
        await _settle(context, claim, TokenUsage(estimate.input_tokens))
        raise
    if reply.cached:
        await _release(claim)
    else:
        await _settle(context, claim, reply.usage or estimated_usage(turn, reply))
    return reply


_Claims = tuple[Claim, SharedClaim | None]


async def _claimed(context: CallContext, estimate: TokenUsage) -> _Claims:
    """The claims of a call: on the request's budget, and on the shared budget."""
    cost = context.price.of(estimate)
    tokens = estimate.input_tokens + estimate.output_tokens
    claim = context.budget.claim(tokens, cost, seconds=_SHORTEST_CALL_S)
    if context.shared_budget is None or not cost:
        return claim, None
    try:
        return claim, await context.shared_budget.claim(cost)
    except BaseException:
        claim.release()
        raise


async def _settle(context: CallContext, claims: _Claims, usage: TokenUsage) -> None:
    claim, shared = claims
    cost = context.price.of(usage)
    claim.settle(usage.input_tokens + usage.output_tokens, cost)
    context.totals.add(usage, cost)
    if shared is not None:
        await shared.settle(cost)


async def _release(claims: _Claims) -> None:
    claim, shared = claims
    claim.release()
    if shared is not None:
        await shared.settle(0.0)


def estimated_input(turn: Turn) -> int:
    """The tokens that a turn sends, as far as they are known before the call."""
    pictures = turn.pictures
    asked = [message.content for message in turn.messages]
    asked += [picture.caption for picture in pictures]
    beside = PICTURE_TOKENS * len(pictures)
    if isinstance(turn.form, Decisions):
        asked += [question.instructions for question in turn.form.questions]
        options = sum(q.options for q in turn.form.questions if isinstance(q, Choice))
        beside += _TOKENS_PER_CHOICE * options
    return estimated_tokens(*asked) + beside


def estimated_usage(turn: Turn, reply: Reply) -> TokenUsage:
    """The usage of a call when the provider does not report it."""
    return TokenUsage(estimated_input(turn), estimated_tokens(reply.text))


__all__ = [
    "BudgetExceeded",
    "CallContext",
    "Price",
    "UsageTotals",
    "ask",
    "estimated_input",
    "estimated_usage",
]
