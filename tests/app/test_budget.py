"""A budget is exact: claims never overrun it, refused ones take nothing, one settles once."""

import asyncio
import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.budget import Budget, BudgetExceeded, Claim


def left(budget: Budget) -> tuple[int, int, float]:
    return budget.calls_left, budget.tokens_left, budget.cost_left_usd


def test_a_claim_counts_as_spent_until_it_is_settled() -> None:
    budget = Budget(3, 1_000, 2.0)
    claim = budget.claim(400, 0.5)
    assert left(budget) == (2, 600, 1.5)
    claim.settle(100, 0.125)
    assert left(budget) == (2, 900, 1.875)


def test_a_claim_is_settled_once() -> None:
    budget = Budget(3, 1_000, 2.0)
    claim = budget.claim(400, 0.5)
    claim.settle(100, 0.125)
    claim.settle(0, 0.0)
    claim.release()
    assert left(budget) == (2, 900, 1.875)


def test_a_call_that_was_not_made_takes_nothing() -> None:
    budget = Budget(3, 1_000, 2.0)
    claim = budget.claim(400, 0.5)
    claim.release()
    claim.release()
    claim.settle(100, 0.125)
    assert left(budget) == (3, 1_000, 2.0)


def test_more_than_was_claimed_is_settled_and_fails_the_next() -> None:
    budget = Budget(3, 1_000)
    budget.claim(400).settle(1_500, 0.0)
    assert budget.tokens_left == -500
    with pytest.raises(BudgetExceeded, match="tokens"):
        budget.claim(0)


@pytest.mark.parametrize(
    ("budget", "resource"),
    [
        (Budget(0, 1_000, 1.0), "calls"),
        (Budget(1, 99, 1.0), "tokens"),
        (Budget(1, 1_000, 0.4), "cost"),
        (Budget(1, 1_000, 1.0, time.monotonic() - 1), "time"),
        (Budget(1, 1_000, 1.0, time.monotonic() + 4), "time"),
    ],
)
def test_a_refused_claim_takes_nothing_and_says_what_is_short(
    budget: Budget, resource: str
) -> None:
    before = left(budget)
    with pytest.raises(BudgetExceeded) as caught:
        budget.claim(100, 0.5, seconds=5.0)
    assert caught.value.resource == resource
    assert left(budget) == before


def test_a_claim_may_take_all_that_is_left() -> None:
    budget = Budget(1, 100, 0.5)
    budget.claim(100, 0.5)
    assert left(budget) == (0, 0, 0.0)


def test_without_limits_money_and_time_do_not_end() -> None:
    budget = Budget(1, 100)
    assert budget.seconds_left == math.inf
    budget.claim(100, 1e9, seconds=1e9).settle(0, 1e9)
    assert budget.cost_left_usd == math.inf


EIGHTHS = st.integers(0, 40).map(lambda eighths: eighths / 8)  # sums of these are exact
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 60), EIGHTHS),
        st.tuples(st.just("settle"), st.integers(0, 60), EIGHTHS),
        st.tuples(st.just("release"), st.just(0), st.just(0.0)),
    ),
    max_size=40,
)


@given(st.integers(0, 12), st.integers(0, 300), EIGHTHS, STEPS, st.randoms(use_true_random=False))
def test_any_sequence_adds_up(
    calls: int, tokens: int, cost: float, steps: list[tuple[str, int, float]], chance: random.Random
) -> None:
    budget = Budget(calls, tokens, cost)
    claims: list[Claim] = []
    taken: list[tuple[int, int, float]] = []  # what every claim takes by now
    for kind, its_tokens, its_cost in steps:
        if kind == "claim":
            try:
                claims.append(budget.claim(its_tokens, its_cost))
            except BudgetExceeded:
                short = (
                    len([calls for calls, _, _ in taken if calls]) >= calls
                    or tokens - sum(used for _, used, _ in taken) < its_tokens
                    or cost - sum(used for _, _, used in taken) < its_cost
                )
                assert short
            else:
                taken.append((1, its_tokens, its_cost))
        elif claims:
            at = chance.randrange(len(claims))
            if kind == "release":
                taken[at] = taken[at] if claims[at].settled else (0, 0, 0.0)
                claims[at].release()
            else:
                taken[at] = taken[at] if claims[at].settled else (1, its_tokens, its_cost)
                claims[at].settle(its_tokens, its_cost)
        assert left(budget) == (
            calls - sum(used for used, _, _ in taken),
            tokens - sum(used for _, used, _ in taken),
            cost - sum(used for _, _, used in taken),
        )


@pytest.mark.parametrize("seed", range(5))
async def test_concurrent_calls_never_overrun_together(seed: int) -> None:
    chance = random.Random(seed)
    calls, tokens, cost = 60, 4_000, 50.0
    budget = Budget(calls, tokens, cost)
    open_claims: list[Claim] = []
    spent = [0, 0, 0.0]
    refused = 0

    async def call() -> None:
        nonlocal refused
        await asyncio.sleep(chance.random() / 500)
        try:
            claim = budget.claim(chance.randrange(50, 200), chance.randrange(8) / 4)
        except BudgetExceeded:
            refused += 1
            return
        open_claims.append(claim)
        spent[0] += 1
        assert spent[0] <= calls
        assert spent[1] + sum(one.tokens for one in open_claims) <= tokens
        assert spent[2] + sum(one.cost_usd for one in open_claims) <= cost
        await asyncio.sleep(chance.random() / 500)
        used = chance.randrange(claim.tokens), claim.cost_usd / 2
        claim.settle(*used)
        open_claims.remove(claim)
        spent[1] += used[0]
        spent[2] += used[1]

    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(call())

    assert refused == 200 - spent[0] > 0
    assert left(budget) == (calls - spent[0], tokens - spent[1], cost - spent[2])
