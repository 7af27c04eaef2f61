"""Counts in memory fade by the clock alone; many of them never hold up a request."""

import asyncio
import time

import pytest

from app.event_types import EventRules
from app.signals.counts import Counts
from app.storage.feedback import Event
from app.storage.memory_feedback import MemoryFeedback
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore

HOUR_S = 3_600
START_S = 1_700_000_000


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = float(START_S)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def tree(demo_tree) -> SemanticTree:
    store = MemoryTreeStore(space=demo_tree.space, settings=demo_tree.settings)
    await store.replace(demo_tree, base=0)
    return await store.load()


async def had(feedback: MemoryFeedback, item: str, user: str, hour: int) -> None:
    at = (START_S + hour * HOUR_S) * 1_000_000
    event = Event(f"{user} {item}", user, item, at)
    await feedback.record([event], EventRules(half_life_s=HOUR_S))


async def test_counts_fade_while_nothing_changes(tree):
    feedback, clock, item = MemoryFeedback(), Clock(), tree.rows.id(0)
    await had(feedback, item, "u", 0)
    await had(feedback, item, "v", 1)
    counts = Counts(feedback, clock=clock)
    counts.fade(HOUR_S)
    await counts.follow(2)
    for hours, left in ((1, 1.5), (2, 0.75), (5, 1.5 / 16)):
        clock.now = START_S + hours * HOUR_S
        columns = await counts.columns(tree)
        assert columns.faded[0] == pytest.approx(left)
        assert columns.all_time[0] == counts.all_time(item) == 2
        assert columns.popular[0] == pytest.approx(left**2 / (left + 3))
    clock.now += HOUR_S / 100
    assert await counts.columns(tree) is columns, "as new as it needs to be"
    counts.fade(None)
    assert (await counts.columns(tree)).faded[0] == 1.5, "as of the newest event"
    await counts.aclose()


async def test_many_counts_are_served_while_newer_ones_are_computed(tree):
    feedback, clock = MemoryFeedback(), Clock()
    for row in range(3):
        await had(feedback, tree.rows.id(row), "u", 0)
    counts = Counts(feedback, newest=1, clock=clock)
    counts.fade(HOUR_S)
    await counts.follow(3)
    first = await counts.columns(tree)
    assert first.faded[:3].tolist() == [1, 1, 1]
    clock.now += HOUR_S
    assert await counts.columns(tree) is first
    deadline = time.monotonic() + 5
    while (await counts.columns(tree)) is first:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    assert (await counts.columns(tree)).faded[:3].tolist() == [0.5, 0.5, 0.5]
    await counts.aclose()
