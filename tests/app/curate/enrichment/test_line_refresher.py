"""New and changed items get lines a little later, where the owner wants that and pays for it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.budget import BudgetExceeded
from app.curate import Curator, EnrichmentOptions, OwnerSettings
from app.curate.enrichment.line_refresher import LineRefresher
from app.embedders import EmbedderCache
from app.jobs import Jobs
from app.settings import Settings
from tests.app.conftest import Shop
from tests.app.curate.enrichment.support import (
    PRICE,
    assert_right,
    items_of,
    line_of,
    models_of,
    writer_of,
)
from tests.app.curate.labels.support import eventually
from tests.servers.hostile import Behaviour
from tree.item import Item


class Owner:
    """The owner's settings, which a test may change; and what a day may cost."""

    def __init__(self) -> None:
        self.enabled = True
        self.day_usd: float | None = None
        self.left_usd = float("inf")

    async def options(self) -> EnrichmentOptions:
        return EnrichmentOptions("", self.enabled, self.day_usd)

    def budget(self, limit_usd: float) -> "Owner":
        return self

    async def claim(self, cost_usd: float) -> "Owner":
        if cost_usd > self.left_usd:
            raise BudgetExceeded("cost")
        return self

    async def settle(self, cost_usd: float) -> None:
        self.left_usd -= cost_usd


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
async def curator(demo: Shop, chat, owner, tmp_path) -> AsyncIterator[Curator]:
    """The bundled catalogue, whose curator describes new items at once."""
    settings = OwnerSettings("en", owner.options, owner.budget)
    jobs = Jobs(demo.documents, 60)
    curator = Curator(
        "shop", demo.store, jobs, EmbedderCache(), Settings(data_dir=tmp_path),
        models_of(chat, demo.documents, price=PRICE), settings,
    )  # fmt: skip
    refresher = curator._enrichment.refresher = refresher_of(demo, chat, settings, curator)
    yield curator
    await refresher.aclose()
    await curator.aclose()


def refresher_of(demo: Shop, chat, owner: OwnerSettings, curator: Curator) -> LineRefresher:
    writer = writer_of(chat, demo.documents, price=PRICE)
    return LineRefresher(
        demo.store, writer, curator._set_lines, Settings(), owner, delay_s=0.05, pause_s=0.05
    )


NEW = [Item(id=f"new-{at}", title=f"Thing {name}") for at, name in enumerate("ABCDEF")]


async def lines_of(demo: Shop, items: list[Item]) -> dict:
    found = await demo.store.items([item.id for item in items])
    return {item.id: item.line for item in found.values() if item.line}


async def test_new_and_changed_items_get_their_lines_and_nothing_waits(
    demo, curator, hostile_server
):
    await curator.put(NEW)
    assert await lines_of(demo, NEW) == {}
    await curator._enrichment.refresher.settled()
    assert_right(await lines_of(demo, NEW), NEW)
    assert len(hostile_server.requests) == 1

    changed = NEW[0].model_copy(update={"title": "Something else"})
    await curator.put([changed])
    await curator._enrichment.refresher.settled()
    assert (await lines_of(demo, [changed]))[changed.id].text == line_of("Something else")

    await curator.put(NEW)  # the line that was paid for first
    await curator._enrichment.refresher.settled()
    assert_right(await lines_of(demo, NEW), NEW)
    assert len(hostile_server.requests) == 2


async def test_nothing_is_asked_where_the_owner_has_not_enabled_it(
    demo, curator, owner, hostile_server
):
    owner.enabled = False
    await curator.put(NEW)
    await curator._enrichment.refresher.settled()
    await curator._enrichment.refresher.housekeep()
    assert hostile_server.requests == []


async def test_what_nobody_has_noted_is_found_by_a_scan(
    demo, demo_items, curator, owner, hostile_server
):
    for _ in range(2):
        await curator._enrichment.refresher.housekeep()
        await curator._enrichment.refresher.settled()
    assert_right(await lines_of(demo, demo_items), demo_items)
    calls = len(hostile_server.requests)
    await curator._enrichment.refresher.housekeep()  # not again before tomorrow
    assert (curator._enrichment.refresher.waiting, len(hostile_server.requests)) == (0, calls)


async def test_the_budget_of_a_day_ends_the_work(demo, demo_items, curator, owner, hostile_server):
    owner.left_usd = 0.1
    await curator._enrichment.refresher.housekeep()
    await curator._enrichment.refresher.settled()
    assert 0 <= owner.left_usd < 0.1
    lines = await lines_of(demo, demo_items)
    assert 0 < len(lines) < len(demo_items)
    assert_right(lines, demo_items)
    calls = len(hostile_server.requests)
    await curator._enrichment.refresher.housekeep()  # not within the hour
    await curator._enrichment.refresher.settled()
    assert len(hostile_server.requests) == calls


async def test_items_wait_through_an_outage(demo, curator, hostile_server):
    hostile_server.play([Behaviour.UNAVAILABLE] * 12)
    await curator.put(NEW)
    await curator._enrichment.refresher.settled()
    assert_right(await lines_of(demo, NEW), NEW)


async def test_deletes_do_not_wait_and_a_deleted_item_gets_no_line(demo, curator, hostile_server):
    hostile_server.play([Behaviour.HANG])
    await curator.put(NEW)
    await eventually(lambda: hostile_server.hanging == 1)
    async with asyncio.timeout(5):
        assert await curator.delete(["new-0"]) == {"new-0": True}
    await curator._enrichment.refresher.settled()  # the call that hung has timed out
    lines = await lines_of(demo, NEW)
    assert set(lines) == {item.id for item in NEW[1:]}
    asked = [items_of(body["messages"][-1]["content"]) for body in hostile_server.requests]
    assert [len(one) for one in asked] == [6, 5]
