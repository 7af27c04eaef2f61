"""`ask` claims before a call, settles after it, waits out passing faults and asks again once."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from app.budget import Budget, BudgetExceeded
from app.llm.ask import FREE, CallContext, Price, UsageTotals, ask
from app.llm.chat import (
    Choice,
    Decisions,
    Message,
    Reply,
    ScriptedChat,
    Text,
    TokenUsage,
    Turn,
)
from app.llm.errors import InvalidReply, ModelRejected, ModelUnavailable
from app.llm.tokens import estimated_tokens

TURN = Turn((Message("system", "Be brief."), Message("user", "One or two?")), Text(), 40, 5.0)
SHORTER = replace(TURN, max_output_tokens=20)
PRICE = Price(input_usd=2.0, output_usd=8.0, cached_usd=0.5)
TOLD = TokenUsage(100, 10, 60)


def call_context(
    *script: Reply | Exception | Callable[[Turn], Reply],
    budget: Budget | None = None,
    price: Price = FREE,
) -> tuple[CallContext, list[Turn]]:
    """A line whose model goes through a script, and the turns it has seen."""
    steps = iter(script)
    seen: list[Turn] = []

    def answer(turn: Turn) -> Reply:
        seen.append(turn)
        step = next(steps)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Reply) else step(turn)

    return CallContext(
        ScriptedChat(answer), price, budget or Budget(10, 10_000, 1.0), UsageTotals()
    ), seen


def estimate() -> int:
    """Of the input of TURN."""
    return estimated_tokens("Be brief.", "One or two?")


def number(reply: Reply) -> int:
    if not reply.text.isdecimal():
        raise InvalidReply("no number")
    return int(reply.text)


def spent_of(totals: UsageTotals) -> tuple[int, int, int, int, float]:
    return (
        totals.calls,
        totals.input_tokens,
        totals.output_tokens,
        totals.cached_tokens,
        round(totals.cost_usd, 12),
    )


async def test_what_the_provider_tells_is_settled() -> None:
    budget = Budget(10, 10_000, 1.0)
    context, seen = call_context(Reply("7", usage=TOLD), budget=budget, price=PRICE)
    assert await ask(context, TURN, number) == 7
    cost = (40 * 2.0 + 60 * 0.5 + 10 * 8.0) / 1e6
    assert spent_of(context.totals) == (1, 100, 10, 60, cost)
    assert (budget.calls_left, budget.tokens_left) == (9, 10_000 - 110)
    assert budget.cost_left_usd == pytest.approx(1.0 - cost)
    assert seen == [TURN]


async def test_input_that_a_provider_had_cached_costs_as_other_input_unless_said() -> None:
    assert Price(2.0, 8.0).of(TOLD) == pytest.approx((100 * 2.0 + 10 * 8.0) / 1e6)
    assert FREE.of(TOLD) == 0.0


async def test_a_call_is_claimed_before_it_is_made() -> None:
    budget = Budget(10, 10_000, 1.0)
    during: list[tuple[int, int, float]] = []

    def look(_: Turn) -> Reply:
        during.append((budget.calls_left, budget.tokens_left, budget.cost_left_usd))
        return Reply("7", usage=TOLD)

    context, _ = call_context(look, budget=budget, price=PRICE)
    await ask(context, TURN, number)
    cost = (estimate() * 2.0 + 40 * 8.0) / 1e6
    assert during == [(9, 10_000 - estimate() - 40, pytest.approx(1.0 - cost))]


async def test_where_the_provider_does_not_tell_it_is_estimated() -> None:
    budget = Budget(10, 10_000)
    context, _ = call_context(Reply("7"), budget=budget)
    await ask(context, TURN, number)
    assert spent_of(context.totals) == (1, estimate(), estimated_tokens("7"), 0, 0.0)
    assert budget.tokens_left == 10_000 - estimate() - estimated_tokens("7")


async def test_the_words_of_decisions_are_counted() -> None:
    questions = Decisions((Choice("Which of these many numbers?", 3),))
    context, _ = call_context(Reply("7"), Reply("7"))
    await ask(context, TURN, number)
    plain = context.totals.input_tokens
    await ask(context, replace(TURN, form=questions), number)
    assert context.totals.input_tokens - plain > plain


async def test_a_kept_reply_is_free() -> None:
    budget = Budget(1, 10_000, 1.0)
    kept = Reply("7", usage=TokenUsage(), cached=True)
    context, _ = call_context(kept, kept, budget=budget, price=PRICE)
    assert await ask(context, TURN, number) == 7
    assert await ask(context, TURN, number) == 7
    assert spent_of(context.totals) == (0, 0, 0, 0, 0.0)
    assert (budget.calls_left, budget.tokens_left, budget.cost_left_usd) == (1, 10_000, 1.0)


async def test_an_invalid_reply_is_asked_for_once_more() -> None:
    context, seen = call_context(Reply("what?"), Reply("7"))
    assert await ask(context, TURN, number, again=lambda: SHORTER) == 7
    assert seen == [TURN, SHORTER]
    assert context.totals.flaws == {"wrong_format": 1}
    assert context.totals.calls == 2


async def test_a_second_invalid_reply_is_raised_and_both_are_counted() -> None:
    flaws = iter(("wrong_format", "missing"))

    def never(_: Reply) -> int:
        raise InvalidReply("no", next(flaws))  # type: ignore[arg-type]

    context, seen = call_context(Reply("a"), Reply("b"), Reply("c"))
    with pytest.raises(InvalidReply) as caught:
        await ask(context, TURN, never, again=lambda: SHORTER)
    assert caught.value.flaw == "missing"
    assert context.totals.flaws == {"wrong_format": 1, "missing": 1}
    assert len(seen) == 2


async def test_without_another_turn_an_invalid_reply_is_raised_at_once() -> None:
    context, seen = call_context(Reply("what?"))
    with pytest.raises(InvalidReply):
        await ask(context, TURN, number)
    assert (len(seen), context.totals.flaws) == (1, {"wrong_format": 1})


async def test_a_refusal_by_the_model_is_an_invalid_reply_too() -> None:
    context, _ = call_context(InvalidReply("the prompt is too long"), Reply("7"))
    assert await ask(context, TURN, number, again=lambda: SHORTER) == 7
    assert context.totals.input_tokens == 2 * estimate()
    assert context.totals.flaws == {"wrong_format": 1}


async def test_another_try_must_fit_into_the_budget_too() -> None:
    context, seen = call_context(Reply("what?"), budget=Budget(1, 10_000))
    with pytest.raises(BudgetExceeded):
        await ask(context, TURN, number, again=lambda: SHORTER)
    assert len(seen) == 1


async def test_a_passing_fault_is_waited_out() -> None:
    busy = ModelUnavailable("busy", retry_after_s=0.002)
    context, seen = call_context(busy, busy, Reply("7", usage=TOLD), budget=Budget(10, 10_000))
    began = time.monotonic()
    assert await ask(context, TURN, number) == 7
    assert time.monotonic() - began >= 0.005, "the second wait is twice as long"
    assert len(seen) == 3
    assert (context.totals.calls, context.totals.input_tokens) == (3, 100), "a refused call is free"
    assert context.budget.tokens_left == 10_000 - 110


async def test_the_third_fault_is_raised() -> None:
    busy = ModelUnavailable("busy", retry_after_s=0.0)
    context, seen = call_context(*[busy] * 5)
    with pytest.raises(ModelUnavailable):
        await ask(context, TURN, number, again=lambda: SHORTER)
    assert len(seen) == 3
    assert context.totals.flaws == {}


@pytest.mark.parametrize(("wait_s", "left_s"), [(60.0, 5.0), (0.3, 0.3)])
async def test_no_wait_is_longer_than_the_time_left(wait_s: float, left_s: float) -> None:
    budget = Budget(10, 10_000, deadline=time.monotonic() + left_s)
    context, seen = call_context(ModelUnavailable("busy", retry_after_s=wait_s), budget=budget)
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match="busy"):
        await ask(context, TURN, number)
    assert time.monotonic() - began < 0.2
    assert len(seen) == 1


async def test_a_fault_that_waiting_does_not_help_is_raised_at_once() -> None:
    context, seen = call_context(ModelUnavailable("the account is used up"))
    with pytest.raises(ModelUnavailable):
        await ask(context, TURN, number, again=lambda: SHORTER)
    assert len(seen) == 1
    assert context.budget.tokens_left == 10_000


async def test_a_call_that_was_given_up_may_be_charged() -> None:
    context, _ = call_context(ModelUnavailable("no answer", timed_out=True))
    with pytest.raises(ModelUnavailable):
        await ask(context, TURN, number)
    assert context.totals.input_tokens == estimate()
    assert context.budget.tokens_left == 10_000 - estimate()


async def test_a_rejected_call_goes_straight_through() -> None:
    context, seen = call_context(ModelRejected("wrong key"))
    with pytest.raises(ModelRejected, match="wrong key"):
        await ask(context, TURN, number, again=lambda: SHORTER)
    assert len(seen) == 1
    assert context.totals.flaws == {}


@pytest.mark.parametrize(
    ("open_budget", "resource"),
    [
        (lambda: Budget(0, 10_000), "calls"),
        (lambda: Budget(10, estimate() + 39), "tokens"),
        (lambda: Budget(10, 10_000, 1e-6), "cost"),
        (lambda: Budget(10, 10_000, deadline=-math.inf), "time"),
    ],
)
async def test_what_does_not_fit_is_not_asked(
    open_budget: Callable[[], Budget], resource: str
) -> None:
    budget = open_budget()
    context, seen = call_context(Reply("7"), budget=budget, price=PRICE)
    before = budget.calls_left, budget.tokens_left, budget.cost_left_usd
    with pytest.raises(BudgetExceeded) as caught:
        await ask(context, TURN, number, again=lambda: SHORTER)
    assert caught.value.resource == resource
    assert seen == []
    assert spent_of(context.totals) == (0, 0, 0, 0, 0.0)
    assert (budget.calls_left, budget.tokens_left, budget.cost_left_usd) == before


async def test_a_call_that_just_fits_is_asked() -> None:
    context, _ = call_context(Reply("7", usage=TOLD), budget=Budget(1, estimate() + 40))
    assert await ask(context, TURN, number) == 7


@pytest.mark.parametrize(("left_s", "longest_s"), [(0.5, 0.5), (900.0, 5.0), (math.inf, 5.0)])
async def test_a_timeout_is_cut_to_the_deadline(left_s: float, longest_s: float) -> None:
    context, seen = call_context(
        Reply("7"), budget=Budget(9, 9_999, deadline=time.monotonic() + left_s)
    )
    await ask(context, TURN, number)
    assert 0.8 * longest_s < seen[0].timeout_s <= longest_s


async def test_a_cancelled_call_is_settled() -> None:
    begun = asyncio.Event()

    async def hang(_: Turn) -> Reply:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    budget = Budget(10, 10_000)
    context = CallContext(ScriptedChat(hang), FREE, budget, UsageTotals())
    asking = asyncio.create_task(ask(context, TURN, number))
    await begun.wait()
    assert budget.tokens_left == 10_000 - estimate() - 40
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (budget.calls_left, budget.tokens_left) == (9, 10_000 - estimate())
    assert context.totals.calls == 1


async def test_a_fault_of_our_own_is_settled_and_raised() -> None:
    context, _ = call_context(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await ask(context, TURN, number, again=lambda: SHORTER)
    assert context.budget.tokens_left == 10_000 - estimate()


@pytest.mark.parametrize("calls", [1, 3, 7])
async def test_concurrent_calls_share_one_budget(calls: int) -> None:
    budget = Budget(calls, 10_000)

    async def answer(_: Turn) -> Reply:
        await asyncio.sleep(0.001)
        return Reply("7", usage=TOLD)

    context = CallContext(ScriptedChat(answer), FREE, budget, UsageTotals())
    asked: Sequence[int | BaseException] = await asyncio.gather(
        *(ask(context, TURN, number) for _ in range(12)), return_exceptions=True
    )
    assert asked.count(7) == calls == context.totals.calls
    assert sum(isinstance(one, BudgetExceeded) for one in asked) == 12 - calls
