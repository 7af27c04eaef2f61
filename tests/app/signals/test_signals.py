"""Events as a part of the score: with none, nothing changes; with some, what they say counts."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import numpy as np
import pytest

from app.embedders import EmbedderCache
from app.rank_weights import RankWeights
from app.ranking import EmbeddedRanker, Need
from app.recommend import RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.signals import EventScores, Signals, UserDocuments, UserHistory, erase, freshness
from app.storage.documents import MemoryDocuments
from app.storage.feedback import WHOLE, Event
from app.storage.memory_feedback import MemoryFeedback
from tests.app.conftest import Shop
from tree.item import Item
from tree.vectors import cosines

SIGNALS = RecommendConfig.of(Settings()).signals
WEIGHTS = Settings().rank_weights


def visits(user: str, *items: str) -> list[Event]:
    return [Event(f"{user} {at}", user, item, at) for at, item in enumerate(items)]


def recommender(shop: Shop, feedback: MemoryFeedback, **changes: Any) -> Recommender:
    config = RecommendConfig.of(Settings.model_validate(changes))
    return Recommender(
        "shop", shop.store, shop.documents, EmbedderCache(), config, feedback=feedback
    )


async def answers(
    found: Recommender, readers: list[dict], **asked: Any
) -> list[list[tuple[str, float]]]:
    given = [{"limit": 20, **reader, **asked} for reader in readers]
    replies = [await found.recommend(RecommendRequest.model_validate(one)) for one in given]
    return [[(item.item_id, item.score) for item in reply.items] for reply in replies]


@pytest.fixture
def some(demo_items) -> list[dict]:
    ids = [item.id for item in demo_items]
    histories = [[], ids[:1], ids[3:9], ids[10:40:3]]
    return [{"history": [{"item_id": item} for item in history]} for history in histories]


async def test_without_events_every_score_is_what_it_was(demo, some):
    """Bit for bit: the weights of signals have nothing to act on."""
    shy = recommender(demo, MemoryFeedback(), cooccurrence_weight=0)
    bold = recommender(demo, MemoryFeedback(), cooccurrence_weight=1_000)
    assert await answers(bold, some) == await answers(shy, some)
    tree = await demo.store.load()
    assert await Signals(MemoryFeedback(), SIGNALS).of(tree, list("abc"), WEIGHTS) is None


async def test_with_all_weights_off_events_change_nothing(demo, some, demo_items):
    feedback = MemoryFeedback()
    await feedback.record(visits("u", *(item.id for item in demo_items[:20])))
    off = {"cooccurrence_weight": 0, "popularity_weight": 0}
    assert await answers(recommender(demo, feedback, **off), some) == await answers(
        recommender(demo, MemoryFeedback(), **off), some
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"cooccurrence_weight": 500.0},
        {"cooccurrence_weight": 0.0, "popularity_weight": 0.0},
        {"popularity_weight": 2.0, "cold_start_prior": 1.0},
        {"history_decay": 0.1, "wish_weight": 0.9},
        {"exact_words": 0.0},
    ],
    ids=str,
)
async def test_weights_of_a_request_answer_as_the_same_settings_do(demo, some, demo_items, changes):
    feedback = MemoryFeedback()
    for user in range(30):
        await feedback.record(visits(f"u{user}", *(item.id for item in demo_items[user::20])))
    asked = [{**one, "instruction": "a slow and quiet story"} for one in some]
    as_set = await answers(recommender(demo, feedback, **changes), asked)
    plain = recommender(demo, feedback)
    assert await answers(plain, asked, weights=changes) == as_set
    assert await answers(plain, asked) != as_set


async def test_scores_are_as_documented(demo, demo_items):
    first, second, third = (item.id for item in demo_items[:3])
    feedback = MemoryFeedback()
    for user in range(9):
        await feedback.record(visits(f"u{user}", first, second))
    await feedback.record(visits("v", third, second))
    tree = await demo.store.load()
    event_scores = await Signals(feedback, SIGNALS).of(tree, [third, first], WEIGHTS)
    assert event_scores is not None
    row = tree.row(second)
    assert event_scores.counts[row] == pytest.approx(10 * 10 / 13)
    s = SIGNALS.cooccurrence_shrinkage
    rows = [tree.row(item) for item in (third, first)]
    alike = cosines(
        tree.rows.vectors[[row]],
        tree.rows.scale[[row]],
        tree.rows.vectors[rows],
        tree.rows.scale[rows],
    )[0]
    bound = [0.2 * (0.01 + 0.1 * max(0, alike[0])), 0.01 + 0.1 * max(0, alike[1])]
    raw = [
        1 / 1.5 / ((1 + s) ** 0.75 * (10 + s) ** 0.25),
        81 / 9.5 / ((9 + s) ** 0.75 * (10 + s) ** 0.25),
    ]
    worth = [most * np.tanh(one / most) * 0.9 for most, one in zip(bound, raw, strict=True)]
    expected = WEIGHTS.cooccurrence_weight * (worth[0] + WEIGHTS.history_decay * worth[1])
    at = event_scores.rows.tolist().index(row)
    assert event_scores.scores[at] == pytest.approx(expected, rel=1e-5)
    assert (await feedback.neighbours([third])).neighbours == [{second: WHOLE}]


async def test_evidence_reaches_any_choice_of_rows():
    event_scores = EventScores(
        np.zeros(9, np.float32), np.array([2, 5], np.int32), np.array([1, 3], np.float32)
    )
    every = np.zeros(9, np.float32)
    event_scores.add_to(every, slice(None))
    assert every.tolist() == [0, 0, 1, 0, 0, 3, 0, 0, 0]
    few = np.zeros(4, np.float32)
    event_scores.weighed(history=0.5, prior=1).add_to(few, np.array([8, 5, 0, 2], np.int32))
    assert few.tolist() == [0, 1.5, 0, 0.5]
    none = EventScores(event_scores.counts, event_scores.rows[:0], event_scores.scores[:0])
    none.add_to(few, np.array([8, 5, 0, 2], np.int32))
    assert few.tolist() == [0, 1.5, 0, 0.5]


@pytest.mark.parametrize("exact_scan_items", [50_000, 0])
async def test_an_item_that_is_far_away_is_found_by_what_goes_together(
    demo, demo_items, exact_scan_items
):
    """Also where only the leaves of a beam are scored: it need not be among them."""
    narrow = {"exact_scan_items": exact_scan_items, "beam_leaves": 1, "beam_breadth": 1}
    history = [{"history": [{"item_id": demo_items[0].id}]}]
    quiet = recommender(demo, MemoryFeedback(), **narrow)
    ranked = (await answers(quiet, history, limit=100, diversity=0))[0]
    near = {item for item, _ in ranked[:20]}
    far = next(item.id for item in reversed(demo_items) if item.id not in near)
    feedback = MemoryFeedback()
    for user in range(30):
        await feedback.record(visits(f"u{user}", demo_items[0].id, far))
    found = await answers(recommender(demo, feedback, **narrow), history, diversity=0)
    assert found[0][0][0] == far


async def test_a_wish_takes_its_share_from_co_occurrence(demo, demo_items):
    feedback = MemoryFeedback()
    one, other = demo_items[0].id, demo_items[-1].id
    for user in range(30):
        await feedback.record(visits(f"u{user}", one, other))
    found = recommender(demo, feedback)
    plain = dict((await answers(found, [{"history": [{"item_id": one}]}], limit=100))[0])
    asked = [{"history": [{"item_id": one}]}]
    wished = dict((await answers(found, asked, limit=100, instruction=demo_items[5].title))[0])
    assert plain[other] > wished[other] > 0


async def test_counts_weigh_the_more_the_less_is_known_of_a_reader(demo, demo_items):
    feedback = MemoryFeedback()
    popular = demo_items[-1].id
    for user in range(100):
        await feedback.record(visits(f"u{user}", popular))
    flat, steep = (recommender(demo, feedback, cold_start_prior=prior) for prior in (1, 8))
    words, items = demo_items[5].title, [{"item_id": item.id} for item in demo_items[:3]]

    async def more(**asked: Any) -> float:
        """How much more the item's count adds to its score, as a share of the most it can."""
        scores = [
            dict((await answers(one, [asked], limit=100, diversity=0, **asked))[0])[popular]
            for one in (flat, steep)
        ]
        return (scores[1] - scores[0]) / (
            7 * Settings().popularity_weight * np.log1p(100 * 100 / 103)
        )

    assert await more(profile=words) == pytest.approx(1, abs=0.01)
    assert await more(instruction=words) == 0
    assert await more(profile=words, instruction=demo_items[6].title) == pytest.approx(
        1 / 2, abs=0.01
    )
    assert await more(history=items[:1]) == pytest.approx(1 / 2, abs=0.01)
    assert await more(history=items) == pytest.approx(1 / 4, abs=0.01)
    assert await more(history=items, profile=words) == pytest.approx(1 / 4, abs=0.01)
    assert await more(history=items, instruction=words) == pytest.approx(1 / 8, abs=0.01)


