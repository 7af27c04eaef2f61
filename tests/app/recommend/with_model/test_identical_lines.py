"""Items that read the same: a model is shown one of them."""

import re

import pytest

from app.llm import Reply, ReplyMode, ScriptedChat, TokenUsage, Turn
from app.recommend import RecommendRequest
from tests.app.conftest import Shop, built
from tests.app.recommend.with_model.support import Shelf, ask, assert_answer, over
from tree.item import Item
from tree.node import TreeSettings

SUBJECTS = ("Space", "Sea", "Garden", "Castle", "Winter", "Robot", "Bird", "Train", "Bread")


def catalogue() -> list[Item]:
    """Nine subjects with nine books each, of which three read the same and have other covers."""
    return [
        Item(
            id=f"{subject}-{number}-{cover}",
            title=f"{subject} tales {'abc'[number]}",
            categories=(subject,),
            attributes={"author": f"author {cover}"},
        )
        for subject in SUBJECTS
        for number in range(3)
        for cover in range(3)
    ]


class Favourite:
    """A model that likes one line best and the others in their order; keeps every slate."""

    def __init__(self, line: str) -> None:
        self.slates: list[list[str]] = []
        self.chat = ScriptedChat(self._said)
        self._line = line

    def _said(self, turn: Turn) -> Reply:
        options = turn.messages[-1].content.split("\n\n")[0]
        lines = re.findall(r"^\d+\. (.*)$", options, re.MULTILINE)
        self.slates.append(lines)
        order = sorted(range(len(lines)), key=lambda at: not lines[at].startswith(self._line))
        picks = [{"n": at + 1, "score": 99 - rank} for rank, at in enumerate(order[:32])]
        text = ", ".join(f'{{"n": {one["n"]}, "score": {one["score"]}}}' for one in picks)
        return Reply(f'{{"picks": [{text}]}}', usage=TokenUsage(100, 10))


async def asked(shop: Shop, request: RecommendRequest) -> tuple[Favourite, list[str]]:
    items = catalogue()
    tree = await built(items, TreeSettings(leaf_capacity=8, fan_out=4))
    await shop.store.stage(items)
    await shop.store.replace(tree, base=0)
    model = Favourite("Castle tales b")
    recommender = over(Shelf(shop.store, shop.documents), model.chat, ReplyMode.JSON_OBJECT)
    answer = await recommender.recommend(request)
    assert_answer(answer, request, [item.id for item in items])
    return model, [item.item_id for item in answer.items]


@pytest.mark.parametrize("strategy", ["beam", "flat", "paper"])
async def test_no_slate_has_a_line_twice(shop, strategy):
    request = ask(profile="likes castles", strategy=strategy, limit=10)
    model, _ = await asked(shop, request)
    titles = [lines for lines in model.slates if any(" tales " in line for line in lines)]
    assert titles
    for lines in model.slates:
        assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("strategy", ["beam", "flat"])
async def test_the_others_follow_the_one_that_was_shown(shop, strategy):
    """They are by other authors, and so they are no near-duplicates."""
    request = ask(profile="likes castles", strategy=strategy, limit=10, diversity=0)
    _, found = await asked(shop, request)
    assert {item.rsplit("-", 1)[0] for item in found[:3]} == {"Castle-1"}
    assert len(set(found[:3])) == 3
