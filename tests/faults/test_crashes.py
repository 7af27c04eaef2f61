"""Processes are killed at random moments while the service is at work; nothing is lost."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Room
from tests.faults.fleet import Fleet, Store, running
from tests.faults.traffic import Ledger, at_work, stocked
from tree.embedders import LexicalEmbedder
from tree.inspect import violations
from tree.store.redis import RedisTreeStore


@pytest.fixture
async def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("v"), {})
    store.start()
    await store.answering()
    yield store
    store.stop()


@pytest.mark.parametrize(
    ("kills", "seed", "stock"),
    [
        pytest.param(5, 1, 100, id="short"),
        pytest.param(60, 2, 6_000, id="long", marks=pytest.mark.long),  # builds with workers
    ],
)
async def test_nothing_acknowledged_is_lost_when_processes_are_killed(
    store, tmp_path, open_room, kills, seed, stock, capsys
):
    ledger, chance = Ledger(), random.Random(seed)
    async with (
        open_room(store.url) as room,
        running(tmp_path, prefix=room.prefix, store=store) as fleet,
    ):
        await stocked(fleet.urls, ledger, stock)
        async with at_work(fleet.urls, ledger, seed):
            while ledger.counts["kills"] < kills:
                await asyncio.sleep(chance.uniform(0.3, 1.5))
                await _kill_one(fleet, ledger, chance)
            await fleet.ready()
        await _check(room, fleet, ledger)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name}: {n}" for name, n in sorted(ledger.counts.items())))
    assert ledger.faults == []
    assert ledger.counts["writes"] > 20 * kills
    assert ledger.counts["deletes"] > kills
    assert ledger.counts["answers"] > 5 * kills
    assert ledger.counts["rebuilds succeeded"]


async def _kill_one(fleet: Fleet, ledger: Ledger, chance: random.Random) -> None:
    """Kill a process or one of its workers, and start again what is down a moment later."""
    victim = chance.choice([*fleet.processes, fleet.store])
    if not victim.running:
        return
    workers = victim.workers()
    if workers and chance.random() < 0.5:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
            ledger.counts["kills of workers"] += 1
    else:
        victim.kill()
        ledger.counts["kills of stores" if victim is fleet.store else "kills of APIs"] += 1
    ledger.counts["kills"] += 1
    await asyncio.sleep(chance.uniform(0, 0.5))
    await fleet.revive()
    if chance.random() < 0.5:
        await fleet.ready()


async def _check(room: Room, fleet: Fleet, ledger: Ledger) -> None:
    """What the store holds against what the ledger says; `ledger` gets to know what was lost."""
    fresh = RedisTreeStore(room.client, "default", space=LexicalEmbedder().space, prefix=room.prefix)
    tree = await fresh.load()
    assert violations(tree) == []
    records = await fresh.items(list(ledger.held))
    for item_id, content in ledger.held.items():
        if item_id not in tree or item_id not in records:
            ledger.counts["lost"] += 1
            ledger.fault(f"{item_id} was acknowledged and is lost")
        elif (found := records[item_id].attributes["revision"]) != (
            wanted := content["attributes"]["revision"]
        ):
            ledger.counts["lost"] += 1
            ledger.fault(f"{item_id} holds revision {found} in place of {wanted}")
    back = [item_id for item_id in ledger.gone if item_id in tree]
    back += list(await fresh.items(list(ledger.gone)))
    ledger.faults += [f"{item_id} was deleted and is back" for item_id in back]
    ledger.counts["lost"] += len(back)