async def test_neighbours_that_left_the_catalogue_are_swept(demo, demo_items):
    feedback = MemoryFeedback()
    await feedback.record(visits("u", demo_items[0].id, "left long ago"))
    await feedback.forget_items(["left long ago"])
    signals = Signals(feedback, SIGNALS)
    tree = await demo.store.load()
    event_scores = await signals.of(tree, [demo_items[0].id], WEIGHTS)
    assert event_scores is not None
    assert len(event_scores.rows) == 0
    deadline = time.monotonic() + 5
    while (await feedback.neighbours([demo_items[0].id])).neighbours != [{}]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    await signals.aclose()


async def test_counts_follow_events_and_the_tree(demo, demo_items):
    feedback, ids = MemoryFeedback(), [item.id for item in demo_items]
    signals = Signals(feedback, SIGNALS)
    await feedback.record(visits("u", ids[0]))
    tree = await demo.store.load()
    found = await signals.of(tree, [], WEIGHTS)
    assert found is not None
    assert found.counts[tree.row(ids[0])] == 1 / 4
    await feedback.record(visits("v", ids[0], "new"))
    await demo.curator.put([Item(id="new", title="New"), demo_items[0]])
    after = await demo.store.load()
    found = await signals.of(after, [], WEIGHTS)
    assert found is not None
    assert [found.counts[after.row(item)] for item in (ids[0], "new", ids[1])] == pytest.approx(
        [4 / 5, 1 / 4, 0]
    )
    still = await signals.of(tree, [], WEIGHTS)
    assert still is not None
    assert len(still.counts) >= tree.size, "a version that a request still reads"


