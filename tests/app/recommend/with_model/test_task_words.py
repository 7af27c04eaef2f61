"""A model is asked by the task: in one sentence, which takes the place of the perspective's."""

from typing import get_args

import pytest

from app.llm import Reply, ReplyMode, ScriptedChat, Turn
from app.options import TaskName
from prompts import PERSPECTIVES, load
from tests.app.recommend.with_model.support import HISTORY, Shelf, ask, over, sensible

CHAIN = ("profile", "opening", "search", "recall", "rerank")
PAPER = ("paper_profile", "paper_search", "paper_recall", "paper_rerank")
OTHER_TASKS = sorted(set(get_args(TaskName)) - {"recommend"})


@pytest.mark.parametrize("name", CHAIN)
def test_every_task_has_words_of_its_own(name: str) -> None:
    worded = {load(name, "interest", task).system for task in OTHER_TASKS}
    by_perspective = {load(name, perspective).system for perspective in PERSPECTIVES}
    assert len(worded - by_perspective) == len(OTHER_TASKS)
    for task in OTHER_TASKS:
        assert load(name, "action", task) == load(name, "interest", task)


@pytest.mark.parametrize("name", [*CHAIN, *PAPER])
@pytest.mark.parametrize("perspective", PERSPECTIVES)
def test_a_recommendation_is_asked_for_by_its_perspective(name, perspective) -> None:
    assert load(name, perspective, "recommend") == load(name, perspective)


@pytest.mark.parametrize("task", OTHER_TASKS)
async def test_all_slates_are_in_words_for_the_task(demo: Shelf, task: str) -> None:
    turns: list[Turn] = []

    def script(turn: Turn) -> Reply:
        turns.append(turn)
        return Reply(sensible(turn.messages[-1].content))

    recommender = over(demo, ScriptedChat(script), ReplyMode.JSON_SCHEMA)
    asked = {"history": HISTORY, "instruction": "slow films", "perspective": "action"}
    await recommender.recommend(ask(**asked, task=task, effort="balanced"))
    await recommender.aclose()
    systems = [turn.messages[0].content for turn in turns]
    worded = {load(name, "action", task).system for name in CHAIN}
    assert all(any(system.startswith(one) for one in worded) for system in systems)
    assert len({system[:200] for system in systems}) >= 3
