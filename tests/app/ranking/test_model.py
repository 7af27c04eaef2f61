"""A model scores any number of options; the embedded ranker stands in where it fails."""

import asyncio
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.budget import Budget
from app.llm.ask import Price
from app.llm.chat import Reply, ScriptedChat, TokenUsage, Turn
from app.llm.errors import ModelRejected, ModelUnavailable
from app.llm.ledger import STAGES, RequestLedger, StageModel
from app.llm.slates import ReplyMode
from app.ranking.fusion import FloatArray
from app.ranking.model_ranker import ANCHORS, ModelRanker, Question, packed
from prompts import load

MODE = ReplyMode.JSON_SCHEMA
Script = Callable[[Turn], Reply | Awaitable[Reply]]


def question(count: int, columns: int = 1, *, seed: int = 5, wanted: int = 64) -> Question:
    similarity = np.random.default_rng(count).random((count, columns), np.float32)
    options = [f"film-{number}" for number in range(count)]
    interests = [f"interest {number}" for number in range(columns)]
    return Question(load("recall"), options, similarity, "Asks for: films", interests, wanted, seed)


def ledger(script: Script, budget: Budget | None = None, price: Price = Price()) -> RequestLedger:  # noqa: B008
    models = dict.fromkeys(STAGES, StageModel(ScriptedChat(script), price))
    return RequestLedger(models, 5.0, budget or Budget(99, 10**6, deadline=time.monotonic() + 60))


def shown(turn: Turn) -> list[int]:
    """The options that a turn lists, in its order."""
    return [
        int(number) for number in re.findall(r"film-(\d+)$", turn.messages[1].content, re.MULTILINE)
    ]


def marked(options: Sequence[int], worth: FloatArray, offset: float = 0.0) -> Reply:
    """A reply that gives every option its worth, of each interest."""
    columns = worth.shape[1]
    picks = [
        {"n": at, "score": float(100 * (worth[option, column] + offset))}
        | ({"for": column + 1} if columns > 1 else {})
        for at, option in enumerate(options, 1)
        for column in range(columns)
    ]
    return Reply(json.dumps({"picks": picks}), usage=TokenUsage(100, 10))


def worth_of(count: int, columns: int = 1) -> FloatArray:
    return np.random.default_rng(99).uniform(0.2, 0.8, (count, columns)).astype(np.float32)


# -- packing


