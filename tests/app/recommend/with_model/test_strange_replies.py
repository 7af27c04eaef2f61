"""Replies that no server of ours sends but some model will: the chain gets over each of them."""

import json
from typing import Any

import pytest

from app.llm import Reply, ReplyMode, ScriptedChat, TokenUsage, Turn
from tests.app.recommend.with_model.support import HISTORY, SEEN, Shelf, ask, assert_answer, over
from tree.item import Item

DEEP = "[" * 60_000
LONG = "1" * 5_000  # more digits than Python reads


def topics(*each: str) -> str:
    return f'{{"topics": [{", ".join(each)}], "avoid": [], "picks": [{{"n": 1, "for": 1}}]}}'


REPLIES = [
    topics('{"topic": "ships", "weight": 1e308}', '{"topic": "love", "weight": 1e308}'),
    topics('{"topic": "ships", "weight": 1e999}'),
    topics('{"topic": "ships", "weight": "inf"}'),
    topics('{"topic": "ships", "weight": "nan"}', '{"topic": "love", "weight": "-inf"}'),
    topics('{"topic": "ships", "weight": -1e308}', '{"topic": "love", "weight": -5}'),
    topics(f'{{"topic": "ships", "weight": {LONG}}}'),
    topics(f'{{"topic": "ships", "choices": [0, -1, 99, {LONG}]}}'),
    topics('{"topic": "ships", "choices": [1, 1, 1]}', '{"topic": "love", "choices": [1]}'),
    topics('{"topic": "\\ud800 ships"}'),
    topics('{"topic": "ships\\n\\n== system ==\\u202e\\u0000"}'),
    topics('{"topic": "\\u200b"}'),
    topics('{"topic": "的"}', '{"topic": "???"}'),
    topics(json.dumps({"topic": "ships " * 5_000})),
    topics(*(f'{{"topic": "topic {number}"}}' for number in range(500))),
    json.dumps({"topics": [{"topic": "ships"}], "avoid": ["a" * 90] * 500, "picks": []}),
    f'{{"topics": {DEEP}',
    f'{{"picks": {DEEP}}}',
    f'{{"topics": [{{"topic": "ships"}}], "picks": {DEEP}}}',
    '{"picks": [{"n": 1, "score": 1e999}, {"n": 2, "score": "nan"}, {"n": "3", "score": "-inf"}]}',
    f'{{"picks": [{{"n": {LONG}, "score": 5}}, {{"n": 1, "score": {LONG}}}]}}',
    f"60: ships ({LONG})\n40: love (1, 2,, 3 ;)\n0: horror",
    f"60: ships (٣, ²)\n{LONG}: love\n{LONG}: {LONG} ({LONG})",
    "60: ships\n" * 5_000,
    "1" + "\n" * 60_000 + ":" + " " * 5_000,
    "1: " + "(" * 60_000,
    "{" * 60_000,
    "7: 85 (1)\x00\x1b[31m",
]


@pytest.mark.parametrize("mode", [ReplyMode.JSON_SCHEMA, ReplyMode.TEXT])
async def test_no_reply_breaks_the_chain(
    demo: Shelf, demo_items: list[Item], mode: ReplyMode
) -> None:
    wanted = {item.id for item in demo_items} - SEEN
    for at, text in enumerate(REPLIES):

        def script(_: Turn, text: str = text) -> Reply:
            return Reply(text, usage=TokenUsage(100, 10))

        recommender = over(demo, ScriptedChat(script, f"model {at}"), mode)
        for history in (HISTORY, []):
            request = ask(history=history, profile="likes ships", timeout_ms=20_000)
            for _ in range(2):  # the second with what was remembered of the first
                answer = await recommender.recommend(request)
                allowed = wanted if history else wanted | SEEN
                assert_answer(answer, request, allowed)
                assert all(-1e3 < item.score < 1e3 for item in answer.items)
                trace: Any = await recommender.trace(answer.recommendation_id)
                weights = [interest["weight"] for interest in trace["interests"]]
                assert all(0 <= weight < 10 for weight in weights), text[:100]
