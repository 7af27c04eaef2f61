"""`ask`: the only function that calls a model."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from app.budget import Budget, BudgetExceeded, Claim
from app.llm.chat import ChatModel, Choice, Decisions, Reply, TokenUsage, Turn
from app.llm.errors import Flaw, InvalidReply, ModelRejected, ModelUnavailable
from app.llm.tokens import estimated_tokens

_T = TypeVar("_T")
_TRIES = 3  # of a call that a passing fault of the provider has spoilt
_TOKENS_PER_CHOICE = 4  # of a decision: its number, as JSON
_SHORTEST_CALL_S = 0.05  # what no model answers within


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    input_usd: float = 0.0
    output_usd: float = 0.0
    cached_usd: float | None = None  # of input that the provider had cached; None: as other input

    def of(self, usage: TokenUsage) -> float:
        """What a call costs."""
        cached = self.input_usd if self.cached_usd is None else self.cached_usd
        fresh = usage.input_tokens - usage.cached_tokens
        return (
            fresh * self.input_usd
            + usage.cached_tokens * cached
            + usage.output_tokens * self.output_usd
        ) / 1e6


FREE = Price()


@dataclass(slots=True)
class Spent:
    """What one stage has asked of models so far."""

    calls: int = 0
    rounds: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    fallbacks: int = 0
    flaws: Counter[Flaw] = field(default_factory=Counter)
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
class Line:
    """Whom a stage asks, what that costs, and on whose account."""

    model: ChatModel
    price: Price
    budget: Budget
    spent: Spent


async def ask(
    line: Line, turn: Turn, read: Callable[[Reply], _T], *, again: Callable[[], Turn] | None = None
) -> _T:
    """What `read` makes of the model's reply.

    Every call is claimed from the budget before and settled after it. A passing fault of the
    provider is waited out and tried again while the budget's deadline allows; a reply that
    `read` refuses is asked for once more, with the turn of `again`, which may be shorter.
    Raises ModelUnavailable, InvalidReply, ModelRejected, BudgetExceeded.
    """
    try:
        return await _read(line, turn, read)
    except InvalidReply:
        if again is None:
            raise
    return await _read(line, again(), read)


async def _read(line: Line, turn: Turn, read: Callable[[Reply], _T]) -> _T:
    try:
        reply = await _call(line, turn)
        value = read(reply)
    except InvalidReply as error:
        line.spent.flaws[error.flaw] += 1
        raise
    if reply.keep is not None:
        await reply.keep()
    return value


async def _call(line: Line, turn: Turn) -> Reply:
    for attempt in range(1, _TRIES + 1):
        try:
            return await _once(line, turn)
        except ModelUnavailable as error:
            wait = error.retry_after_s
            if wait is None or attempt == _TRIES:
                raise
            wait *= attempt
            if wait + _SHORTEST_CALL_S >= line.budget.seconds_left:
                raise
            await asyncio.sleep(wait)
    raise AssertionError


async def _once(line: Line, turn: Turn) -> Reply:
    estimate = TokenUsage(_estimated_input(turn), turn.max_output_tokens)
    claim = line.budget.claim(
        estimate.input_tokens + estimate.output_tokens,
        line.price.of(estimate),
        seconds=_SHORTEST_CALL_S,
    )
    timeout_s = min(turn.timeout_s, line.budget.seconds_left)
    try:
        reply = await line.model.complete(replace(turn, timeout_s=timeout_s))
    except ModelUnavailable as error:
        # A call that was given up may be charged all the same; one that was refused is not.
        if error.asked:
            used = TokenUsage(estimate.input_tokens) if error.timed_out else TokenUsage()
            _settle(line, claim, used)
        else:
            claim.release()
        raise
    except ModelRejected:
        _settle(line, claim, TokenUsage())
        raise
    except BaseException:
        _settle(line, claim, TokenUsage(estimate.input_tokens))
        raise
    if reply.kept:
        claim.release()
    else:
        _settle(line, claim, reply.usage or _guessed(turn, reply))
    return reply


def _settle(line: Line, claim: Claim, usage: TokenUsage) -> None:
    cost = line.price.of(usage)
    claim.settle(usage.input_tokens + usage.output_tokens, cost)
    line.spent.add(usage, cost)


def _estimated_input(turn: Turn) -> int:
    asked = [message.content for message in turn.messages]
    if isinstance(turn.form, Decisions):
        asked += [question.instructions for question in turn.form.questions]
        options = sum(q.options for q in turn.form.questions if isinstance(q, Choice))
        return estimated_tokens(*asked) + _TOKENS_PER_CHOICE * options
    return estimated_tokens(*asked)


def _guessed(turn: Turn, reply: Reply) -> TokenUsage:
    """For a provider that does not tell."""
    return TokenUsage(_estimated_input(turn), estimated_tokens(reply.text))


__all__ = ["BudgetExceeded", "Line", "Price", "Spent", "ask"]