@given(
    st.integers(1, 400), st.sampled_from([20, 64]), st.integers(0, 12), st.integers(0, 9)
)  # fmt: skip
def test_every_option_is_in_one_slate_and_anchors_are_in_all(
    count: int, width: int, anchors: int, seed: int
) -> None:
    asked = replace(question(count, 2, seed=seed), anchors=anchors)
    parts, shared = packed(asked, width)
    assert all(len(part) <= width for part in parts)
    assert all(len(set(part.tolist())) == len(part) for part in parts)
    own = [option for part in parts for option in np.setdiff1d(part, shared).tolist()]
    assert sorted([*own, *shared.tolist()]) == list(range(count))
    assert all(np.isin(shared, part).all() for part in parts)
    assert len(shared) == (min(anchors, width // 4) if count > width else 0)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    fewest = 1 if count <= width else -(-(count - len(shared)) // (width - len(shared)))
    assert len(parts) == fewest


def test_the_modes_have_their_widths() -> None:
    assert len(packed(question(64), MODE.width)[0]) == 1
    assert len(packed(question(65), MODE.width)[0]) == 2
    assert len(packed(question(20), ReplyMode.LOGPROBS.width)[0]) == 1
    assert len(packed(question(21), ReplyMode.LOGPROBS.width)[0]) == 2


@pytest.mark.parametrize("count", [30, 200])
def test_a_seed_decides_the_order_and_nothing_else(count: int) -> None:
    first, _ = packed(question(count, seed=1), 64)
    again, _ = packed(question(count, seed=1), 64)
    other, _ = packed(question(count, seed=2), 64)
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert [part.tolist() for part in first] != [part.tolist() for part in other]
    assert [set(part.tolist()) for part in first] == [set(part.tolist()) for part in other]


def test_every_slate_has_its_share_of_what_is_near() -> None:
    asked = question(200)
    parts, anchors = packed(asked, 64)
    best = np.argsort(-asked.similarity[:, 0])[:40]
    shares = [np.isin(part, np.setdiff1d(best, anchors)).sum() for part in parts]
    assert max(shares) - min(shares) <= 1


def test_what_is_near_does_not_come_first() -> None:
    asked = question(64)
    firsts = [packed(replace(asked, seed=seed), 64)[0][0][0] for seed in range(50)]
    assert len(set(map(int, firsts))) > 20


# -- scoring


async def test_one_slate_is_scored_as_the_model_says() -> None:
    asked, worth = question(30, 2), worth_of(30, 2)
    ledger_ = ledger(lambda turn: marked(shown(turn), worth))
    found = await ModelRanker(ledger_, MODE).score("recall", asked)
    assert found == pytest.approx(worth, abs=1e-6)
    spent = ledger_.totals["recall"]
    assert (spent.calls, spent.rounds, spent.input_tokens, spent.fallbacks) == (1, 1, 100, 0)
    assert ledger_.degraded is None
    assert ledger_.totals["search"].rounds == 0


@pytest.mark.parametrize("columns", [1, 3])
async def test_slates_that_were_judged_apart_are_comparable(columns: int) -> None:
    asked, worth = question(200, columns), worth_of(200, columns)
    offsets = iter((-0.15, 0.0, 0.1, 0.05))
    turns: list[Turn] = []

    def answer(turn: Turn) -> Reply:
        turns.append(turn)
        return marked(shown(turn), worth, next(offsets))

    ledger_ = ledger(answer)
    found = await ModelRanker(ledger_, MODE).score("search", asked)
    assert found == pytest.approx(worth, abs=1e-5)
    assert len(turns) == 4
    assert (ledger_.totals["search"].calls, ledger_.totals["search"].rounds) == (4, 1)
    assert all(turn.seed == asked.seed for turn in turns)
    anchors = set.intersection(*(set(shown(turn)) for turn in turns))
    assert len(anchors) == ANCHORS


async def test_slates_are_asked_at_once() -> None:
    everyone = asyncio.Barrier(4)
    worth = worth_of(200)

    async def answer(turn: Turn) -> Reply:
        await everyone.wait()
        return marked(shown(turn), worth)

    async with asyncio.timeout(5):
        found = await ModelRanker(ledger(answer), MODE).score("recall", question(200))
    assert found == pytest.approx(worth, abs=1e-5)


async def test_letters_take_narrow_slates() -> None:
    turns: list[Turn] = []

    def answer(turn: Turn) -> Reply:
        turns.append(turn)
        return Reply(letters={letter: -at for at, letter in enumerate("ABCDEFGHIJKLMNOPQRST")})

    found = await ModelRanker(ledger(answer), ReplyMode.LOGPROBS).score("recall", question(50))
    assert np.isfinite(found).all()
    assert [len(shown(turn)) <= 20 for turn in turns] == [True] * 3


async def test_no_options_need_no_model() -> None:
    def never(_: Turn) -> Reply:
        raise AssertionError

    ledger_ = ledger(never)
    asked = replace(question(1, 3), options=[], similarity=np.zeros((0, 3), np.float32))
    assert (await ModelRanker(ledger_, MODE).score("recall", asked)).shape == (0, 3)
    assert ledger_.totals["recall"].rounds == 0


async def test_what_the_model_leaves_unsaid_is_worth_less_than_what_it_names() -> None:
    reply = Reply('{"picks": [{"n": 1, "score": 80}, {"n": 2, "score": 30}]}')
    seen: list[Turn] = []

    def answer(turn: Turn) -> Reply:
        seen.append(turn)
        return reply

    found = await ModelRanker(ledger(answer), MODE).score("recall", question(10))
    first, second, *others = shown(seen[0])
    assert found[first, 0] == pytest.approx(0.8)
    assert found[second, 0] == pytest.approx(0.3)
    assert found[others, 0] == pytest.approx([0.05] * 8)


async def test_flaws_of_used_replies_are_counted() -> None:
    reply = Reply('{"picks": [{"n": 1, "score": 80}, {"n": 1, "score": 7}, {"n": 99, "score": 7}]}')
    ledger_ = ledger(lambda _: reply)
    await ModelRanker(ledger_, MODE).score("recall", question(10))
    assert ledger_.totals["recall"].flaws == {"repeated": 1, "out_of_range": 1}
    assert ledger_.degraded is None


async def test_order_and_wording_repeat_with_the_seed() -> None:
    seen: list[Turn] = []

    def answer(turn: Turn) -> Reply:
        seen.append(turn)
        return marked(shown(turn), worth_of(150))

    for seed in (1, 1, 2):
        await ModelRanker(ledger(answer), MODE).score("recall", question(150, seed=seed))
    first, again, other = ([turn.messages for turn in seen[at : at + 3]] for at in (0, 3, 6))
    assert first == again
    assert first != other


# -- failing


def failing(at: int, worth: FloatArray, error: Exception | Reply) -> tuple[Script, list[list[int]]]:
    """A model that fails for the slate of the option `at`, and the slates it has failed."""
    failed: list[list[int]] = []

    def answer(turn: Turn) -> Reply:
        options = shown(turn)
        if at not in options:
            return marked(options, worth)
        failed.append(options)
        if isinstance(error, Exception):
            raise error
        return error

    return answer, failed


def own_options(asked: Question) -> list[list[int]]:
    """Of each slate, those that are in no other."""
    parts, anchors = packed(asked, MODE.width)
    return [np.setdiff1d(part, anchors).tolist() for part in parts]


@pytest.mark.parametrize(
    ("error", "reason", "tries"),
    [
        (ModelUnavailable("down"), "llm_unavailable", 1),
        (ModelUnavailable("slow", timed_out=True), "llm_timeout", 1),
        (ModelUnavailable("busy", retry_after_s=0.0), "llm_unavailable", 3),
        (Reply("what?"), "llm_invalid", 2),
    ],
)
async def test_a_slate_that_fails_falls_back_on_the_scale_of_the_others(
    error: Exception | Reply, reason: str, tries: int
) -> None:
    asked = question(200)
    worth = (
        0.25 + 0.5 * asked.similarity
    )  # the model agrees with the embedded ranker, on its own scale
    lost = own_options(asked)[2]
    # The first one that is shown stays when the slate is halved.
    first = next(one for one in packed(asked, MODE.width)[0][2].tolist() if one in lost)
    script, failed = failing(first, worth, error)
    ledger_ = ledger(script)
    found = await ModelRanker(ledger_, MODE).score("recall", asked)
    others = np.setdiff1d(np.arange(200), lost)
    assert found[others] == pytest.approx(worth[others], abs=1e-5)
    assert found[lost] == pytest.approx(worth[lost], abs=1e-3)
    assert len(failed) == tries
    assert ledger_.totals["recall"].fallbacks == 1
    assert ledger_.degraded == reason


async def test_an_invalid_reply_is_asked_for_again_with_half_of_the_slate() -> None:
    asked, worth = question(40), worth_of(40)
    slates: list[list[int]] = []

    def answer(turn: Turn) -> Reply:
        slates.append(shown(turn))
        return Reply("what?") if len(slates) == 1 else marked(slates[-1], worth)

    ledger_ = ledger(answer)
    found = await ModelRanker(ledger_, MODE).score("recall", asked)
    whole, half = slates
    assert half == whole[:20]
    assert found[half] == pytest.approx(worth[half], abs=1e-6)
    assert np.isfinite(found).all()
    rest = whole[20:]
    assert np.array_equal(np.argsort(found[rest, 0]), np.argsort(asked.similarity[rest, 0]))
    assert float(found[rest].mean()) == pytest.approx(
        float(worth[half].mean())
        + float(worth[half].std() / asked.similarity[half].std())
        * float(asked.similarity[rest].mean() - asked.similarity[half].mean()),
        abs=1e-4,
    )
    assert ledger_.totals["recall"].flaws == {"wrong_format": 1}
    assert ledger_.totals["recall"].fallbacks == 0
    assert ledger_.degraded is None


async def test_a_halved_slate_is_brought_to_the_scale_of_the_others() -> None:
    asked, worth = question(200), worth_of(200)
    offsets = iter((-0.1, 0.1, 0.05, -0.05))
    broken = packed(asked, MODE.width)[0][1].tolist()
    slates: list[list[int]] = []

    def answer(turn: Turn) -> Reply:
        options = shown(turn)
        slates.append(options)
        return Reply("what?") if options == broken else marked(options, worth, next(offsets))

    found = await ModelRanker(ledger(answer), MODE).score("recall", asked)
    assert len(slates) == 5
    heard = sorted({option for slate in slates if slate != broken for option in slate})
    assert found[heard] == pytest.approx(worth[heard], abs=1e-5)
    assert np.isfinite(found).all()


async def test_one_option_is_asked_for_again_whole() -> None:
    slates: list[list[int]] = []

    def answer(turn: Turn) -> Reply:
        slates.append(shown(turn))
        return Reply("what?") if len(slates) == 1 else marked(slates[-1], worth_of(1))

    found = await ModelRanker(ledger(answer), MODE).score("recall", question(1))
    assert slates == [[0], [0]]
    assert found == pytest.approx(worth_of(1), abs=1e-6)


@pytest.mark.parametrize("count", [30, 200])
async def test_when_all_fail_the_embedded_scores_stand_in(count: int) -> None:
    def down(_: Turn) -> Reply:
        raise ModelUnavailable("down")

    asked, ledger_ = question(count, 2), ledger(down)
    found = await ModelRanker(ledger_, MODE).score("recall", asked)
    assert np.array_equal(found, asked.similarity)
    assert found is not asked.similarity
    assert ledger_.totals["recall"].fallbacks == len(packed(asked, MODE.width)[0])
    assert ledger_.degraded == "llm_unavailable"


@pytest.mark.parametrize("near", [0.0, 0.5, -1.0])
async def test_embedded_scores_that_are_all_equal_still_stand_in(near: float) -> None:
    asked = question(200)
    asked = replace(asked, similarity=np.full_like(asked.similarity, near))
    lost = packed(asked, MODE.width)[0][0].tolist()
    script, _ = failing(own_options(asked)[0][0], worth_of(200), ModelUnavailable("down"))
    found = await ModelRanker(ledger(script), MODE).score("recall", asked)
    assert np.isfinite(found).all()
    assert found[np.setdiff1d(lost, packed(asked, MODE.width)[1])].std() < 1e-6


async def test_a_rejected_call_is_raised_and_ends_the_others() -> None:
    ended: list[bool] = []
    others, forever = asyncio.Barrier(4), asyncio.Event()
    first = packed(question(200), MODE.width)[0][0].tolist()

    async def answer(turn: Turn) -> Reply:
        await others.wait()
        if shown(turn) == first:
            raise ModelRejected("wrong key")
        try:
            await forever.wait()
        finally:
            ended.append(True)
        raise AssertionError

    ledger_ = ledger(answer)
    async with asyncio.timeout(5):
        with pytest.raises(ModelRejected, match="wrong key"):
            await ModelRanker(ledger_, MODE).score("recall", question(200))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(ended) == 3
    assert ledger_.degraded is None
    assert ledger_.totals["recall"].fallbacks == 0


async def test_cancelling_a_question_settles_all_its_calls() -> None:
    running = asyncio.Barrier(5)

    async def hang(_: Turn) -> Reply:
        await running.wait()
        await asyncio.Event().wait()
        raise AssertionError

    ledger_ = ledger(hang)
    scoring = asyncio.create_task(ModelRanker(ledger_, MODE).score("recall", question(200)))
    async with asyncio.timeout(5):
        await running.wait()
        scoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scoring
    spent = ledger_.totals["recall"]
    assert spent.calls == 4
    assert ledger_.budget.tokens_left == 10**6 - spent.input_tokens


# -- budgets


@pytest.mark.parametrize(
    ("budget", "calls", "reason"),
    [
        (lambda: Budget(2, 10**6), 2, "budget"),
        (lambda: Budget(0, 10**6), 0, "budget"),
        (lambda: Budget(9, 10), 0, "budget"),
        (lambda: Budget(9, 10**6, 0.0), 0, "budget"),
        (lambda: Budget(9, 10**6, deadline=-math.inf), 0, "llm_timeout"),
    ],
)
async def test_what_the_budget_does_not_allow_is_left_to_the_embedded_ranker(
    budget: Callable[[], Budget], calls: int, reason: str
) -> None:
    asked = question(200)
    worth = 0.25 + 0.5 * asked.similarity
    seen: list[list[int]] = []

    async def answer(turn: Turn) -> Reply:
        seen.append(options := shown(turn))
        await asyncio.sleep(0.001)
        return marked(options, worth)

    ledger_ = ledger(answer, budget(), Price(1.0, 1.0))
    found = await ModelRanker(ledger_, MODE).score("recall", asked)
    assert len(seen) == calls == ledger_.totals["recall"].calls
    assert ledger_.totals["recall"].fallbacks == 4 - calls
    assert ledger_.degraded == reason
    heard = sorted({option for slate in seen for option in slate})
    assert found[heard] == pytest.approx(worth[heard], abs=1e-5)
    assert found == pytest.approx(worth if calls else asked.similarity, abs=1e-3)
