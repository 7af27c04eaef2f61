"""Every implementation of Feedback counts, remembers and forgets alike, in bounded room."""

import asyncio
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.event_types import EVENT_TYPES, EventRules, EventType
from app.storage.feedback import (
    BACKWARD,
    FORWARD,
    HISTORY,
    NEIGHBOURS,
    Event,
    Feedback,
    User,
    Visit,
)
from app.storage.keys import FeedbackKeys
from app.storage.memory_feedback import MemoryFeedback
from app.storage.redis_feedback import RedisFeedback
from tests.contracts.support import ODD_IDS, SPACE, counts, events, near
from tree.errors import CatalogDeleted, StoreUnavailable
from tree.redis.embedded_server import EmbeddedServer
from tree.store.keys import CatalogKeys
from tree.store.redis_store import RedisTreeStore


async def history(feedback: Feedback, user: str) -> list[str]:
    found = await feedback.user(user)
    return [visit.item_id for visit in found.history] if found else []


async def test_pairs_weigh_by_distance_and_direction(feedback):
    path = [f"i{number}" for number in range(8)]
    assert await feedback.record(events("u", *path)) == ["counted"] * 8
    assert await near(feedback, "i0") == {f"i{d}": weight for d, weight in enumerate(FORWARD, 1)}, (
        "what came after, up to five steps"
    )
    assert await near(feedback, "i7") == {
        f"i{7 - d}": weight for d, weight in enumerate(BACKWARD, 1)
    }
    assert await counts(feedback) == dict.fromkeys(path, 1)
    assert await history(feedback, "u") == path


async def test_users_add_up_and_odd_ids_are_only_ids(feedback):
    for user in ODD_IDS:
        await feedback.record(events(user, *ODD_IDS))
    assert await counts(feedback) == dict.fromkeys(ODD_IDS, len(ODD_IDS))
    for user in ODD_IDS:
        assert await history(feedback, user) == ODD_IDS
    first, second, *_ = ODD_IDS
    assert (await near(feedback, first))[second] == len(ODD_IDS) * FORWARD[0]


async def test_an_event_counts_once(feedback):
    batch = events("u", "a", "b")
    assert await feedback.record([*batch, batch[0]]) == ["counted", "counted", "duplicate"]
    before = await feedback.neighbours(["a", "b"])
    assert await feedback.record(batch) == ["duplicate", "duplicate"]
    assert await feedback.neighbours(["a", "b"]) == before
    assert await counts(feedback) == {"a": 1, "b": 1}


async def test_of_many_who_send_the_same_one_is_heard(feedback):
    batch = [one for user in range(20) for one in events(f"u{user}", *"abcd")]
    sent = await asyncio.gather(*(feedback.record(batch[start:] + batch[:start])
                                  for start in range(0, 80, 16)))  # fmt: skip
    assert sum(outcomes.count("counted") for outcomes in sent) == 80
    assert sum(outcomes.count("duplicate") for outcomes in sent) == 320
    assert await counts(feedback) == dict.fromkeys("abcd", 20)


async def test_a_user_counts_once_for_an_item_whatever_they_send(feedback):
    assert await feedback.record(events("u", "a", "b", "a")) == ["counted", "counted", "repeated"]
    assert await counts(feedback) == {"a": 1, "b": 1}
    assert await near(feedback, "a") == {"b": FORWARD[0]}
    assert await history(feedback, "u") == ["b", "a"], "the latest time counts"
    assert await feedback.record([Event("late", "u", "a", -5)]) == ["repeated"]
    assert await history(feedback, "u") == ["b", "a"], "an older one changes nothing"


async def test_an_event_that_comes_late_finds_its_place(feedback):
    first, second, third = events("u", "a", "b", "c")
    await feedback.record([third, first])
    await feedback.record([second])
    assert await history(feedback, "u") == ["a", "b", "c"]
    assert await near(feedback, "a") == {"b": FORWARD[0], "c": FORWARD[0]}
    assert await near(feedback, "b") == {"a": BACKWARD[0], "c": FORWARD[0]}


