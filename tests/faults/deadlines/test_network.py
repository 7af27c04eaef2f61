"""The network between the service and its store goes bad; the service says so, and recovers."""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.conftest import Room
from tests.faults.checks import losses
from tests.faults.fleet import Fleet, running, stored
from tests.faults.ledger import Content, Ledger
from tests.faults.traffic import (
    CATALOG,
    JSONL,
    Client,
    as_lines,
    at_work,
    content_of,
    item_url,
    stocked,
)
from tests.servers.shim import Shim

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 10  # for requests that name none; the store's own is 5 s
READ_S = 2  # named by a recommendation
SLACK_S = 1
HEALED_S = 10
JOB_S = 60


@dataclass
class Bad:
    """A fleet whose way to the store is bad, and who asks it."""

    fleet: Fleet
    shim: Shim
    ledger: Ledger
    client: Client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(open_room) -> AsyncIterator[tuple[Fleet, Shim, Room]]:
    """Two processes, whose way to their store goes bad."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        async with (
            stored(Path(folder)) as store,
            open_room(store.url) as room,
            Shim.before(store.socket) as shim,
            running(
                Path(folder), prefix=room.prefix, apis=2, store=store, store_url=shim.url
            ) as fleet,
        ):
            yield fleet, shim, room


@pytest_asyncio.fixture(loop_scope="module")
async def bad(network) -> AsyncIterator[Bad]:
    """Afterwards the network is good again, and nothing is lost."""
    fleet, shim, room = network
    ledger = Ledger()
    await stocked(fleet.urls, ledger, 200)
    client = Client(fleet.urls, ledger, "network")
    shim.cuts = 0
    try:
        yield Bad(fleet, shim, ledger, client)
    finally:
        await client.aclose()
        shim.heal()
        await fleet.ready(HEALED_S)
    assert await losses(room, ledger) == []


def requests(random_: random.Random) -> list[tuple[str, str, dict[str, object]]]:
    """One request of every kind, by method, path and what goes with them."""
    content = content_of("asked", 1, random_)
    body = {name: value for name, value in content.items() if name != "id"}
    question = {"instruction": "an amber bridge", "timeout_ms": READ_S * 1_000}
    return [
        ("POST", f"{CATALOG}/recommend", {"json": question}),
        ("POST", f"{CATALOG}/recommend", {"json": {**question, "explain": "full"}}),
        ("GET", f"{CATALOG}/similar", {"params": {"item_id": "stock/1"}}),
        ("PUT", item_url("asked"), {"json": body}),
        ("DELETE", item_url("never there"), {}),
        ("PATCH", item_url("asked"), {"json": {"title": "a patched one"}}),
        ("GET", item_url("stock/2"), {}),
        ("POST", f"{CATALOG}/items:batch", {"json": {"upserts": [{**content, "id": "batched"}]}}),
        ("POST", f"{CATALOG}/imports", {"content": as_lines([content]), "headers": JSONL}),
        ("POST", f"{CATALOG}/tree/rebuilds", {"json": {"mode": "relabel"}}),
        ("GET", f"{CATALOG}/tree", {}),
        ("GET", f"{CATALOG}/tree/nodes/0", {}),
        ("GET", f"{CATALOG}/exports/items", {}),
        ("GET", CATALOG, {}),
        ("GET", "/v1/catalogs", {}),
        ("GET", "/v1/jobs", {}),
        ("GET", "/v1/jobs/job_unknown", {}),
        ("GET", "/readyz", {}),
        ("GET", "/livez", {}),
    ]


async def timed(bad: Bad, url: str, method: str, path: str, sent: dict) -> tuple[str, int, float]:
    """What was asked, the status, 0 for a refusal, and after how many seconds."""
    start = time.monotonic()
    reply = await bad.client.ask(method, path, url, **sent)
    status = reply.status_code if reply is not None else 0
    return f"{method} {path}", status, time.monotonic() - start


async def answers(bad: Bad, copies: int = 1) -> list[tuple[str, int, float]]:
    """Every kind of request, to every process, all at once."""
    return await asyncio.gather(
        *(
            timed(bad, url, *request)
            for url in bad.fleet.urls
            for request in requests(bad.client.random) * copies
        )
    )


async def assert_healed(bad: Bad) -> None:
    """Every process does all of its work again, without a restart."""
    bad.shim.heal()
    pids = [api.pid for api in bad.fleet.apis]
    await bad.fleet.ready(HEALED_S)
    for url in bad.fleet.urls:
        for method, path, sent in requests(bad.client.random):
            what, status, seconds = await timed(bad, url, method, path, sent)
            if not path.endswith(("/rebuilds", "unknown")):
                assert status < 300, (what, status)
            assert seconds < DEADLINE_S, (what, seconds)
    assert [api.pid for api in bad.fleet.apis if api.running] == pids


def assert_in_time(found: list[tuple[str, int, float]]) -> None:
    for what, status, seconds in found:
        allowed = READ_S if what.endswith("/recommend") else DEADLINE_S
        assert seconds < allowed + SLACK_S, f"{what}: {status} after {seconds:.1f} s"


async def test_a_store_that_falls_silent_holds_no_request_beyond_its_deadline(bad):
    bad.shim.pause()
    assert_in_time(await answers(bad, copies=5))
    assert bad.ledger.counts["refused with 503"]
    assert bad.ledger.counts["refused with 504"]
    await assert_healed(bad)
    bad.ledger.assert_clean()


async def test_connections_that_break_are_made_again(bad):
    for _ in range(5):
        asked = asyncio.create_task(answers(bad))
        for _ in range(20):
            bad.shim.cut()
            await asyncio.sleep(0.005)
        assert_in_time(await asked)
    assert bad.shim.cuts > 20
    await assert_healed(bad)
    bad.ledger.assert_clean()


async def test_replies_that_break_off_are_never_taken_for_whole(bad):
    chance = random.Random(5)
    for _ in range(30):
        bad.shim.cut_replies_after(chance.choice([0, 1, 5, 50, 500, 5_000]))
        assert_in_time(await asyncio.gather(*(
            timed(bad, chance.choice(bad.fleet.urls), *request)
            for request in chance.sample(requests(chance), 5)
        )))  # fmt: skip
    assert bad.shim.cuts > 15
    await assert_healed(bad)
    bad.ledger.assert_clean()


async def test_a_slow_network_slows_and_breaks_nothing(bad):
    bad.shim.delay_s = 0.05
    found = await answers(bad)
    assert_in_time(found)
    assert {status for what, status, _ in found if what.startswith("GET /readyz")} == {200}
    await assert_healed(bad)
    bad.ledger.assert_clean()


async def test_traffic_goes_through_a_network_that_comes_and_goes(bad):
    chance = random.Random(7)
    async with at_work(bad.fleet.urls, bad.ledger, 7, writers=2, readers=2):
        for _ in range(12):
            await asyncio.sleep(chance.uniform(0.1, 0.4))
            match chance.randrange(4):
                case 0:
                    bad.shim.cut()
                case 1:
                    bad.shim.cut_replies_after(chance.randrange(20_000))
                case 2:
                    bad.shim.delay_s = chance.uniform(0.001, 0.02)
                case 3:
                    bad.shim.pause()
                    await asyncio.sleep(chance.uniform(0.1, 1.0))
                    bad.shim.heal()
        bad.shim.heal()
    bad.ledger.assert_clean()
    assert bad.ledger.counts["answers"] > 20
    await assert_healed(bad)


@pytest.mark.parametrize(
    "silence_s",
    [
        pytest.param(0.0, id="cuts"),
        pytest.param(6.5, id="silence", marks=pytest.mark.long("Sunday")),
    ],
)
async def test_jobs_end_well_or_say_why(bad, silence_s):
    chance = random.Random(11)
    contents = [content_of(f"bulk/{n}", n, chance) for n in range(2_000)]
    started = [
        await bad.client.insist("POST", f"{CATALOG}/tree/rebuilds", json={"mode": "full"}),
        await bad.client.insist(
            "POST", f"{CATALOG}/imports", content=as_lines(contents), headers=JSONL
        ),
    ]
    for _ in range(10):
        bad.shim.cut()
        await asyncio.sleep(0.05)
    if silence_s:
        bad.shim.pause()
        await asyncio.sleep(silence_s)
    bad.shim.heal()
    rebuild, imported = [await ended(bad, reply.json()) for reply in started]
    for job in (rebuild, imported):
        if job["state"] == "failed":
            assert job["problem"]["code"] not in ("", "internal"), job
            assert job["problem"]["detail"], job
    if imported["state"] != "succeeded":  # what was read is durable: the rest is sent again
        reply = await bad.client.insist(
            "POST", f"{CATALOG}/imports", content=as_lines(contents), headers=JSONL
        )
        imported = await ended(bad, reply.json())
        assert imported["state"] == "succeeded", imported
    assert imported["result"]["accepted"] == len(contents)
    bad.ledger.put(contents)
    await assert_healed(bad)
    bad.ledger.assert_clean()


async def ended(bad: Bad, job: Content) -> Content:
    deadline = time.monotonic() + JOB_S
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, f"the job does not end: {job}"
        await asyncio.sleep(0.1)
        job = (await bad.client.insist("GET", f"/v1/jobs/{job['id']}")).json()
    return job
