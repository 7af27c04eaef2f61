"""The whole chain over llama.cpp, whose model has random weights: anything may be said."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.llm import ReplyMode
from app.llm.client import OpenAIChat
from tests.app.recommend.with_model.support import (
    HISTORY,
    PRICE,
    SEEN,
    Shelf,
    ask,
    assert_answer,
    connected,
    over,
    year_of,
)
from tests.servers.llama import MODEL
from tree.item import Item

OUT = {"film-stalker", "film-arrival"}
PICKY = {
    "history": HISTORY,
    "exclude_items": [*OUT, "nowhere-either"],
    "filter": {"all": [{"field": "year", "gte": 1950}]},
    "domains": ["films"],
    "limit": 20,
    "timeout_ms": 60_000,
}


@pytest.fixture
async def llama(llama_url: str) -> AsyncIterator[OpenAIChat]:
    async with connected(llama_url, MODEL) as chat:
        yield chat


@pytest.fixture
def wanted(demo_items: list[Item]) -> set[str]:
    """What may answer PICKY."""
    films = [item for item in demo_items if item.domain == "films"]
    new = {item.id for item in films if year_of(item) >= 1950}
    return new - SEEN - OUT


@pytest.mark.parametrize(
    ("strategy", "effort", "mode"),
    [
        ("beam", "economy", ReplyMode.JSON_SCHEMA),
        ("beam", "economy", ReplyMode.LOGPROBS),
        ("beam", "balanced", None),
        ("beam", "balanced", ReplyMode.JSON_OBJECT),
        ("beam", "balanced", ReplyMode.TEXT),
        ("beam", "balanced", ReplyMode.LOGPROBS),
        ("walk", "auto", ReplyMode.JSON_SCHEMA),
        ("paper", "balanced", ReplyMode.JSON_SCHEMA),
        ("paper", "balanced", ReplyMode.LOGPROBS),
        ("flat", "balanced", ReplyMode.JSON_SCHEMA),
    ],
)
async def test_every_way_through_the_chain(
    demo: Shelf,
    llama: OpenAIChat,
    wanted: set[str],
    strategy: str,
    effort: str,
    mode: ReplyMode | None,
) -> None:
    recommender = over(demo, llama, mode, price=PRICE)
    request = ask(**PICKY, strategy=strategy, effort=effort)
    answer = await recommender.recommend(request)
    assert_answer(answer, request, wanted, PRICE)
    assert answer.absent_items == ["nowhere"]
    assert answer.usage.calls >= answer.usage.rounds > 0
    assert answer.usage.input_tokens > 500 * answer.usage.calls
    assert answer.usage.output_tokens >= answer.usage.calls
    stages = {stage for stage, spent in answer.usage.stages.items() if spent.calls}
    expected = {"walk": {"profile", "search", "recall"}, "beam": {"recall"}}
    assert stages >= expected.get(strategy, set())
    assert ("profile" in stages) >= (effort == "balanced" and strategy == "beam")
    trace: Any = await recommender.trace(answer.recommendation_id)
    assert len(trace["calls"]) == answer.usage.calls
    assert {call["model"] for call in trace["calls"]} == {MODEL}
    assert {call["outcome"] for call in trace["calls"]} == {"answered"}
    assert (trace["strategy"], trace["effort"]) == (strategy, effort)
    assert trace["reply_mode"] == (mode or ReplyMode.JSON_SCHEMA)


async def test_the_embedded_strategy_asks_nobody(
    demo: Shelf, llama: OpenAIChat, wanted: set[str]
) -> None:
    request = ask(**PICKY, strategy="embedded")
    answer = await over(demo, llama, None).recommend(request)
    assert_answer(answer, request, wanted)
    assert (answer.usage.calls, answer.degraded) == (0, False)


async def test_a_list_may_be_longer_than_what_a_model_sees(
    demo: Shelf, llama: OpenAIChat, demo_items: list[Item]
) -> None:
    request = ask(profile="slow science fiction", limit=100, effort="economy", timeout_ms=60_000)
    recommender = over(demo, llama, ReplyMode.JSON_SCHEMA)
    answer = await recommender.recommend(request)
    assert_answer(answer, request, [item.id for item in demo_items])
    few = {item.id for item in demo_items if year_of(item) < 1850}
    old = ask(filter={"all": [{"field": "year", "lt": 1850}]}, limit=100, timeout_ms=60_000)
    assert_answer(await recommender.recommend(old), old, few)
