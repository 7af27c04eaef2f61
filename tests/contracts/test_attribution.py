"""Every implementation of Attribution counts what came of lists alike, and each thing once."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from app.storage.attribution import (
    BUCKETS,
    COLUMNS,
    MOST_LABELS,
    OTHER,
    Attribution,
    Dimension,
    ListEvent,
    MemoryAttribution,
    ShownList,
)
from app.storage.redis_attribution import RedisAttribution
from tests.contracts.support import ODD_IDS, SETTINGS, SPACE
from tree.errors import CatalogDeleted
from tree.store.redis_store import RedisTreeStore

TODAY = date(2026, 12, 1)
WEEK_S = 604_800


@pytest.fixture(params=["embedded_url", "tcp_url", "memory"])
def server_url(request):
    return None if request.param == "memory" else request.getfixturevalue(request.param)


@pytest.fixture
async def attribution(server_url, open_room) -> AsyncIterator[Attribution]:
    if server_url is None:
        yield MemoryAttribution()
    else:
        async with open_room(server_url) as room:
            yield RedisAttribution(room.client, "books", prefix=room.prefix)


def shown(name: str, items: list[str], bucket: int = 0, **labels: str) -> ShownList:
    usual = {"variant": "default", "strategy": "beam", "effort": "economy", "scenario": "-"}
    given = {**usual, "degraded": "no", **labels}
    day = date.fromisoformat(given.pop("day", TODAY.isoformat()))
    return ShownList(name, day, bucket, tuple(given.values()), 7, items)


def waiting(name: str, items: list[str], bucket: int = 0, **labels: str) -> ShownList:
    """A list that nobody has seen yet."""
    return replace(shown(name, items, bucket, **labels), is_shown=False)


def click(name: str, item: str) -> ListEvent:
    return ListEvent(name, item, "clicks", "c")


async def counted(
    attribution: Attribution, dimension: Dimension = "variant", day: date = TODAY
) -> dict[str, dict[str, float]]:
    """The sums over all buckets by label, without zeros."""
    found = {}
    for tallies in await attribution.tallies(day, day):
        for (its, label), counts in tallies.tallies.items():
            if its == dimension:
                sums = zip(COLUMNS, counts.sum(axis=0).tolist(), strict=True)
                found[label] = {name: value for name, value in sums if value}
    return found


async def lost(attribution: Attribution) -> dict[str, int]:
    days = await attribution.tallies(TODAY, TODAY)
    return {name: count for day in days for name, count in day.lost.items() if count}


async def test_what_comes_of_a_list_counts_for_its_labels(attribution):
    await attribution.keep(shown("r1", ["a", "b"], variant="bold", scenario="home"), WEEK_S)
    await attribution.keep(shown("r2", ["b"], bucket=9), WEEK_S)
    events = [
        ListEvent("r1", "a", "impressions", "i"),
        ListEvent("r1", "b", "impressions", "i"),
        click("r1", "b"),
        ListEvent("r1", "b", "conversions", "purchase", 12.5),
        ListEvent("r2", "b", "conversions", "purchase", 0.1),
        ListEvent("r2", "b", "conversions", "subscription", 0.2),
    ]
    assert await attribution.attribute(events, TODAY, WEEK_S) == ["attributed"] * 6
    bold = {"lists": 1, "impressions": 2, "clicks": 1, "conversions": 1, "value": 12.5}
    rest = {"lists": 1, "conversions": 2, "value": 0.3}
    assert await counted(attribution) == {"bold": bold, "default": rest}
    assert await counted(attribution, "scenario") == {"home": bold, "-": rest}
    both = await counted(attribution, "strategy")
    assert both["beam"]["lists"] == 2
    [day] = await attribution.tallies(TODAY, TODAY)
    counts = day.tallies["strategy", "beam"]
    assert counts[[0, 9], 0].tolist() == [1, 1]
    assert counts.shape == (BUCKETS, len(COLUMNS))


async def test_each_thing_counts_once_however_often_it_is_sent(attribution):
    await attribution.keep(shown("r", ["a", "b"]), WEEK_S)
    batch = [click("r", "a"), click("r", "a"), click("r", "b")]
    assert await attribution.attribute(batch, TODAY, WEEK_S) == [
        "attributed",
        "repeated",
        "attributed",
    ]
    again = await asyncio.gather(*(attribution.attribute(batch, TODAY, WEEK_S) for _ in range(5)))
    assert {outcome for outcomes in again for outcome in outcomes} == {"repeated"}
    assert (await counted(attribution))["default"] == {"lists": 1, "clicks": 2}


async def test_late_forged_and_foreign_events_count_for_no_list(attribution):
    await attribution.keep(shown("r", ["a"]), WEEK_S)
    forged = ListEvent("made-up", "a", "clicks", "c", is_ours=False)
    events = [forged, click("gone", "a"), click("r", "z"), click("r", "7"), click("r", "")]
    assert await attribution.attribute(events, TODAY, WEEK_S) == [
        "unknown",
        "late",
        "not_shown",
        "not_shown",
        "not_shown",
    ]
    assert await counted(attribution) == {"default": {"lists": 1}}
    assert await lost(attribution) == {"unknown": 1, "late": 1, "not_shown": 3}


async def test_a_list_expires(attribution):
    await attribution.keep(shown("r", ["a"]), 1)
    deadline = asyncio.get_running_loop().time() + 20
    while await attribution.attribute([click("r", "a")], TODAY, WEEK_S) != ["late"]:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def test_events_count_for_the_day_of_their_list(attribution):
    before = TODAY - timedelta(days=6)
    await attribution.keep(shown("r", ["a"], day=before.isoformat()), WEEK_S)
    assert await attribution.attribute([click("r", "a")], TODAY, WEEK_S) == ["attributed"]
    assert await counted(attribution) == {}
    assert await counted(attribution, day=before) == {"default": {"lists": 1, "clicks": 1}}
    assert len(await attribution.tallies(before - timedelta(days=400), TODAY)) == 1


async def test_odd_ids_and_labels_are_whole(attribution):
    await attribution.keep(shown("r", ODD_IDS, scenario="ünïcode {x} %z"), WEEK_S)
    events = [click("r", item) for item in ODD_IDS]
    assert set(await attribution.attribute(events, TODAY, WEEK_S)) == {"attributed"}
    scenarios = await counted(attribution, "scenario")
    assert scenarios == {"ünïcode {x} %z": {"lists": 1, "clicks": len(ODD_IDS)}}


async def test_labels_of_a_day_are_bounded(attribution):
    for number in range(MOST_LABELS + 5):
        await attribution.keep(shown(f"r{number}", ["a"], scenario=f"s{number}"), WEEK_S)
    await attribution.keep(shown("r", ["a"], scenario="s1"), WEEK_S)
    last = f"r{MOST_LABELS + 4}"
    assert await attribution.attribute([click(last, "a")], TODAY, WEEK_S) == ["attributed"]
    found = await counted(attribution, "scenario")
    assert len(found) == MOST_LABELS + 1
    assert found["s1"] == {"lists": 2}
    assert found[OTHER] == {"lists": 5, "clicks": 1}


async def test_a_list_that_waits_counts_with_its_first_event(attribution):
    before = TODAY - timedelta(days=2)
    await attribution.keep(waiting("r1", ["a", "b"], 5, day=before.isoformat()), WEEK_S)
    await attribution.keep(waiting("r2", ["a"], 5, day=before.isoformat()), WEEK_S)
    await attribution.keep(waiting("r3", ["a"], 5, day=before.isoformat()), WEEK_S)
    assert await counted(attribution, day=before) == {}
    assert await attribution.attribute([click("r2", "z")], TODAY, WEEK_S) == ["not_shown"]
    assert await counted(attribution, day=before) == {}
    events = [click("r1", "a"), click("r1", "b"), click("r1", "a"), click("r3", "a")]
    found = await attribution.attribute(events, TODAY, WEEK_S)
    assert found == ["attributed", "attributed", "repeated", "attributed"]
    assert await attribution.attribute(events, TODAY, WEEK_S) == ["repeated"] * 4
    more = ListEvent("r1", "b", "conversions", "purchase", 2.0)
    assert await attribution.attribute([more], TODAY, WEEK_S) == ["attributed"]
    figures = {"lists": 2, "clicks": 3, "conversions": 1, "value": 2.0}
    assert await counted(attribution, day=before) == {"default": figures}
    [day] = await attribution.tallies(before, before)
    assert day.tallies["variant", "default"][5, 0] == 2


async def test_labels_of_lists_that_wait_are_bounded_too(attribution):
    for number in range(MOST_LABELS):
        await attribution.keep(shown(f"r{number}", ["a"], scenario=f"s{number}"), WEEK_S)
    await attribution.keep(waiting("late", ["a"], scenario="a rather long new one"), WEEK_S)
    await attribution.attribute([click("late", "a")], TODAY, WEEK_S)
    assert await attribution.attribute([click("late", "a")], TODAY, WEEK_S) == ["repeated"]
    found = await counted(attribution, "scenario")
    assert len(found) == MOST_LABELS + 1
    assert found[OTHER] == {"lists": 1, "clicks": 1}


async def test_a_list_that_waited_expires_when_it_would_have(attribution):
    await attribution.keep(waiting("r", ["a"]), 2)
    assert await attribution.attribute([click("r", "a")], TODAY, WEEK_S) == ["attributed"]
    deadline = asyncio.get_running_loop().time() + 20
    while await attribution.attribute([click("r", "a")], TODAY, WEEK_S) != ["late"]:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def test_tallies_are_restored_as_they_were(attribution):
    await attribution.keep(shown("r", ["a"], variant="bold"), WEEK_S)
    await attribution.attribute([click("r", "a"), click("gone", "a")], TODAY, WEEK_S)
    entries = [entry async for some in attribution.entries(TODAY) for entry in some]
    before = await attribution.tallies(TODAY, TODAY)
    for entry in entries:
        await attribution.restore([entry], TODAY)
    after = await attribution.tallies(TODAY, TODAY)
    assert [day.lost for day in after] == [day.lost for day in before]
    assert await counted(attribution) == {"bold": {"lists": 1, "clicks": 1}}


async def test_any_order_of_events_by_many_processes_gives_the_same_tallies(attribution):
    """Against sums in memory; shuffled, doubled and cut into batches that overlap in time."""
    chance = random.Random(5)
    reference = MemoryAttribution()
    events = []
    for number in range(40):
        make = chance.choice((shown, waiting))
        some = make(f"r{number}", [f"i{at}" for at in range(5)], number % 7)
        for one in (attribution, reference):
            await one.keep(some, WEEK_S)
        for at in range(chance.randrange(6)):
            value = chance.randrange(1_000) / 100
            events.append(ListEvent(some.id, f"i{at}", "conversions", "purchase", value))
    await reference.attribute(events, TODAY, WEEK_S)
    doubled = events * 3
    chance.shuffle(doubled)
    # The same mark has the same value here, so that it does not matter which one counts.
    batches = [doubled[at : at + 17] for at in range(0, len(doubled), 17)]
    outcomes = await asyncio.gather(
        *(attribution.attribute(batch, TODAY, WEEK_S) for batch in batches)
    )
    assert sum(some.count("attributed") for some in outcomes) == len(events)
    [[mine], [theirs]] = [await one.tallies(TODAY, TODAY) for one in (attribution, reference)]
    assert mine.tallies.keys() == theirs.tallies.keys()
    for name, counts in theirs.tallies.items():
        assert mine.tallies[name].tolist() == counts.tolist()


async def test_nothing_is_written_for_a_deleted_catalogue(embedded_url, open_room):
    async with open_room(embedded_url) as room:
        store = RedisTreeStore(
            room.client, "books", space=SPACE, settings=SETTINGS, prefix=room.prefix
        )
        attribution = RedisAttribution(room.client, "books", prefix=room.prefix)
        await attribution.keep(shown("r", ["a"]), WEEK_S)
        await store.drop()
        calls: list[Any] = [
            attribution.keep(shown("r2", ["a"]), WEEK_S),
            attribution.attribute([click("r", "a")], TODAY, WEEK_S),
        ]
        for call in calls:
            with pytest.raises(CatalogDeleted):
                await call
        assert await attribution.tallies(TODAY, TODAY) == []
        await store.aclose()
