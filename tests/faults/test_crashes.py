"""Processes are killed at random moments while the service is at work; nothing is lost."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress

import pytest

from tests.faults.checks import losses
from tests.faults.fleet import Fleet, running
from tests.faults.ledger import Ledger
from tests.faults.traffic import CATALOG, Client, at_work, stocked

REBUILT_S = 120


@pytest.mark.parametrize(
    ("kills", "seed", "stock"),
    [
        pytest.param(5, 1, 100, id="short"),
        *(  # builds with workers
            pytest.param(20, seed, 6_000, id=f"long-{seed}", marks=pytest.mark.long("Tuesday"))
            for seed in (2, 3, 4)
        ),
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
        await _rebuilt(fleet, ledger)
        lost = await losses(room, ledger)
    with capsys.disabled():
        print(f"\nlost: {len(lost)}, {ledger}")
    assert lost == []
    ledger.assert_clean()
    assert ledger.counts["writes"] > 20 * kills
    assert ledger.counts["deletes"] > kills
    assert ledger.counts["answers"] > 5 * kills


async def _rebuilt(fleet: Fleet, ledger: Ledger) -> None:
    """One of the rebuilds succeeds, or one that begins now, when nobody is killed any more."""
    client = Client(fleet.urls, ledger, "rebuilt")
    deadline = time.monotonic() + REBUILT_S
    while True:
        found = (await client.insist("GET", "/v1/jobs", params={"limit": "1000"})).json()["jobs"]
        states = [job["state"] for job in found if job["type"] == "rebuild"]
        if "succeeded" in states:
            break
        assert time.monotonic() < deadline, states
        if not {"queued", "running"} & {*states}:
            await client.ask("POST", f"{CATALOG}/tree/rebuilds", json={"mode": "full"})
        await asyncio.sleep(0.1)
    await client.aclose()


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
