"""Titles that a model expects: whose they are, how long they are kept, what they are asked with."""

import pytest

from app.embedders import EmbedderCache
from app.llm import STAGES, Models, Reply, ReplyMode, ScriptedChat, StageModel, TokenUsage, Turn
from app.recommend import RecommendConfig, Recommender
from app.settings import Settings
from tests.app.recommend.with_model.support import HISTORY, TITLES, Shelf, ask, over, sensible

ASKED = "Titles of some items of the catalogue:"


class Author:
    """A model that does as it is told, and keeps the questions for titles."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.calls = 0

    def __call__(self, turn: Turn) -> Reply:
        prompt = turn.messages[-1].content
        self.calls += 1
        self.asked += [prompt] if ASKED in prompt else []
        return Reply(sensible(prompt), usage=TokenUsage(100, 10))


async def test_a_wish_is_asked_about_once(demo: Shelf) -> None:
    author = Author()
    recommender = over(demo, ScriptedChat(author), ReplyMode.JSON_SCHEMA)
    for _ in range(2):
        answer = await recommender.recommend(ask(instruction="slow films about space"))
        trace = await recommender.trace(answer.recommendation_id)
        assert trace is not None
        assert (trace["expected"], trace["effort"]) == (TITLES, "balanced")
    assert len(author.asked) == 1


async def test_titles_belong_to_a_catalogue_and_to_domains(demo: Shelf) -> None:
    author = Author()
    stages = dict.fromkeys(STAGES, StageModel(ScriptedChat(author)))
    for catalog in ("shop", "other"):
        recommender = Recommender(
            catalog, demo.store, demo.documents, EmbedderCache(), RecommendConfig.of(Settings()),
            Models(stages, demo.documents, ReplyMode.JSON_SCHEMA, 20.0, "here"),
        )  # fmt: skip
        for domains in (None, ["books"], ["films"]):
            await recommender.recommend(ask(instruction="something quiet", domains=domains))
    assert len(author.asked) == 6


async def test_example_titles_are_items_that_may_be_answered(demo: Shelf) -> None:
    author = Author()
    recommender = over(demo, ScriptedChat(author), ReplyMode.JSON_SCHEMA)
    wish = {"instruction": "something quiet"}
    await recommender.recommend(ask(**wish))
    first = _examples(author.asked[0])
    assert len(first) == 10
    years = {"all": [{"field": "year", "gte": 2015}]}
    await recommender.recommend(ask(**wish, domains=["books"], filter=years))
    assert not set(first) & set(_examples(author.asked[1]))


async def test_a_history_alone_is_one_slate(demo: Shelf) -> None:
    author = Author()
    recommender = over(demo, ScriptedChat(author), ReplyMode.JSON_SCHEMA)
    answer = await recommender.recommend(ask(history=HISTORY))
    assert (answer.usage.calls, author.asked) == (1, [])


@pytest.mark.parametrize("strategy", ["beam", "walk"])
async def test_a_model_is_not_asked_about_nobody(demo: Shelf, strategy: str) -> None:
    author = Author()
    recommender = over(demo, ScriptedChat(author), ReplyMode.JSON_SCHEMA)
    answer = await recommender.recommend(ask(strategy=strategy, limit=7))
    assert (len(answer.items), author.calls, answer.degraded) == (7, 0, False)


def _examples(prompt: str) -> list[str]:
    return [
        line for line in prompt.split("\n\n", maxsplit=1)[0].splitlines() if line.startswith("- ")
    ]
