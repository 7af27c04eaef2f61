"""Whatever is written by whomever: a moment later every replica holds the same tree."""

import asyncio
import random
import time

import httpx2
import pytest

from tests.faults.checks import losses, replica
from tests.faults.fleet import running
from tests.faults.ledger import Ledger
from tests.faults.traffic import CATALOG, at_work, stocked
from tree.inspect import digest, violations
from tree.store.redis_store import RedisTreeStore

CONVERGED_S = 1.0
FOLLOWING_S = 0.02
QUIET_S = 30


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long("Saturday"))])
async def test_all_replicas_hold_the_same_tree_within_a_second(
    store, tmp_path, open_room, seed, capsys
):
    ledger, chance = Ledger(), random.Random(seed)
    async with (
        open_room(store.url) as room,
        running(tmp_path, prefix=room.prefix, store=store) as fleet,
        httpx2.AsyncClient(timeout=30) as client,
    ):
        await stocked(fleet.urls, ledger, 300)
        followers = [await replica(room), await replica(room)]
        following = [asyncio.create_task(_follow(one, chance)) for one in followers]
        spent = []
        for _ in range(4):  # a pause between two bursts is a last commit of its own
            async with at_work(fleet.urls, ledger, chance.randrange(1_000), writers=4, readers=1):
                await asyncio.sleep(chance.uniform(0.5, 1.5))
            spent.append(await _converged(room, followers, fleet.urls, client))
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        lost = await losses(room, ledger)
    with capsys.disabled():
        print("\nconverged after", ", ".join(f"{seconds * 1_000:.0f} ms" for seconds in spent))
    assert lost == []
    ledger.assert_clean()


async def _follow(store: RedisTreeStore, chance: random.Random) -> None:
    """Keep a replica up to date, with pauses long enough for several commits."""
    while True:
        await store.load()
        await asyncio.sleep(chance.choice([0, FOLLOWING_S, 10 * FOLLOWING_S]))


async def _converged(room, followers, urls, client) -> float:
    """Seconds that it took until all were at the newest version, once that stood still.

    Relabelling and rebuilds may commit after the last writer: then it begins again.
    """
    quiet_by = time.monotonic() + QUIET_S
    while True:
        newest = await (await replica(room)).load()
        began = time.monotonic()
        while True:
            trees = [await one.load() for one in followers]
            graphs = [await _graph(client, url) for url in urls]
            versions = {graph["graph"]["version"] for graph in graphs}
            versions |= {tree.version for tree in trees}
            took = time.monotonic() - began
            if versions == {newest.version} or max(versions) > newest.version:
                break
            assert took < CONVERGED_S, f"versions {versions} {took:.1f} s after {newest.version}"
        if versions != {newest.version}:
            assert time.monotonic() < quiet_by, "somebody commits without end"
            continue
        assert violations(newest) == []
        assert [digest(tree) for tree in trees] == [digest(newest)] * len(trees)
        assert graphs == [graphs[0]] * len(graphs)
        assert took < CONVERGED_S
        return took


async def _graph(client: httpx2.AsyncClient, url: str) -> dict:
    """The nodes with their labels and counts, as a process of the service has them."""
    asked = {"format": "node-link", "depth": "4"}
    reply = await client.get(f"{url}{CATALOG}/tree", params=asked)
    assert reply.status_code == 200, reply.text
    return reply.json()
