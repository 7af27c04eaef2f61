"""What an answer is for changes it, without a model, and a recommendation stays what it was."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest
from pydantic import ValidationError

from app.embedders import EmbedderCache
from app.event_types import EventRules
from app.options import TaskName
from app.recommend import Recommendation, RecommendConfig, Recommender, RecommendRequest
from app.recommend.tasks import TASKS
from app.settings import Settings
from app.storage.feedback import Event
from app.storage.memory_feedback import MemoryFeedback
from tree.snapshot import SemanticTree

HISTORY = ["book-dune", "film-solaris", "film-alien"]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)


def ask(history: Sequence[str] = HISTORY, **fields) -> RecommendRequest:
    entries = [{"item_id": item} for item in history]
    return RecommendRequest.model_validate({"history": entries, "limit": 20} | fields)


def ids(answer: Recommendation) -> list[str]:
    return [item.item_id for item in answer.items]


def leaves(tree: SemanticTree, items: Sequence[str]) -> set[int]:
    return {int(tree.rows.leaf[tree.row(item) or 0]) for item in items}


async def with_events(shop, users: Sequence[Sequence[str]]) -> Recommender:
    """A recommender of a shop whose users had these items, each user's oldest first."""
    feedback = MemoryFeedback()
    for user, items in enumerate(users):
        await feedback.record(
            [Event(f"{user} {at}", str(user), item, at) for at, item in enumerate(items)]
        )
    return Recommender(
        "shop",
        shop.store,
        shop.documents,
        EmbedderCache(),
        RecommendConfig.of(Settings()),
        feedback=feedback,
    )


def test_every_task_has_its_weights():
    assert TASKS.keys() == set(TASK_NAMES)
    assert len(set(TASKS.values())) == len(TASKS)


@pytest.mark.parametrize("task", TASK_NAMES)
async def test_every_task_fills_its_answer(demo, task):
    request = ask(task=task, instruction="slow science fiction", exclude_history=True)
    answer = await demo.recommender.recommend(request)
    assert len(set(ids(answer)) - set(HISTORY)) == request.limit
    told = []
    answer = await demo.recommender.recommend(request, lambda *step: told.append(step))
    assert dict(told)["start"]["task"] == task
    trace = await demo.recommender.trace(answer.recommendation_id)
    assert trace is not None
    assert trace["task"] == task


# -- search


@pytest.mark.parametrize("more", [{}, {"profile": "Likes tea."}, {"instruction": None}])
def test_a_search_is_for_something(more):
    with pytest.raises(ValidationError, match="a search needs an instruction") as refused:
        ask(task="search", **more)
    assert refused.value.errors()[0]["loc"] == ("task",)


async def test_a_search_finds_what_the_user_has_already(demo, demo_items):
    title = next(item.title for item in demo_items if item.id == "film-solaris")
    found = await demo.recommender.recommend(ask(task="search", instruction=title))
    assert ids(found)[0] == "film-solaris"
    for request in (
        ask(task="search", instruction=title, exclude_history=True),
        ask(instruction=title),
    ):
        assert not set(HISTORY) & set(ids(await demo.recommender.recommend(request)))
    again = ask(instruction=title, exclude_history=False)
    assert "film-solaris" in ids(await demo.recommender.recommend(again))


async def test_a_search_is_not_about_the_user(demo):
    wish, found = "songs and dances on a stage", []
    for history in ((), HISTORY):
        for profile in (None, "Wants frightening books about space."):
            request = ask(history, profile=profile, task="search", instruction=wish, limit=10)
            found.append(ids(await demo.recommender.recommend(request)))
    assert found[1:] == found[:1] * 3
    plain = await demo.recommender.recommend(ask(instruction=wish, limit=10))
    assert ids(plain) != found[0]


async def test_what_others_had_with_the_history_has_a_little_more(demo):
    def search(history: Sequence[str]) -> RecommendRequest:
        return ask(history, task="search", instruction="a voyage by ship", limit=40)

    near = ids(await demo.recommender.recommend(search(())))[20]
    recommender = await with_events(demo, [["film-alien", near]] * 40)
    found = [await recommender.recommend(search(history)) for history in (HISTORY, ())]
    scores = [one.items[ids(one).index(near)].score for one in found]
    assert scores[0] > scores[1]
    await recommender.aclose()


# -- complement


async def test_a_complement_is_not_more_of_the_same(demo, demo_tree):
    own = leaves(demo_tree, HISTORY)
    beside = {}
    for task in ("recommend", "complement"):
        answer = ids(await demo.recommender.recommend(ask(task=task, limit=10)))
        beside[task] = sum(bool(leaves(demo_tree, [item]) & own) for item in answer)
    assert beside["complement"] < beside["recommend"]


async def test_what_others_had_with_it_is_a_complement(demo, demo_items, demo_tree):
    own = leaves(demo_tree, HISTORY)
    first = set(ids(await demo.recommender.recommend(ask(task="complement", limit=100))))
    far = next(
        item.id
        for item in demo_items
        if item.id not in first and not leaves(demo_tree, [item.id]) & own
    )
    recommender = await with_events(demo, [["film-alien", far]] * 40)
    assert ids(await recommender.recommend(ask(task="complement")))[0] == far
    await recommender.aclose()


# -- explore


async def test_what_few_know_comes_first_and_still_fits(demo):
    plain = ids(await demo.recommender.recommend(ask(limit=40, diversity=0)))
    known = plain[::2]
    recommender = await with_events(demo, [known] * 200)
    request = ask(limit=40, diversity=0)
    popular = ids(await recommender.recommend(request))
    explored = ids(await recommender.recommend(request.model_copy(update={"task": "explore"})))
    assert len(set(popular[:20]) & set(known)) > len(set(explored[:20]) & set(known))
    assert len(set(explored[:20]) & set(plain)) >= 10
    await recommender.aclose()


async def test_without_counts_there_is_nothing_to_explore_by(demo):
    plain, explored = [
        ids(await demo.recommender.recommend(ask(task=task))) for task in ("recommend", "explore")
    ]
    assert plain == explored


# -- trending


@pytest.mark.parametrize("exact_scan_items", [50_000, 0])
async def test_what_rises_comes_first_and_what_was_popular_does_not(
    demo, demo_items, exact_scan_items
):
    rules, now = EventRules(half_life_s=86_400), time.time()
    items = [item.id for item in demo_items[-2:]]
    feedback = MemoryFeedback()
    for item, users, days in ((items[0], 200, 6), (items[0], 5, 0), (items[1], 30, 0)):
        for user in range(users):
            at = round((now - days * 86_400) * 1_000_000) + user
            event = Event(f"{item} {days} {user}", f"{days} {user}", item, at)
            await feedback.record([event], rules)
    settings = Settings(exact_scan_items=exact_scan_items, beam_leaves=1, beam_breadth=1)
    config = RecommendConfig.of(settings)
    config = replace(config, signals=replace(config.signals, half_life_s=86_400))
    parts = demo.store, demo.documents, EmbedderCache(), config
    recommender = Recommender("shop", *parts, feedback=feedback)
    request = RecommendRequest.model_validate(
        {"profile": "quiet books", "scenario": "trending", "diversity": 0, "limit": 5}
    )
    assert request.task == "trending"
    trending = ids(await recommender.recommend(request))
    assert trending[0] == items[1]
    assert items[0] not in trending
    await recommender.aclose()
