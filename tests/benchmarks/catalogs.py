"""Catalogues deleted and created again under writes, while API processes are killed."""

import asyncio
import gzip
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.living import tell
from tests.catalogs import registry_of
from tests.faults.fleet import Fleet, Store, running
from tree.redis.connection import connect

_REAL = "amazon_cds"
_ROUNDS = 50
_PROCESSES = 3
_WRITERS = 4
_PATH = "/v1/catalogs/v0"
_HANGS_S = 30.0
_FREE_S = 90.0  # until the name is free, also when the process that deletes is killed
_CHECKED = 200  # acknowledged writes of a round that are looked for, at most
_WHOLE_SHARE = 0.2  # of the rounds: those in which the import has ended
_WHOLE_S = 120.0
_PREFIX = "bench"


def real() -> Iterator[Figure]:
    """50 rounds: 64,031 items arrive beside writers, and the catalogue goes under both."""
    items = data.real_items(_REAL)
    payload = gzip.compress(b"\n".join(item.record() for item in items), 1)
    tally = asyncio.run(_measured(payload, len(items)))
    tell(", ".join(f"{what}: {count:,}" for what, count in sorted(tally.counts.items())))
    for fault in tally.faults[:10]:
        tell(fault)
    counts = tally.counts
    yield Figure(f"rounds of {len(items):,} items", counts["rounds"], "", "=", _ROUNDS)
    yield Figure("processes killed", counts["killed"], "", "≥", _ROUNDS // 3)
    yield Figure("acknowledged writes that were looked for", counts["checked"])
    yield Figure("acknowledged writes lost", counts["lost"], "", "=", 0)
    yield Figure("writes of a deleted catalogue found in the next", counts["back"], "", "=", 0)
    yield Figure("answers of damage, or that were not expected", counts["corrupt"], "", "=", 0)
    yield Figure(f"requests without an answer for {_HANGS_S:.0f} s, names that stay taken",
                 counts["hangs"], "", "=", 0)  # fmt: skip
    yield Figure("keys of no catalogue at the end", counts["strays"], "", "=", 0)
    yield Figure("slowest deletion that nobody was killed in", tally.slowest_s, "s")


@dataclass
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def fault(self, what: str, detail: str) -> None:
        self.counts[what] += 1
        self.faults.append(f"{what}: {detail}")


@dataclass(frozen=True)
class _Write:
    item_id: str
    asked: float
    answered: float


@dataclass
class _World:
    """Who is asked, what was acknowledged, and what went wrong."""

    fleet: Fleet
    client: httpx2.AsyncClient
    chance: random.Random
    tally: _Tally
    writes: list[_Write] = field(default_factory=list)
    over: bool = False

    async def ask(self, method: str, path: str, url: str = "", **more: Any) -> httpx2.Response:
        """The answer of a process that lives. Raises TransportError where it dies meanwhile."""
        url = url or self.chance.choice(self.fleet.urls)
        try:
            reply = await self.client.request(method, url + path, **more)
        except httpx2.TimeoutException:
            self.tally.fault("hangs", f"{method} {path}")
            raise
        if reply.status_code >= 500:
            self.tally.fault("corrupt", f"{method} {path}: {reply.status_code} {reply.text[:200]}")
        return reply


async def _measured(payload: bytes, size: int) -> _Tally:
    tally = _Tally()
    with tempfile.TemporaryDirectory(prefix="unillmrec-bench-") as folder:
        store = Store(Path(folder), {"appendfsync": "everysec"})
        async with (
            running(
                Path(folder), prefix=_PREFIX, apis=_PROCESSES, store=store, hurried=False
            ) as fleet,
            httpx2.AsyncClient(timeout=_HANGS_S) as client,
        ):
            world = _World(fleet, client, random.Random(5), tally)
            async with _writing(world):
                for number in range(_ROUNDS):
                    tell(f"round {number + 1} of {_ROUNDS}")
                    await _round(world, payload, size)
                    tally.counts["rounds"] += 1
            await fleet.ready()
            await _named(world)
            async with connect(store.url) as redis:
                tally.counts["strays"] = sum((await registry_of(redis, _PREFIX).strays()).values())
        store.stop()
    return tally


@asynccontextmanager
async def _writing(world: _World) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        for number in range(_WRITERS):
            group.create_task(_writer(world, number))
        try:
            yield
        finally:
            world.over = True


async def _writer(world: _World, number: int) -> None:
    """One item after the other, whatever happens to the catalogue."""
    at = 0
    while not world.over:
        at += 1
        item_id, asked = f"w{number}-{at}", time.monotonic()
        try:
            reply = await world.ask("PUT", f"{_PATH}/items/{item_id}", json={"title": "A record"})
        except httpx2.TransportError:
            await asyncio.sleep(0.05)
            continue
        if reply.status_code == 201:
            world.writes.append(_Write(item_id, asked, time.monotonic()))
        elif reply.status_code != 404:
            world.tally.fault("corrupt", f"a write: {reply.status_code} {reply.text[:200]}")
        await asyncio.sleep(0.02)


async def _round(world: _World, payload: bytes, size: int) -> None:
    """A catalogue is made, filled and deleted; half of the time a process is killed in it."""
    asked_at, created_at = await _created(world)
    gone = [write.item_id for write in world.writes if write.answered < asked_at][-50:]
    await _import(world, payload)
    until = _WHOLE_S if world.chance.random() < _WHOLE_SHARE else world.chance.uniform(0.5, 6.0)
    await _filled(world, size, until)
    kept = [write for write in world.writes if write.asked > created_at]
    await _check(world, kept, gone, size)
    killed = world.chance.random() < 0.5
    deleting = world.chance.choice(world.fleet.apis)
    victim = deleting if world.chance.random() < 0.7 else world.chance.choice(world.fleet.apis)
    began = time.monotonic()
    deletion = asyncio.create_task(_deleted(world, deleting.url))
    if killed:
        await asyncio.sleep(world.chance.choice([0.0, 0.01, 0.05, 0.2, 0.5, 1.0]))
        victim.kill()
        world.tally.counts["killed"] += 1
    await deletion
    if not killed:
        world.tally.slowest_s = max(world.tally.slowest_s, time.monotonic() - began)
    await world.fleet.revive()


async def _created(world: _World) -> tuple[float, float]:
    """When the creation was asked for that took the name, and when it was answered.

    Writers may meet the new catalogue in between. Creations before that are told that the name is
    in use, or being deleted.
    """
    deadline = time.monotonic() + _FREE_S
    while True:
        asked_at = time.monotonic()
        try:
            reply = await world.ask("PUT", _PATH)
        except httpx2.TransportError:
            await asyncio.sleep(0.05)
            continue
        if reply.status_code == 201:
            return asked_at, time.monotonic()
        if reply.status_code == 200:  # the process was killed before it began to delete
            await _deleted(world, "")
        elif (reply.status_code, reply.json()["code"]) != (409, "being_deleted"):
            world.tally.fault("corrupt", f"PUT: {reply.status_code} {reply.text[:200]}")
        if time.monotonic() > deadline:
            world.tally.fault("hangs", "the name is not free")
            deadline = time.monotonic() + _FREE_S
        await asyncio.sleep(0.05)


async def _import(world: _World, payload: bytes) -> None:
    headers = {"Content-Type": "application/gzip"}
    while True:
        try:
            reply = await world.ask("POST", f"{_PATH}/imports", content=payload, headers=headers)
        except httpx2.TransportError:
            await asyncio.sleep(0.05)
            continue
        if reply.status_code != 202:
            world.tally.fault("corrupt", f"an import: {reply.status_code} {reply.text[:200]}")
        return


async def _filled(world: _World, size: int, within_s: float) -> None:
    """Return when all items have their place, or the time is over."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        view = await _insist(world, _PATH)
        if view.status_code == 200 and (view.json()["items"] or 0) >= size:
            return
        await asyncio.sleep(0.2)


async def _check(world: _World, kept: list[_Write], gone: list[str], size: int) -> None:
    """What was acknowledged in this catalogue is there, and nothing of the one before."""
    sample = world.chance.sample(kept, min(len(kept), _CHECKED))
    for item_id, status in [
        *((write.item_id, 200) for write in sample),
        *((item_id, 404) for item_id in gone),
    ]:
        reply = await _insist(world, f"{_PATH}/items/{item_id}")
        world.tally.counts["checked"] += 1
        if reply.status_code != status:
            world.tally.fault("lost" if status == 200 else "back", f"{item_id}: {reply.text[:200]}")
    view = await _insist(world, _PATH)
    if view.status_code != 200 or view.json()["problem"] is not None:
        world.tally.fault("corrupt", f"the catalogue: {view.text[:200]}")
    elif view.json()["items"] >= size:
        world.tally.counts["deleted when whole"] += 1
    await _named(world)


async def _named(world: _World) -> None:
    listed = await _insist(world, "/v1/catalogs")
    if listed.status_code != 200 or any(one["problem"] for one in listed.json()["catalogs"]):
        world.tally.fault("corrupt", f"the list: {listed.text[:200]}")


async def _insist(world: _World, path: str) -> httpx2.Response:
    while True:
        try:
            return await world.ask("GET", path)
        except httpx2.TransportError:
            await asyncio.sleep(0.05)


async def _deleted(world: _World, url: str) -> None:
    """Ask for the deletion once; who is killed leaves it to the others."""
    try:
        reply = await world.ask("DELETE", _PATH, url, params={"confirm": "v0"})
    except httpx2.TransportError:
        return
    if reply.status_code not in (204, 404):
        world.tally.fault("corrupt", f"DELETE: {reply.status_code} {reply.text[:200]}")
