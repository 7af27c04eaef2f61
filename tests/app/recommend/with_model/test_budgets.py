"""Money and time of a request, as the answer reports them."""

import asyncio
from typing import Any

import pytest

from app.llm import ReplyMode
from tests.app.recommend.with_model.support import (
    HISTORY,
    PRICE,
    SEEN,
    Shelf,
    ask,
    assert_answer,
    connected,
    ids,
    over,
    sensible,
)
from tests.servers.hostile import MODEL, HostileServer
from tree.item import Item


@pytest.mark.parametrize("effort", ["economy", "balanced"])
async def test_no_request_spends_more_than_it_may(
    demo: Shelf, hostile_server: HostileServer, demo_items: list[Item], effort: str
) -> None:
    hostile_server.content = sensible
    wanted = {item.id for item in demo_items} - SEEN
    limits = (0.0, 1e-6, 0.002, 0.004, 0.01, 0.03, 10.0)
    requests = [
        ask(
            history=HISTORY,
            user_id=f"u{limit}",
            instruction=f"reader {limit}",
            max_cost_usd=limit,
            effort=effort,
            timeout_ms=30_000,
        )
        for limit in limits
    ]
    async with connected(hostile_server.base_url, MODEL) as chat:
        recommender = over(demo, chat, ReplyMode.JSON_SCHEMA, price=PRICE)
        answers = await asyncio.gather(*map(recommender.recommend, requests))
    for limit, request, answer in zip(limits, requests, answers, strict=True):
        assert_answer(answer, request, wanted, PRICE)
        assert answer.usage.cost_usd <= limit
    assert [answer.degraded_reason for answer in answers[:2]] == ["budget"] * 2
    assert [answer.usage.calls for answer in answers[:2]] == [0, 0]
    assert answers[-1].degraded_reason is None
    assert answers[-1].usage.cost_usd > 0
    calls = [answer.usage.calls for answer in answers]
    assert calls == sorted(calls)
    assert sum(calls) == hostile_server.counts.total()


async def test_a_budget_is_said_in_the_answer_and_the_trace(
    demo: Shelf, hostile_server: HostileServer
) -> None:
    hostile_server.content = sensible
    async with connected(hostile_server.base_url, MODEL) as chat:
        recommender = over(demo, chat, ReplyMode.JSON_SCHEMA, price=PRICE)
        answer = await recommender.recommend(
            ask(history=HISTORY, effort="balanced", max_cost_usd=0.006)
        )
    assert answer.degraded_reason == "budget"
    assert 0 < answer.usage.cost_usd <= 0.006
    trace: Any = await recommender.trace(answer.recommendation_id)
    assert trace["degraded_reason"] == "budget"
    assert trace["usage"]["cost_usd"] == answer.usage.cost_usd
    assert len(trace["calls"]) == answer.usage.calls


async def test_the_next_page_asks_no_model_and_goes_on_in_its_order(
    demo: Shelf, hostile_server: HostileServer
) -> None:
    hostile_server.content = sensible
    request = ask(history=HISTORY, limit=4, diversity=0)
    async with connected(hostile_server.base_url, MODEL) as chat:
        recommender = over(demo, chat, ReplyMode.JSON_SCHEMA)
        first = await recommender.recommend(request)
        asked = hostile_server.counts.total()
        assert asked > 0
        cursor = first.next_cursor
        second = await recommender.recommend(request.model_copy(update={"cursor": cursor}))
    assert hostile_server.counts.total() == asked
    assert (second.usage.calls, second.degraded) == (0, False)
    assert len(set(ids(first) + ids(second))) == 8
    trace = await recommender.trace(first.recommendation_id)
    assert trace is not None
    page = trace["page"]
    assert isinstance(page, dict)
    assert ids(second) == page["following"][:4]
