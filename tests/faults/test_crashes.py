"""Processes are killed at random moments while the service is at work; nothing is lost."""

import asyncio
import os
import random
import signal
from contextlib import suppress

import pytest

from tests.faults.checks import losses
from tests.faults.fleet import Fleet, running
from tests.faults.ledger import Ledger
from tests.faults.traffic import at_work, stocked


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
        lost = await losses(room, ledger)
    with capsys.disabled():
        print(f"\nlost: {len(lost)}, {ledger}")
    assert lost == []
    ledger.assert_clean()
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
