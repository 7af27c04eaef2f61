"""Every implementation of Feedback weighs events by their types, and nobody counts for more."""

import time

import pytest

from app.event_types import EVENT_TYPES, EventRules, EventType
from app.storage.feedback import (
    BACKWARD,
    FORWARD,
    NEIGHBOURS,
    WHOLE,
    Event,
    ItemCount,
    User,
    Visit,
)
from app.storage.keys import FeedbackKeys
from app.storage.redis_feedback import RedisFeedback
from tests.contracts.support import counts, events, near
from tree.redis.embedded_server import EmbeddedServer

HOUR = 3_600_000_000
WEIGHTS = {name: kind.weight for name, kind in EVENT_TYPES.items()}


def did(kind: str, item: str, user: str = "u", at: int = 0) -> Event:
    return Event(f"{user} {kind} {item} {at} {time.monotonic_ns()}", user, item, at, kind)


async def visits(feedback, user: str = "u") -> dict[str, Visit]:
    found = await feedback.user(user)
    return {visit.item_id: visit for visit in found.history} if found else {}


async def test_an_event_counts_as_much_as_its_type_says(feedback):
    some = [did(kind, kind, f"user of {kind}") for kind in EVENT_TYPES]
    outcomes = dict(zip(EVENT_TYPES, await feedback.record(some), strict=True))
    assert {kind for kind, outcome in outcomes.items() if outcome == "noted"} == {
        "impression",
        "dislike",
    }
    assert await counts(feedback) == {
        kind: weight for kind, weight in WEIGHTS.items() if weight > 0
    }


async def test_what_was_only_shown_leaves_no_trace(feedback):
    shown = did("impression", "a")
    assert await feedback.record([shown, shown]) == ["noted", "noted"]
    assert await feedback.user("u") is None


async def test_a_user_adds_one_whole_at_most_whatever_they_do(feedback):
    steps = ["view", "click", "view", "cart", "purchase", "dislike", "like", "view", "purchase"]
    outcomes = await feedback.record([did(kind, "a", at=at) for at, kind in enumerate(steps)])
    assert outcomes == [
        "counted", "counted", "repeated", "counted", "counted", "noted", *["repeated"] * 3,
    ]  # fmt: skip
    assert await counts(feedback) == {"a": 1}


