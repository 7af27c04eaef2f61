"""A model is asked by the task: in one sentence, which takes the place of the perspective's."""

from typing import get_args

import pytest

from app.llm import Reply, ReplyMode, ScriptedChat, Turn
from app.options import TaskName
from prompts import PERSPECTIVES, load
from tests.app.recommend.with_model.support import HISTORY, Shelf, ask, over, sensible

OTHER_TASKS = sorted(set(get_args(TaskName)) - {"recommend"})
OF_HISTORIES = sorted({*OTHER_TASKS} - {"search"})  # a search is never about a history alone
WORDED = {"expect_next": OF_HISTORIES} | dict.fromkeys(("search", "recall", "rerank"), OTHER_TASKS)
PLAIN = ("expect_wish", "paper_profile", "paper_search", "paper_recall", "paper_rerank")


@pytest.mark.parametrize("name", WORDED)
def test_every_task_has_words_of_its_own(name: str) -> None:
    worded = {load(name, "interest", task).system for task in WORDED[name]}
    by_perspective = {load(name, perspective).system for perspective in PERSPECTIVES}
    assert len(worded - by_perspective) == len(WORDED[name])
    for task in WORDED[name]:
        assert load(name, "action", task) == load(name, "interest", task)


@pytest.mark.parametrize("name", [*WORDED, *PLAIN])
@pytest.mark.parametrize("perspective", PERSPECTIVES)
def test_a_recommendation_is_asked_for_by_its_perspective(name, perspective) -> None:
    assert load(name, perspective, "recommend") == load(name, perspective)


@pytest.mark.parametrize("strategy", ["beam", "walk"])
@pytest.mark.parametrize("task", OTHER_TASKS)
async def test_all_slates_are_in_words_for_the_task(demo: Shelf, task: str, strategy: str) -> None:
    turns: list[Turn] = []

    def script(turn: Turn) -> Reply:
        turns.append(turn)
        return Reply(sensible(turn.messages[-1].content))

    recommender = over(demo, ScriptedChat(script), ReplyMode.JSON_SCHEMA)
    asked: dict[str, object] = {"instruction": "slow films"} if task == "search" else {}
    asked |= {"history": HISTORY, "perspective": "action", "task": task, "strategy": strategy}
    await recommender.recommend(ask(**asked, effort="balanced"))
    await recommender.aclose()
    systems = [turn.messages[0].content for turn in turns]
    names = ["expect_wish" if task == "search" else "expect_next", "recall"]
    for name in [*names, "search"] if strategy == "walk" else names:
        assert any(one.startswith(load(name, "action", task).system) for one in systems), name
    if task == "search":
        assert not any("Dune" in turn.messages[-1].content.partition("Chosen")[2] for turn in turns)