async def test_lists_are_bounded_and_what_recurs_stays_in_them(feedback):
    for number in range(3 * NEIGHBOURS):
        await feedback.record(events(f"u{number}", "hub", f"rare {number}"))
        if number % 3 == 0:
            await feedback.record(events(f"v{number}", "hub", "steady"))
    found = await near(feedback, "hub")
    assert len(found) == NEIGHBOURS
    assert max(found, key=found.__getitem__) == "steady"
    assert (await counts(feedback))["hub"] == 4 * NEIGHBOURS


async def test_a_history_keeps_its_newest(feedback):
    items = [f"i{number}" for number in range(HISTORY + 30)]
    assert set(await feedback.record(events("u", *items))) == {"counted"}
    assert await history(feedback, "u") == items[30:]


async def test_changes_tell_that_counts_have_changed(feedback):
    seen = [(await feedback.neighbours([])).changes]
    for act in (
        feedback.record(events("u", "a", "b")),
        feedback.record(events("v", "a")),
        feedback.forget_items(["a"]),
    ):
        await act
        seen.append((await feedback.neighbours([])).changes)
    assert len(set(seen)) == 4
    await feedback.forget_items(["never heard of"])
    assert (await feedback.neighbours([])).changes == seen[-1]


async def test_an_item_that_goes_leaves_the_lists_of_its_neighbours(feedback):
    await feedback.record(events("u", "a", "b", "c"))
    await feedback.forget_items(["b"])
    assert await counts(feedback) == {"a": 1, "c": 1}
    assert await near(feedback, "b") == {}
    assert await near(feedback, "a") == {"c": FORWARD[1]}
    assert await near(feedback, "c") == {"a": BACKWARD[1]}


async def test_lists_that_an_item_does_not_know_of_are_swept(feedback):
    await feedback.record(events("u", "a", "hub"))
    for number in range(2 * NEIGHBOURS):
        await feedback.record(events(f"u{number}", f"rare {number}", "hub"))
    assert "a" not in await near(feedback, "hub")
    await feedback.forget_items(["hub"])
    assert "hub" in await near(feedback, "a")
    await feedback.record(events("u", "c"))
    await feedback.sweep("a", ["hub", "c"])
    assert list(await near(feedback, "a")) == ["c"], "an item with a count stays"


async def test_readers_of_an_item_that_went_and_came_again_count_again_once(feedback):
    await feedback.record(events("u", "a", "b") + events("v", "a", "b"))
    await feedback.forget_items(["b"])
    assert await history(feedback, "u") == ["a", "b"]
    assert await feedback.record(events("u", "b", start=5)) == ["repeated"], "it is of before"
    now = time.time_ns() // 1_000
    for user in "uv":
        assert await feedback.record(events(user, "b", "b", start=now)) == ["counted", "repeated"]
    assert await counts(feedback) == {"a": 2, "b": 2}
    assert await near(feedback, "a") == {"b": 2 * FORWARD[0]}


async def test_what_is_older_than_a_full_history_does_not_count(feedback):
    await feedback.record(events("u", *map(str, range(HISTORY)), start=10))
    before = await feedback.neighbours(["0", "old"])
    for _ in range(3):
        assert await feedback.record(events("u", "old")) == ["too_old"]
    assert await feedback.neighbours(["0", "old"]) == before
    assert "old" not in await counts(feedback)
    assert len(await history(feedback, "u")) == HISTORY


async def test_counts_that_start_anew_are_not_taken_for_the_old_ones(embedded_url, open_room):
    async with open_room(embedded_url) as room:
        seen = []
        for item in "ab":
            feedback = RedisFeedback(room.client, "books", prefix=room.prefix)
            await feedback.record(events("u", item))
            seen.append((await feedback.neighbours([])).changes)
            await room.client.unlink(FeedbackKeys("books", room.prefix).counts)
        assert seen[0] != seen[1]