async def test_a_pair_weighs_as_much_as_its_weaker_side(feedback):
    await feedback.record([did("view", "a", at=1), did("purchase", "b", at=2)])
    quarter = round(WEIGHTS["view"] * WHOLE)
    assert await near(feedback, "a") == {"b": quarter * FORWARD[0] // WHOLE}
    assert await near(feedback, "b") == {"a": quarter * BACKWARD[0] // WHOLE}
    await feedback.record([did("purchase", "a", at=1)])
    assert await near(feedback, "a") == {"b": FORWARD[0]}, "never more than a whole pair"
    await feedback.record([did("purchase", "a", at=1), did("like", "b", at=3)])
    assert await near(feedback, "a") == {"b": FORWARD[0]}


async def test_what_a_user_dislikes_is_known_and_goes_with_nothing(feedback):
    await feedback.record(
        [did("purchase", "a", at=1), did("dislike", "b", at=2), did("like", "c", at=3)]
    )
    assert await near(feedback, "b") == {}
    assert (await near(feedback, "a")).keys() == {"c"}
    assert {item: visit.type for item, visit in (await visits(feedback)).items()} == {
        "a": "purchase", "b": "dislike", "c": "like",
    }  # fmt: skip
    assert await feedback.histories(9) == [["a", "c"]]


async def test_the_strongest_type_stays_and_of_equal_ones_the_latest(feedback):
    told = [
        (["purchase", "view"], "purchase"),
        (["view", "click"], "click"),
        (["click", "view"], "click"),
        (["like", "dislike"], "dislike"),
        (["dislike", "like"], "like"),
        (["dislike", "cart"], "dislike"),
    ]
    for number, (kinds, expected) in enumerate(told):
        await feedback.record([did(kind, str(number), at=at) for at, kind in enumerate(kinds)])
        assert (await visits(feedback))[str(number)].type == expected, kinds
    await feedback.record([did("like", "late", at=9), did("dislike", "late", at=3)])
    assert (await visits(feedback))["late"].type == "like", "the dislike was before"


async def test_own_types_weigh_and_hide_as_the_owner_says(feedback):
    rules = EventRules({**EVENT_TYPES, "finished": EventType(weight=0.5, hides=True)})
    assert await feedback.record([did("finished", "a")], rules) == ["counted"]
    assert await counts(feedback) == {"a": 0.5}
    assert await feedback.record([did("finished", "b")]) == ["noted"], "without that setting"


async def test_only_so_many_events_of_a_user_count_on_one_day(feedback):
    rules = EventRules(most_per_day=3)
    some = [did("purchase", str(number), at=number) for number in range(5)]
    assert await feedback.record(some, rules) == ["counted"] * 3 + ["over_limit"] * 2
    assert (await counts(feedback)).keys() == {"0", "1", "2"}
    assert len(await visits(feedback)) == 5
    assert await feedback.record([did("purchase", "4", at=9)], EventRules()) == ["counted"]
    assert await feedback.record([did("like", "0", "v")], rules) == ["counted"], "another user"


async def test_counts_fade_in_any_order_of_events(feedback):
    rules = EventRules(half_life_s=3_600)
    hours = [5, 1, 3]
    start = 1_700_000_000_000_000
    await feedback.record(
        [did("purchase", "a", f"u{hour}", start + hour * HOUR) for hour in hours], rules
    )
    [found] = [page["a"] async for page in feedback.counts()]
    assert found.at == start // 1_000_000 + 5 * 3_600
    assert found.users == pytest.approx(1 + 2**-2 + 2**-4)
    assert found.all_time == 3
    await feedback.record([did("view", "a", "later", start + 6 * HOUR)])
    [found] = [page["a"] async for page in feedback.counts()]
    assert found.all_time == 3.25, "also where counts do not fade any more"
    stored = [entry async for page in feedback.entries() for entry in page]
    assert ItemCount("a", *found) in stored
    await feedback.restore([ItemCount("b", *found)])
    assert [page["b"] async for page in feedback.counts()] == [found]


async def test_an_inherited_weight_is_no_evidence(feedback):
    for number in range(NEIGHBOURS):
        for copy in range(4):
            await feedback.record(events(f"u{number} {copy}", "hub", f"old {number}"))
    await feedback.record(events("one", "hub", "new"))
    assert (await near(feedback, "hub"))["new"] == FORWARD[0], "what one user may add"
    for number in range(9):
        await feedback.record(events(f"more {number}", "hub", "new"))
    assert (await near(feedback, "hub"))["new"] == 10 * FORWARD[0]


async def test_a_stored_history_has_types(feedback):
    user = User((Visit("a", 1, "dislike", 0), Visit("b", 2), Visit("c", 3, "view", 30)))
    await feedback.put_user("u", user)
    assert await feedback.user("u") == user
    await feedback.put_user("u", User((Visit("a", 1),)))
    assert await feedback.user("u") == User((Visit("a", 1),))


async def test_a_history_that_was_told_counts_when_events_tell_of_it(feedback):
    told = User((Visit("a", 1, weight=0), Visit("b", 2, "dislike", 0)))
    await feedback.put_user("u", told)
    assert await feedback.user("u") == told
    assert await feedback.histories(9) == [["a"]], "it was had, and the other one disliked"
    assert await feedback.record([did("purchase", "a", at=3)]) == ["counted"]
    assert await feedback.record([did("purchase", "a", at=4)]) == ["repeated"]
    assert await counts(feedback) == {"a": 1}


async def test_what_older_releases_stored_still_counts(
    embedded_url: EmbeddedServer, open_room
) -> None:
    async with open_room(embedded_url) as room:
        stored = RedisFeedback(room.client, "books", prefix=room.prefix)
        keys = FeedbackKeys("books", room.prefix)
        await room.client.hset(keys.counts, mapping={"": 7, "a": 3})
        await room.client.zadd(keys.history("u"), {"a": 5})
        await room.client.zadd(keys.neighbours("a"), {"b": 240})
        assert await counts(stored) == {"a": 3}
        assert await near(stored, "a") == {"b": 240}
        assert await stored.user("u") == User((Visit("a", 5),))
        assert await stored.record([did("like", "a", at=9)]) == ["repeated"]
        rules = EventRules(half_life_s=60)
        assert await stored.record([did("like", "a", "v", at=9 * HOUR)], rules) == ["counted"]
        assert await counts(stored) == {"a": 4}, "a count without a time has not faded"
