"""Figures of a rebuild beside live traffic, and of a replica that starts cold, at a million."""

import asyncio
import os
import time
from collections.abc import Iterator
from itertools import islice

from app.catalog_settings import CatalogSettings
from app.curate.building import ListSource, build
from app.embedders import LexicalEmbedder
from app.jobs import JobReport
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.living import Readers, reads, resident, tell
from tests.benchmarks.service import Service, joined, running
from tests.benchmarks.serving import store_memory
from tests.catalogs import registry_of
from tree.item import Item
from tree.node import TreeSettings
from tree.redis.connection import connect
from tree.redis.data_folder import running_url
from tree.store.redis_store import RedisTreeStore

_CATALOG = "made-up"
_AT_ONCE = 10_000
_IDLE_S = 15.0


def million(size: int = 1_000_000) -> Iterator[Figure]:
    """The catalogue goes straight to the store; what is measured goes over HTTP."""
    with running(REBUILD_GROWTH="1000") as service:
        tell(f"building and storing {size:,} items")
        some = asyncio.run(_stored(service, size))
        tell("a replica starts")
        before = asyncio.run(store_memory(service))
        start = time.perf_counter()
        with joined(service, 1, REBUILD_GROWTH="1000") as (replica,):
            replica.call("GET", f"/v1/catalogs/{_CATALOG}")  # its tree is loaded
            yield Figure(f"cold start of a replica with {size:,} items",
                         time.perf_counter() - start, "s", "≤", 20)  # fmt: skip
            yield Figure("memory of that process per item", resident(replica.pid) / size, "B")
            yield Figure("memory of the store per item", before / size, "B", "≤", 1_200)
            yield from _rebuilt(replica, some)


def _rebuilt(service: Service, some: list[Item]) -> Iterator[Figure]:
    requests = reads(some)
    tell("readers alone")
    with Readers([service], requests):
        time.sleep(3)
    with Readers([service], requests) as idle:
        time.sleep(_IDLE_S)
    tell("readers beside a rebuild")
    writes = 0
    with Readers([service], requests) as busy:
        start = time.perf_counter()
        job = service.call("POST", f"/v1/catalogs/{_CATALOG}/tree/rebuilds", {})
        phase = ""
        while job["state"] in ("queued", "running"):
            row = some[writes % len(some)].model_dump(exclude_defaults=True, mode="json")
            service.call("POST", f"/v1/catalogs/{_CATALOG}/items:batch", {"upserts": [row]})
            writes += 1
            time.sleep(0.5)
            job = service.call("GET", f"/v1/jobs/{job['id']}")
            if job["progress"]["phase"] != phase:
                phase = job["progress"]["phase"]
                tell(f"{time.perf_counter() - start:.0f} s: {phase}")
        seconds = time.perf_counter() - start
    if job["state"] != "succeeded":
        raise RuntimeError(f"job ended badly: {job}")
    yield Figure(f"rebuild of {job['result']['items']:,} items beside readers, {os.cpu_count()} "
                 "cores", seconds, "s", "≤", 360)  # fmt: skip
    yield Figure("failed requests meanwhile", busy.failed, "", "=", 0)
    yield Figure("writes meanwhile", writes)
    yield Figure("recommend alone, p50", idle.at(50), "ms")
    yield Figure("recommend alone, p99", idle.at(99), "ms")
    yield Figure("recommend beside the rebuild, p50", busy.at(50), "ms")
    yield Figure("recommend beside the rebuild, p99", busy.at(99), "ms", "≤", 3 * idle.at(99))
    yield Figure("recommend beside the rebuild, longest", busy.at(100), "ms")


async def _stored(service: Service, size: int) -> list[Item]:
    """Put the items and a tree of them into the store; some of the items."""
    url = running_url(service.data_dir)
    assert url is not None
    async with connect(url, timeout_s=60) as client:
        # Not by the service, which would place what is staged.
        settings = CatalogSettings(embedder="lexical")
        entry, _ = await registry_of(client).create(_CATALOG, settings)
        store = RedisTreeStore(client, entry.id, space=LexicalEmbedder().space)
        items = data.synthetic_items(size, described=True)
        some: list[Item] = []
        while batch := list(islice(items, _AT_ONCE)):
            await store.stage(batch)
            some += batch[:10]
        staging_seq = await store.staging_seq()
        tree = await build(_Staged(store, size), TreeSettings(), JobReport.unwatched())
        await store.replace(tree, base=(await store.load()).version, staging_seq=staging_seq)
        await store.aclose()
    return some


class _Staged(ListSource):
    """Made-up items as the store holds them."""

    def __init__(self, store: RedisTreeStore, size: int) -> None:
        super().__init__(())
        self._store = store
        self._count = size

    @property
    def size(self) -> int:
        return self._count

    async def read(self, step: int = 1):
        ids = [f"item-{number}" for number in range(0, self._count, step)]
        for start in range(0, len(ids), 1_000):
            yield await self._store.records(ids[start : start + 1_000])