async def test_a_deleted_catalogue_takes_nothing_of_users(tcp_url, open_room):
    async with open_room(tcp_url) as room:
        feedback = RedisFeedback(room.client, "books", prefix=room.prefix)
        await feedback.record(events("u", "a", "b"))
        await feedback.put_user("u", User((Visit("a", 1),)))
        await RedisTreeStore(room.client, "books", space=SPACE, prefix=room.prefix).drop()
        for refused in (
            feedback.record(events("u", "c")),
            feedback.put_user("u", User()),
            feedback.add_document("u", "trace/a", 60),
            feedback.forget_items(["a"]),
        ):
            with pytest.raises(CatalogDeleted):
                await refused
        assert await feedback.user("u") is None
        assert await counts(feedback) == {}
        keys = [key async for key in room.client.scan_iter(f"{room.prefix}:*")]
        assert keys == [CatalogKeys("books", room.prefix).head.encode()]
        assert await room.client.ttl(keys[0]) > 0


async def test_a_user_is_stored_read_and_erased(feedback):
    assert await feedback.user("u") is None
    user = User((Visit("a", 1), Visit("b", 2)), "likes sand", {"age": 7, "city": "Arrakeen"})
    await feedback.put_user("u", user)
    assert await feedback.user("u") == user
    assert await counts(feedback) == {}, "a stored history counts for no item"
    await feedback.record(events("u", "c", start=10))
    found = await feedback.user("u")
    assert found is not None
    assert (found.profile, await history(feedback, "u")) == ("likes sand", ["a", "b", "c"])
    await feedback.add_document("u", "trace one", 60)
    await feedback.add_document("u", "trace two", 60)
    assert sorted(await feedback.documents_of("u")) == ["trace one", "trace two"]

    await feedback.put_user("u", User(profile="only this"))
    assert await feedback.user("u") == User(profile="only this")

    assert await feedback.has_document("u", "trace two")
    await feedback.erase("u", ["trace one"])
    assert await feedback.user("u") is None
    assert await feedback.documents_of("u") == ["trace two"], "noted since the names were read"
    assert not await feedback.has_document("u", "trace one")
    await feedback.erase("u", ["trace two"])
    assert await feedback.documents_of("u") == []
    assert await counts(feedback) == {"c": 1}, "counts name nobody"


async def test_batches_may_be_long(feedback):
    batch = [one for user in range(50) for one in events(f"u{user}", *"abcdefgh")]
    assert set(await feedback.record(batch)) == {"counted"}
    assert await counts(feedback) == dict.fromkeys("abcdefgh", 50)
    assert await feedback.record([]) == []


async def test_nothing_of_a_user_is_left_in_the_store(embedded_url, open_room):
    async with open_room(embedded_url) as room:
        feedback = RedisFeedback(room.client, "books", prefix=room.prefix)
        await feedback.put_user("somebody", User(profile="likes sand"))
        await feedback.record(events("somebody", "a", "b"))
        await feedback.add_document("somebody", "trace one", 60)
        await feedback.erase("somebody", ["trace one"])
        keys = [key async for key in room.client.scan_iter(match=f"{room.prefix}:*")]
        assert keys
        assert not [key for key in keys if b"somebody" in key]


async def test_a_full_store_refuses_events_and_lets_items_and_users_go(tmp_path, open_room):
    server = await EmbeddedServer.start(tmp_path)
    try:
        async with open_room(server.connect_url) as room:
            feedback = RedisFeedback(room.client, "books", prefix=room.prefix)
            kept = events("u", "a", "b", "c")
            await feedback.record(kept)
            await room.client.config_set("maxmemory", 1)
            more = events("u", "d", "e")
            with pytest.raises(StoreUnavailable, match="full"):
                await feedback.record(more)
            assert (await near(feedback, "a")).keys() == {"b", "c"}
            changes = (await feedback.neighbours([])).changes
            await feedback.forget_items(["b"])
            await feedback.forget_items(["b", "never heard of"])
            assert await counts(feedback) == {"a": 1, "c": 1}
            assert (await feedback.neighbours([])).changes == changes + 1
            await room.client.config_set("maxmemory", 0)
            assert await feedback.record([*more, *kept]) == ["counted"] * 2 + ["duplicate"] * 3
            await room.client.config_set("maxmemory", 1)
            await feedback.erase("u", [])
            assert await feedback.user("u") is None
            await room.client.config_set("maxmemory", 0)
    finally:
        await server.stop()


