"""Recommenders over any model, and what has to hold of all their answers."""

import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from app.attribution import Attributor
from app.embedders import EmbedderCache
from app.llm import STAGES, ChatModel, Models, Price, ReplyMode, StageModel
from app.llm.ask import FREE
from app.llm.client import OpenAIChat, connect
from app.recommend import Recommendation, RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.storage.documents import Documents
from tree.item import Item
from tree.store.protocol import TreeStore

PRICE = Price(input_usd=2.0, output_usd=8.0, cached_usd=0.5)
HISTORY = [
    {"item_id": "book-dune"}, {"item_id": "film-solaris"}, {"item_id": "film-alien"},
    {"item_id": "film-cabaret"}, {"title": "The Sound of Music"}, {"item_id": "nowhere"},
]  # fmt: skip
TITLES = ["Stalker, slow science fiction", "Singin' in the Rain, a musical"]
SEEN = {"book-dune", "film-solaris", "film-alien", "film-cabaret"}


@dataclass(frozen=True)
class Shelf:
    """A catalogue, and where its recommender keeps what it remembers."""

    store: TreeStore
    documents: Documents


def ask(**fields: Any) -> RecommendRequest:
    return RecommendRequest.model_validate(fields)


def year_of(item: Item) -> int:
    year = item.attributes["year"]
    assert isinstance(year, int)
    return year


def ids(answer: Recommendation) -> list[str]:
    return [item.item_id for item in answer.items]


def over(
    shelf: Shelf,
    chat: ChatModel,
    mode: ReplyMode | None,
    *,
    timeout_s: float = 20.0,
    price: Price = FREE,
    attributor: Attributor | None = None,
    **settings: Any,
) -> Recommender:
    """A recommender of a shelf whose stages all ask one model."""
    stages = dict.fromkeys(STAGES, StageModel(chat, price))
    return Recommender(
        "shop",
        shelf.store,
        shelf.documents,
        EmbedderCache(),
        RecommendConfig.of(Settings(**settings)),
        Models(stages, shelf.documents, mode, timeout_s, "here"),
        attributor=attributor,
    )


@asynccontextmanager
async def connected(base_url: str, model: str) -> AsyncIterator[OpenAIChat]:
    """The client that the service uses."""
    async with connect(base_url, "key") as client:
        yield OpenAIChat(client, model)


def assert_answer(
    answer: Recommendation, request: RecommendRequest, allowed: Iterable[str], price: Price = FREE
) -> None:
    """It is as long as it can be, of allowed items that come once, and its usage adds up."""
    allowed = set(allowed)
    found = ids(answer)
    assert set(found) <= allowed
    assert len(found) == len(set(found)) == min(request.limit, len(allowed))
    assert [item.rank for item in answer.items] == list(range(1, len(found) + 1))
    assert all(item.path and item.fields["title"] for item in answer.items)
    usage, stages = answer.usage, answer.usage.stages.values()
    for name in ("calls", "rounds", "input_tokens", "output_tokens", "cached_tokens", "fallbacks"):
        assert getattr(usage, name) == sum(getattr(stage, name) for stage in stages), name
    for stage in (usage, *stages):
        assert stage.cached_tokens <= stage.input_tokens
        assert stage.calls or not stage.input_tokens + stage.output_tokens
        cost = price.input_usd * (stage.input_tokens - stage.cached_tokens)
        cost += (price.cached_usd or 0) * stage.cached_tokens
        cost += price.output_usd * stage.output_tokens
        assert stage.cost_usd == pytest.approx(cost / 1e6, abs=1e-7)
    assert answer.degraded == (answer.degraded_reason is not None) == (usage.fallbacks > 0)
    assert answer.timing_ms["total"] <= request.timeout_ms


def sensible(prompt: str) -> str:
    """What a model that does as it is told says: titles, ten picks and, if asked for, topics."""
    options = prompt.split("\n\n", maxsplit=1)[0]
    numbers = re.findall(r"^(\d+)\. ", options, re.MULTILINE)
    picks = [
        {"n": int(number), "score": 90 - at, "for": 1} for at, number in enumerate(numbers[:10])
    ]
    said: dict[str, object] = {"picks": picks, "titles": TITLES}
    if "Write the topics" in prompt:
        topics = ("slow science fiction", 70, [1, 2, 3]), ("musicals", 30, [4, 5])
        said["topics"] = [
            {"topic": topic, "weight": weight, "choices": choices}
            for topic, weight, choices in topics
        ]
        said["avoid"] = ["horror"]
    return json.dumps(said)
