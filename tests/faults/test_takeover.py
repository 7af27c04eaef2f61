"""A job whose process is killed goes on in another process."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.jobs import JobTimes
from tests.faults.checks import losses
from tests.faults.fleet import Api, Fleet, running
from tests.faults.ledger import Content, Ledger
from tests.faults.service import TIMES
from tests.faults.traffic import CATALOG, JSONL, as_lines, content_of, stocked

TAKEN_OVER_S = 60
GONE_S = 10
LINES = 6_000
LISTS = 800
STOCK = 6_000  # so many that a build has workers


@pytest.fixture
def hurried() -> bool:
    """Whether the processes wait less for each other than those of `unillmrec serve`."""
    return True


@pytest.fixture
async def fleet(store, tmp_path, open_room, hurried) -> AsyncIterator[tuple[Fleet, Ledger]]:
    """Two processes; at the end nothing that the ledger holds may be lost."""
    ledger = Ledger()
    async with open_room(store.url) as room:
        async with running(
            tmp_path, prefix=room.prefix, apis=2, store=store, hurried=hurried
        ) as fleet:
            yield fleet, ledger
        assert await losses(room, ledger) == []
    ledger.assert_clean()


@pytest.mark.parametrize("hurried", [False])
async def test_an_import_goes_on_at_its_last_committed_line_when_its_lease_has_run_out(fleet):
    fleet, ledger = fleet
    times = JobTimes()
    chance = random.Random(1)
    contents = [content_of(f"line/{n}", n, chance) for n in range(LINES)]
    doomed, heir = fleet.apis
    async with httpx2.AsyncClient(timeout=30) as client:
        sent: dict[str, Any] = {"content": as_lines(contents), "headers": JSONL}
        started = (await client.post(f"{doomed.url}{CATALOG}/imports", **sent)).json()
        before = await _under_way(client, heir, started)
        doomed.kill()
        killed = time.monotonic()
        resumed = await _taken_over(client, heir, started)
        waited_s = time.monotonic() - killed
        assert times.lease_s - 2 * times.heartbeat_s < waited_s < times.lease_s + GONE_S
        if resumed["progress"]["phase"] == before["progress"]["phase"]:
            assert resumed["progress"]["done"] >= before["progress"]["done"]
        job = await _ended(client, heir, started)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    assert job["result"]["accepted"] == LINES
    ledger.put(contents)


async def test_a_process_that_hung_brings_nothing_back(fleet):
    fleet, ledger = fleet
    chance = random.Random(2)
    contents = [content_of(f"line/{n}", n, chance) for n in range(LINES)]
    hung, heir = fleet.apis
    async with httpx2.AsyncClient(timeout=60) as client:
        sent: dict[str, Any] = {"content": as_lines(contents), "headers": JSONL}
        started = (await client.post(f"{hung.url}{CATALOG}/imports", **sent)).json()
        await _under_way(client, heir, started)
        with hung.halted():
            job = await _ended(client, heir, started)
            assert (job["state"], job["attempt"]) == ("succeeded", 2), job
            ledger.put(contents)
            gone = [content["id"] for content in contents[-500:]]
            reply = await client.post(f"{heir.url}{CATALOG}/items:batch", json={"deletes": gone})
            assert reply.status_code == 200, reply.text
            ledger.deleted(gone)
        deadline = time.monotonic() + 5 * TIMES.jobs.heartbeat_s
        while time.monotonic() < deadline:
            assert await _job(client, heir, started) == job
            reply = await client.get(f"{heir.url}{CATALOG}/items/{gone[-1]}")
            assert reply.status_code == 404, reply.text
            await asyncio.sleep(0.1)


async def test_a_run_of_recommendations_is_finished_by_another_process(fleet):
    fleet, ledger = fleet
    await stocked(fleet.urls, ledger, 100)
    doomed, heir = fleet.apis
    wanted = [{"user_id": f"u{number}", "limit": 3} for number in range(LISTS)]
    async with httpx2.AsyncClient(timeout=30) as client:
        sent: dict[str, Any] = {"content": as_lines(wanted), "headers": JSONL}
        path = f"{doomed.url}{CATALOG}/recommendation-runs"
        started = (await client.post(path, **sent)).json()
        await _under_way(client, heir, started)
        doomed.kill()
        await _taken_over(client, heir, started)
        job = await _ended(client, heir, started)
        assert (job["state"], job["attempt"]) == ("succeeded", 2), job
        assert job["result"] == {"lists": LISTS, "problems": 0, "degraded": 0}
        lists = (await client.get(f"{heir.url}/v1/jobs/{job['id']}/result")).text.splitlines()
    assert [json.loads(line)["user_id"] for line in lists] == [one["user_id"] for one in wanted]


async def test_a_rebuild_is_finished_by_another_process(fleet):
    fleet, ledger = fleet
    await stocked(fleet.urls, ledger, STOCK)
    doomed, heir = fleet.apis
    async with httpx2.AsyncClient(timeout=30) as client:
        started = (await client.post(f"{doomed.url}{CATALOG}/tree/rebuilds")).json()
        await _with_workers(doomed)
        doomed.kill()
        await _taken_over(client, heir, started)
        job = await _ended(client, heir, started)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    assert job["result"]["items"] == STOCK


async def test_workers_do_not_outlive_their_process(fleet):
    fleet, ledger = fleet
    await stocked(fleet.urls, ledger, STOCK)
    doomed = fleet.apis[0]
    async with httpx2.AsyncClient(timeout=30) as client:
        reply = await client.post(f"{doomed.url}{CATALOG}/tree/rebuilds")
        assert reply.status_code == 202, reply.text
    await _with_workers(doomed)
    doomed.kill()
    deadline = time.monotonic() + GONE_S
    while left := doomed.workers():
        assert time.monotonic() < deadline, f"processes {left} have outlived the one they work for"
        await asyncio.sleep(0.05)


async def _with_workers(api: Api) -> None:
    """Return when a build in this process has started its workers, beside those who fork them."""
    deadline = time.monotonic() + TAKEN_OVER_S
    while len(api.workers()) < 4:
        assert time.monotonic() < deadline, "the build starts no workers"
        await asyncio.sleep(0.02)


async def _under_way(client: httpx2.AsyncClient, api: Api, job: Content) -> Content:
    """The job as soon as it has done something."""
    deadline = time.monotonic() + TAKEN_OVER_S
    while True:
        job = await _job(client, api, job)
        assert job["state"] in ("queued", "running"), f"over before it could be killed: {job}"
        if job["progress"]["done"]:
            return job
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.01)


async def _taken_over(client: httpx2.AsyncClient, api: Api, job: Content) -> Content:
    deadline = time.monotonic() + TAKEN_OVER_S
    while job["attempt"] != 2:
        job = await _job(client, api, job)
        assert time.monotonic() < deadline, f"nobody takes it over: {job}"
        await asyncio.sleep(0.01)
    return job


async def _ended(client: httpx2.AsyncClient, api: Api, job: Content) -> Content:
    deadline = time.monotonic() + TAKEN_OVER_S
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.1)
        job = await _job(client, api, job)
    return job


async def _job(client: httpx2.AsyncClient, api: Api, job: Content) -> Content:
    reply = await client.get(f"{api.url}/v1/jobs/{job['id']}")
    assert reply.status_code == 200, reply.text
    return reply.json()