async def test_lists_stay_packed(embedded_url, open_room):
    async with open_room(embedded_url) as room:
        feedback = RedisFeedback(room.client, "books", prefix=room.prefix)
        for number in range(NEIGHBOURS + 40):
            await feedback.record(events(f"u{number}", "hub", f"rare {number}"))
        key = FeedbackKeys("books", room.prefix).neighbours("hub")
        assert await room.client.object("ENCODING", key) == b"listpack"
        assert int(await room.client.memory_usage(key) or 0) < 2_500


happened = st.tuples(
    st.integers(0, 3),
    st.sampled_from([*"abcdefghij", *ODD_IDS]),
    st.integers(0, 30).map(lambda hours: hours * 3_600_000_000),
    st.sampled_from([*EVENT_TYPES, "own", "no longer known"]),
)
fading = EventRules(
    {**EVENT_TYPES, "own": EventType(weight=0.1, hides=True)}, half_life_s=7_200, most_per_day=9
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    story=st.lists(happened, max_size=60),
    gone=st.sets(st.sampled_from("abc")),
    rules=st.sampled_from([EventRules(), fading]),
)
async def test_any_events_lead_to_the_same_as_in_memory(
    embedded_url, open_room, story, gone, rules
):
    async with open_room(embedded_url) as room:
        real, model = RedisFeedback(room.client, "books", prefix=room.prefix), MemoryFeedback()
        batch = [
            Event(f"e{number % 50}", f"u{user}", item, at, kind)
            for number, (user, item, at, kind) in enumerate(story)
        ]
        assert await real.record(batch, rules) == await model.record(batch, rules)
        await real.forget_items(gone)
        await model.forget_items(gone)
        items = sorted({item for _, item, _, _ in story})
        ours, theirs = await real.neighbours(items), await model.neighbours(items)
        assert ours.neighbours == theirs.neighbours
        assert await counts(real) == pytest.approx(await counts(model))
        for user in range(4):
            assert await real.user(f"u{user}") == await model.user(f"u{user}")
        await real.put_user("only facts", User(profile="likes sand", attributes={"age": 7}))
        await model.put_user("only facts", User(profile="likes sand", attributes={"age": 7}))
        copy = RedisFeedback(room.client, "copy", prefix=room.prefix)
        refilled: list[tuple[Feedback, Feedback]] = [(model, copy), (real, MemoryFeedback())]
        for source, target in refilled:
            async for entries in source.entries():
                await target.restore(entries)
            assert (await target.neighbours(items)).neighbours == ours.neighbours
            assert await counts(target) == pytest.approx(await counts(model))
            for name in ("u0", "u1", "u2", "u3", "only facts"):
                assert await target.user(name) == await model.user(name)


async def test_histories_are_those_of_some_users(feedback):
    assert await feedback.histories(5) == []
    for user in ("u", "v", "w"):
        await feedback.record(events(user, f"{user}1", f"{user}2"))
    await feedback.put_user("told", User(profile="likes quiet films"))
    found = await feedback.histories(10)
    assert sorted(found) == [[f"{user}1", f"{user}2"] for user in ("u", "v", "w")]
    some = await feedback.histories(2)
    assert len(some) == 2
    assert all(one in found for one in some)
    assert await feedback.histories(0) == []


async def test_every_user_is_listed_once(feedback):
    for user in ODD_IDS:
        await feedback.record(events(user, "a", "b"))
    await feedback.put_user("only facts", User((), "likes tea", {"age": 5}))
    await feedback.put_user("both", User((Visit("a", 5),), "likes coffee"))
    await feedback.record(events("erased", "a"))
    await feedback.erase("erased", [])
    found = [entry for page in [page async for page in feedback.users()] for entry in page]
    assert sorted(entry.user_id for entry in found) == sorted([*ODD_IDS, "only facts", "both"])
    assert await feedback.known(["both", "only facts", "erased", "nobody", ODD_IDS[0]]) == {
        "both", "only facts", ODD_IDS[0],
    }  # fmt: skip
    for entry in found:
        assert entry.user == await feedback.user(entry.user_id)