async def test_popularity_is_what_items_state_and_what_users_did(demo_tree, demo_items):
    ranker = EmbeddedRanker(8, 50_000, 200, 96)
    tree = demo_tree
    counts = np.zeros(tree.size, np.float32)
    counts[3] = 7
    rows = np.arange(tree.size, dtype=np.int32)
    event_scores = EventScores(counts, rows[:0], counts[:0])
    need = Need(event_scores=event_scores, rank_weights=RankWeights(popularity_weight=0.5))
    with_events = ranker.scores(tree, need, rows)
    stated = tree.rows.popularity[: tree.size]
    assert with_events == pytest.approx(0.5 * np.log1p(stated + counts))


def test_the_ids_of_a_history_name_nobody_and_stay_the_same():
    line = UserHistory(user_id="somebody", history=["dune", "emma"])
    first, again = (
        [event.event_id for event in line.events(now)] for now in (1_000_000, 2_000_000)
    )
    assert first == again
    other = UserHistory(user_id="nobody", history=["dune"])
    assert len({*first, *(event.event_id for event in other.events(0))}) == 3
    assert not [one for one in first if "somebody" in one or "dune" in one]


def test_freshness_halves_with_every_half_life():
    now = datetime(2026, 1, 31, tzinfo=UTC)
    ages = [timedelta(0), timedelta(days=7), timedelta(days=21), timedelta(days=-5)]
    found = freshness([*(now - age for age in ages), None], now.timestamp(), 7)
    assert found == pytest.approx([1, 0.5, 0.125, 1, 0])


async def test_freshness_puts_the_newer_of_two_likes_first(demo):
    old = datetime.now(UTC) - timedelta(days=400)
    twins = [
        Item(id="older", title="Zyx qwv", published_at=old),
        Item(id="newer", title="Zyx qwv", published_at=datetime.now(UTC)),
        Item(id="undated", title="Zyx qwv"),
    ]
    await demo.curator.put(twins)
    asked: list[dict] = [{}]
    wish = {"profile": "Zyx qwv", "diversity": 0, "limit": 3, "fold": False}
    plain = (await answers(recommender(demo, MemoryFeedback()), asked, **wish))[0]
    fresh = (await answers(recommender(demo, MemoryFeedback(), freshness_weight=5), asked, **wish))[
        0
    ]
    assert {item for item, _ in plain} == {"older", "newer", "undated"}
    assert fresh[0][0] == "newer"
    asked_for = {"weights": {"freshness_weight": 5.0}}
    again = await answers(recommender(demo, MemoryFeedback()), asked, **wish, **asked_for)
    assert again[0] == fresh


async def test_documents_of_a_user_go_with_the_user():
    documents, feedback = MemoryDocuments(), MemoryFeedback()
    mine = UserDocuments(documents, feedback, "u")
    await mine.put("trace", "shop/one two", b"1", 60)
    assert await mine.put_new("profile", "p", b"2", 60)
    await documents.put("trace", "shop/other", b"3", 60)
    await erase(feedback, documents, "u")
    assert await documents.get("trace", "shop/one two") is None
    assert await documents.get("profile", "p") is None
    assert await documents.get("trace", "shop/other") == b"3"


class Slow:
    """A store that takes its time, as one over a network does."""

    def __init__(self, store: object, chance: Random) -> None:
        self._store = store
        self._chance = chance

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def later(*given: object) -> object:
            for _ in range(self._chance.randrange(6)):
                await asyncio.sleep(0)
            return await getattr(self._store, name)(*given)

        return later


@pytest.mark.parametrize("seed", range(3))
async def test_no_trace_outlives_its_note_when_a_user_is_erased_while_they_recommend(seed):
    chance = Random(seed)
    documents, feedback = MemoryDocuments(), MemoryFeedback()
    slow, later = Slow(documents, chance), Slow(feedback, chance)
    mine = UserDocuments(slow, later, "u")  # type: ignore[arg-type]
    for number in range(500):
        await asyncio.gather(
            mine.put("trace", str(number), b"1", 60),
            erase(later, slow, "u"),  # type: ignore[arg-type]
            erase(later, slow, "u"),  # type: ignore[arg-type]
        )
    await erase(feedback, documents, "u")
    assert [name async for name in documents.list("trace")] == []
