"""The chain over a server that fails in every way: full answers, on time, and honest counts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.llm import AnswerDegraded, ModelRejected, ReplyMode
from app.llm.client import OpenAIChat
from tests.app.recommend.with_model.support import (
    HISTORY,
    SEEN,
    TITLES,
    Shelf,
    ask,
    assert_answer,
    connected,
    ids,
    over,
    sensible,
    year_of,
)
from tests.servers.hostile import MODEL, Behaviour, HostileServer
from tree.item import Item

REJECTED = (Behaviour.MOVED, Behaviour.UNAUTHORIZED, Behaviour.UNKNOWN_MODEL)
_SLACK_S = 0.25


@pytest.fixture
async def hostile(hostile_server: HostileServer) -> AsyncIterator[OpenAIChat]:
    async with connected(hostile_server.base_url, MODEL) as chat:
        yield chat


@pytest.fixture
def wanted(demo_items: list[Item]) -> set[str]:
    return {item.id for item in demo_items} - SEEN


@pytest.fixture
def allowed(demo_items: list[Item]) -> Callable[[bool], set[str]]:
    """What may answer, from before 1950 or at all. A function: hypothesis prints every argument."""
    items = [item for item in demo_items if item.id not in {*SEEN, "film-metropolis"}]
    return lambda old: {item.id for item in items if not old or year_of(item) < 1950}


@settings(
    max_examples=32, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    script=st.lists(st.sampled_from([b for b in Behaviour if b not in REJECTED]), max_size=10),
    mode=st.sampled_from([ReplyMode.TEXT, ReplyMode.JSON_SCHEMA, ReplyMode.LOGPROBS]),
    strategy=st.sampled_from(["beam", "beam", "paper", "flat"]),
    effort=st.sampled_from(["auto", "economy", "balanced"]),
    user=st.integers(0, 3),
    old=st.booleans(),
)
async def test_whatever_the_server_does_an_answer_is_full_allowed_and_on_time(
    demo: Shelf,
    allowed: Callable[[bool], set[str]],
    hostile: OpenAIChat,
    hostile_server: HostileServer,
    script: list[Behaviour],
    mode: ReplyMode,
    strategy: str,
    effort: str,
    user: int,
    old: bool,
) -> None:
    if mode is ReplyMode.JSON_SCHEMA:  # which NO_SCHEMAS rejects
        script = [behaviour for behaviour in script if behaviour is not Behaviour.NO_SCHEMAS]
    hostile_server.reset()
    hostile_server.content = sensible
    hostile_server.play(script)
    request = ask(
        history=HISTORY,
        instruction=f"something for reader {user}",
        filter={"all": [{"field": "year", "lt": 1950}]} if old else None,
        exclude_items=["film-metropolis"],
        strategy=strategy,
        effort=effort,
        limit=30,
        timeout_ms=600,
    )
    began = time.monotonic()
    answer = await over(demo, hostile, mode, timeout_s=0.06).recommend(request)
    assert time.monotonic() - began < request.timeout_ms / 1000 + _SLACK_S
    assert_answer(answer, request, allowed(old))


@pytest.mark.parametrize("behaviour", REJECTED)
@pytest.mark.parametrize(
    ("strategy", "effort"), [("walk", "balanced"), ("paper", "balanced"), ("flat", "balanced")]
)
async def test_our_own_mistakes_never_degrade_an_answer(
    demo: Shelf,
    hostile: OpenAIChat,
    hostile_server: HostileServer,
    behaviour: Behaviour,
    strategy: str,
    effort: str,
) -> None:
    """What the endpoint refuses before it has answered at all."""
    hostile_server.play(repeat(behaviour))
    request = ask(history=HISTORY, strategy=strategy, effort=effort, timeout_ms=30_000)
    for _ in range(2):
        with pytest.raises(ModelRejected):
            await over(demo, hostile, ReplyMode.JSON_SCHEMA).recommend(request)


@pytest.mark.parametrize("behaviour", REJECTED)
@pytest.mark.parametrize(
    ("strategy", "effort"), [("walk", "balanced"), ("paper", "balanced"), ("flat", "balanced")]
)
async def test_what_an_endpoint_that_has_answered_refuses_degrades_loudly(
    demo: Shelf,
    hostile: OpenAIChat,
    hostile_server: HostileServer,
    wanted: set[str],
    behaviour: Behaviour,
    strategy: str,
    effort: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hostile_server.content = sensible
    request = ask(history=HISTORY, strategy=strategy, effort=effort, timeout_ms=30_000)
    recommender = over(demo, hostile, ReplyMode.JSON_SCHEMA)
    assert not (await recommender.recommend(request)).degraded
    hostile_server.play(repeat(behaviour))
    for _ in range(3):
        answer = await recommender.recommend(request)
        assert_answer(answer, request, wanted)
        assert answer.degraded_reason == "llm_unavailable"
    assert len([line for line in caplog.messages if "the endpoint answers" in line]) == 1
    hostile_server.reset()
    hostile_server.content = sensible
    assert not (await recommender.recommend(request)).degraded
    assert caplog.messages[-1] == f"{MODEL} answers again"


async def test_a_rejected_call_ends_the_others(
    demo: Shelf, hostile: OpenAIChat, hostile_server: HostileServer
) -> None:
    hostile_server.play(chain([Behaviour.UNAUTHORIZED], repeat(Behaviour.HANG)))
    recommender = over(demo, hostile, ReplyMode.JSON_SCHEMA)
    began, before = time.monotonic(), len(asyncio.all_tasks())
    with pytest.raises(ModelRejected):
        await recommender.recommend(ask(strategy="flat", timeout_ms=30_000))
    assert time.monotonic() - began < 5
    while len(asyncio.all_tasks()) > before:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.01)


_WELL = {"calls": 1, "fallbacks": 0}
_TWICE = {"calls": 2, "fallbacks": 1, "reason": "llm_invalid"}
_THRICE = {"calls": 3, "fallbacks": 1, "reason": "llm_unavailable"}
_ONCE = {"calls": 1, "fallbacks": 1, "reason": "llm_unavailable"}
_HUGE = {  # a reply that took all that the request may spend
    "calls": 1,
    "fallbacks": 1,
    "reason": "budget",
    "flaws": {"wrong_format": 1},
}
_LATE = {"calls": 1, "fallbacks": 1, "reason": "llm_timeout"}


@pytest.mark.parametrize(
    ("behaviour", "mode", "told"),
    [
        (Behaviour.WELL_FORMED, ReplyMode.JSON_SCHEMA, _WELL),
        (Behaviour.NO_USAGE, ReplyMode.JSON_SCHEMA, _WELL),
        (Behaviour.REPEATED_NUMBERS, ReplyMode.JSON_SCHEMA, _WELL | {"flaws": {"repeated": 2}}),
        (
            Behaviour.INVENTED_NUMBERS,
            ReplyMode.JSON_SCHEMA,
            _TWICE | {"flaws": {"out_of_range": 2}},
        ),
        (Behaviour.HALF_JSON, ReplyMode.JSON_SCHEMA, _WELL | {"flaws": {"wrong_format": 1}}),
        (Behaviour.CUT_BY_LENGTH, ReplyMode.JSON_OBJECT, _WELL | {"flaws": {"wrong_format": 1}}),
        (Behaviour.FOREIGN_PROSE, ReplyMode.TEXT, _WELL | {"flaws": {"wrong_format": 1}}),
        *(
            (behaviour, ReplyMode.JSON_SCHEMA, _TWICE | {"flaws": {"wrong_format": 2}})
            for behaviour in (
                Behaviour.WRONG_SHAPE,
                Behaviour.EMPTY,
                Behaviour.NULL,
                Behaviour.REFUSAL,
                Behaviour.FOREIGN_PROSE,
                Behaviour.NO_CHOICES,
                Behaviour.HALF_BODY,
            )
        ),
        (Behaviour.HUGE, ReplyMode.JSON_SCHEMA, _HUGE),
        (Behaviour.BUSY, ReplyMode.JSON_SCHEMA, _THRICE),
        (Behaviour.BUSY_RETRY_SOON, ReplyMode.JSON_SCHEMA, _THRICE),
        (Behaviour.BROKEN, ReplyMode.JSON_SCHEMA, _THRICE),
        (Behaviour.HTML, ReplyMode.JSON_SCHEMA, _THRICE),
        (Behaviour.RESET, ReplyMode.JSON_SCHEMA, _THRICE),
        (Behaviour.BUSY_RETRY_LATE, ReplyMode.JSON_SCHEMA, _ONCE),
        (Behaviour.OUT_OF_QUOTA, ReplyMode.JSON_SCHEMA, _ONCE),
        (Behaviour.HANG, ReplyMode.JSON_SCHEMA, _LATE),
        (Behaviour.DRIP, ReplyMode.JSON_SCHEMA, _LATE),
    ],
)
async def test_what_goes_wrong_is_counted_by_its_kind(
    demo: Shelf,
    hostile: OpenAIChat,
    hostile_server: HostileServer,
    wanted: set[str],
    behaviour: Behaviour,
    mode: ReplyMode,
    told: dict,
) -> None:
    hostile_server.content = sensible
    hostile_server.play(repeat(behaviour))
    request = ask(history=HISTORY[:1], effort="economy", timeout_ms=5_000)
    quick = 0.15 if behaviour in (Behaviour.HANG, Behaviour.DRIP) else 5.0
    answer = await over(demo, hostile, mode, timeout_s=quick).recommend(request)
    assert_answer(answer, request, wanted)
    usage = answer.usage
    assert answer.degraded_reason == told.get("reason")
    assert usage.calls == hostile_server.counts[behaviour] == told["calls"]
    assert usage.fallbacks == told["fallbacks"]
    assert usage.invalid_replies == told.get("flaws", {})
    assert usage.stages["recall"].calls == usage.calls


async def test_none_of_them_is_an_answer_and_is_counted(
    demo: Shelf, hostile: OpenAIChat, hostile_server: HostileServer, wanted: set[str]
) -> None:
    hostile_server.content = lambda prompt: '{"picks": []}'
    request = ask(history=HISTORY[:1], effort="economy")
    answer = await over(demo, hostile, ReplyMode.JSON_SCHEMA).recommend(request)
    assert_answer(answer, request, wanted)
    assert answer.usage.invalid_replies == {"missing": 1}
    assert not answer.degraded


@pytest.mark.parametrize(
    "behaviour", [Behaviour.BUSY_RETRY_SOON, Behaviour.BROKEN, Behaviour.RESET, Behaviour.HTML]
)
async def test_a_passing_fault_is_overcome(
    demo: Shelf,
    hostile: OpenAIChat,
    hostile_server: HostileServer,
    wanted: set[str],
    behaviour: Behaviour,
) -> None:
    hostile_server.content = sensible
    hostile_server.play([behaviour])
    request = ask(history=HISTORY, effort="economy")
    answer = await over(demo, hostile, ReplyMode.JSON_SCHEMA).recommend(request)
    assert_answer(answer, request, wanted)
    assert (answer.degraded, answer.usage.calls) == (False, 2)


async def test_a_reader_is_profiled_once(
    demo: Shelf, hostile: OpenAIChat, hostile_server: HostileServer, wanted: set[str]
) -> None:
    hostile_server.content = sensible
    recommender = over(demo, hostile, ReplyMode.JSON_SCHEMA)
    request = ask(history=HISTORY, limit=15, effort="balanced")
    cold, warm = [await recommender.recommend(request) for _ in range(2)]
    for answer in (cold, warm):
        assert_answer(answer, request, wanted)
        assert not answer.degraded
    assert cold.usage.stages["profile"].calls == 1
    assert warm.usage.stages["profile"].calls == 0
    assert hostile_server.counts.total() == cold.usage.calls + warm.usage.calls
    for answer in (cold, warm):
        trace: Any = await recommender.trace(answer.recommendation_id)
        assert trace["expected"] == TITLES
    await recommender.recommend(ask(history=HISTORY[:2], effort="balanced"))
    prompts = [body["messages"][-1]["content"] for body in hostile_server.requests]
    assert sum(prompt.startswith("Chosen, latest first:") for prompt in prompts) == 2


@pytest.mark.parametrize("strategy", ["beam", "paper", "flat"])
async def test_who_wants_no_lesser_answer_gets_none(
    demo: Shelf, hostile: OpenAIChat, hostile_server: HostileServer, strategy: str
) -> None:
    hostile_server.play(repeat(Behaviour.OUT_OF_QUOTA))
    recommender = over(demo, hostile, ReplyMode.JSON_SCHEMA)
    request = ask(history=HISTORY, strategy=strategy, on_degraded="error")
    with pytest.raises(AnswerDegraded) as told:
        await recommender.recommend(request)
    assert told.value.reason == "llm_unavailable"


@pytest.mark.parametrize(
    ("strategy", "mode"),
    [
        ("beam", ReplyMode.JSON_SCHEMA),
        ("beam", None),
        ("paper", ReplyMode.JSON_SCHEMA),
        ("flat", ReplyMode.JSON_SCHEMA),
    ],
)
async def test_a_server_that_hangs_does_not_delay_an_answer(
    demo: Shelf,
    hostile: OpenAIChat,
    hostile_server: HostileServer,
    wanted: set[str],
    strategy: str,
    mode: ReplyMode | None,
) -> None:
    hostile_server.play(repeat(Behaviour.HANG))
    request = ask(history=HISTORY, strategy=strategy, timeout_ms=1_000, limit=100)
    began = time.monotonic()
    answer = await over(demo, hostile, mode).recommend(request)
    assert time.monotonic() - began < request.timeout_ms / 1000 + _SLACK_S
    assert_answer(answer, request, wanted)
    assert answer.degraded_reason == "llm_timeout"


async def test_a_server_that_does_not_answer_a_probe_is_asked_no_more(
    demo: Shelf, hostile: OpenAIChat, hostile_server: HostileServer, wanted: set[str]
) -> None:
    hostile_server.play([Behaviour.UNAVAILABLE])
    hostile_server.content = sensible
    recommender = over(demo, hostile, None)
    request = ask(history=HISTORY)
    answer = await recommender.recommend(request)
    assert_answer(answer, request, wanted)
    assert answer.degraded_reason == "llm_unavailable"
    assert hostile_server.counts.total() == 1
    assert not (await recommender.recommend(request)).degraded  # it is back


async def test_the_best_form_that_works_is_found(
    demo: Shelf, hostile: OpenAIChat, hostile_server: HostileServer, wanted: set[str]
) -> None:
    hostile_server.play(repeat(Behaviour.NO_SCHEMAS))
    hostile_server.content = lambda prompt: "1: 90\n2: 80 (1)"
    recommender = over(demo, hostile, None)
    request = ask(history=HISTORY, effort="economy")
    answer = await recommender.recommend(request)
    assert_answer(answer, request, wanted)
    assert not answer.degraded
    trace: Any = await recommender.trace(answer.recommendation_id)
    assert trace["reply_mode"] == ReplyMode.TEXT
    asked = hostile_server.counts.total()
    await over(demo, hostile, None).recommend(request)  # remembered beyond this one
    assert hostile_server.counts.total() == asked + 1


async def test_a_prompt_follows_only_what_it_depends_on(
    demo: Shelf, hostile: OpenAIChat, hostile_server: HostileServer
) -> None:
    hostile_server.content = sensible
    recommender = over(demo, hostile, ReplyMode.JSON_SCHEMA)
    answers = [
        await recommender.recommend(ask(history=HISTORY, user_id="a", effort=effort))
        for effort in ("economy", "economy", "balanced", "balanced", "balanced")
    ]
    assert ids(answers[0]) == ids(answers[1])
    assert ids(answers[3]) == ids(answers[4])


@pytest.mark.parametrize("strategy", ["beam", "paper", "flat"])
async def test_nobody_is_asked_where_nothing_is_allowed(
    demo: Shelf, hostile: OpenAIChat, hostile_server: HostileServer, strategy: str
) -> None:
    recommender = over(demo, hostile, ReplyMode.JSON_SCHEMA)
    request = ask(history=HISTORY, domains=["opera"], strategy=strategy)
    answer = await recommender.recommend(request)
    assert_answer(answer, request, [])
    assert answer.usage.calls == hostile_server.counts.total() == 0
