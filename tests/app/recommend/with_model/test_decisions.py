"""The chain over /v1/decisions: no text, a chance for every option."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.llm import ReplyMode
from app.llm.client import OpenAIChat
from tests.app.recommend.with_model.support import (
    HISTORY,
    SEEN,
    Shelf,
    ask,
    assert_answer,
    connected,
    over,
)
from tests.servers.decisions import DecisionsServer
from tree.item import Item

REQUEST = {"history": HISTORY, "limit": 15, "timeout_ms": 30_000}


@pytest.fixture
async def decider(decisions_server: DecisionsServer) -> AsyncIterator[OpenAIChat]:
    async with connected(decisions_server.base_url, "decider") as chat:
        yield chat


@pytest.fixture
def wanted(demo_items: list[Item]) -> set[str]:
    return {item.id for item in demo_items} - SEEN


async def test_a_level_is_one_request_with_a_choice_per_interest(
    demo: Shelf, decider: OpenAIChat, decisions_server: DecisionsServer, wanted: set[str]
) -> None:
    recommender = over(demo, decider, ReplyMode.DECISIONS)
    request = ask(**REQUEST, strategy="walk")
    answer = await recommender.recommend(request)
    assert_answer(answer, request, wanted)
    spent = answer.usage.stages
    trace: Any = await recommender.trace(answer.recommendation_id)
    interests = len(trace["interests"])
    assert interests > 1
    sent = decisions_server.requests
    assert len(sent) == spent["search"].calls + spent["recall"].calls
    assert spent["search"].calls == spent["search"].rounds == 1
    kinds = [{question["type"] for question in body["questions"]} for body in sent]
    assert kinds == [{"choice"}] * len(sent)
    counts = [len(body["questions"]) for body in sent]
    assert counts == [interests] * len(sent)
    for body in sent:
        lines = body["input"][-1]["content"].split("\n\n")[0].splitlines()[1:]
        offered = {len(question["choices"]) for question in body["questions"]}
        assert offered == {len(lines)}
    assert answer.usage.output_tokens == 0 < answer.usage.input_tokens


async def test_an_endpoint_that_writes_no_text_costs_the_profile(
    demo: Shelf, decider: OpenAIChat, wanted: set[str]
) -> None:
    request = ask(**REQUEST, effort="balanced")
    answer = await over(demo, decider, ReplyMode.DECISIONS).recommend(request)
    assert answer.degraded_reason == "llm_unavailable"
    assert answer.usage.fallbacks == answer.usage.stages["profile"].fallbacks == 1
    economy = ask(**REQUEST, effort="economy")
    answer = await over(demo, decider, ReplyMode.DECISIONS).recommend(economy)
    assert_answer(answer, economy, wanted)
    assert not answer.degraded


async def test_predicates_ask_about_every_option(
    demo: Shelf, decider: OpenAIChat, decisions_server: DecisionsServer, wanted: set[str]
) -> None:
    request = ask(**REQUEST, effort="economy")
    answer = await over(demo, decider, ReplyMode.PREDICATES).recommend(request)
    assert_answer(answer, request, wanted)
    assert not answer.degraded
    (sent,) = decisions_server.requests
    assert {question["type"] for question in sent["questions"]} == {"predicate"}
    assert len(sent["questions"]) == 60


@pytest.mark.parametrize("mode", [ReplyMode.DECISIONS, ReplyMode.PREDICATES])
@pytest.mark.parametrize(
    ("refused", "answers", "options", "degraded"),
    [
        ({0}, None, None, False),
        (set(), 1, None, False),
        (set(), None, 3, False),
        (set(range(400)), None, None, True),
        (set(), 0, None, True),
        (set(), None, 0, True),
    ],
)
async def test_what_is_not_answered_is_filled_in(
    demo: Shelf,
    decider: OpenAIChat,
    decisions_server: DecisionsServer,
    wanted: set[str],
    mode: ReplyMode,
    refused: set[int],
    answers: int | None,
    options: int | None,
    degraded: bool,
) -> None:
    decisions_server.refused = refused
    decisions_server.answers_at_most = answers
    decisions_server.options_at_most = options
    request = ask(**REQUEST, effort="economy")
    answer = await over(demo, decider, mode).recommend(request)
    assert_answer(answer, request, wanted)
    if mode is ReplyMode.PREDICATES and options is not None:
        degraded = False  # a predicate has no options to leave out
    assert answer.degraded_reason == ("llm_invalid" if degraded else None)
    counted = answer.usage.invalid_replies.get("missing", 0)
    assert bool(counted) == (degraded or bool(refused) or answers is not None)
