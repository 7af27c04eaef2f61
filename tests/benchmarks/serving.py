"""Figures over HTTP: import, latency, throughput, single inserts, and the store's memory."""

import asyncio
import http.client
import json
import urllib.parse
from collections.abc import Iterator

import numpy as np

from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.service import Service, latencies, running, throughput, timed
from tree.item import Item
from tree.redis.connection import connect
from tree.redis.data_folder import running_url

_INSERTS = 300
_STORE_ITEMS = 100_000


def real() -> Iterator[Figure]:
    """The 64k music catalogue: imported over HTTP, then asked."""
    items = data.real_items("amazon_cds")
    with running() as service:
        service.call("PUT", "/v1/catalogs/cds", {})
        yield from _imported(service, "cds", items)
        requests = _requests("cds", data.histories("amazon_cds", 200))
        latencies(service.port, "POST", requests[:50])
        spent = latencies(service.port, "POST", requests * 5)
        yield Figure("recommend at 64k, one client, p50", float(np.percentile(spent, 50)), "ms",
                     "≤", 10)  # fmt: skip
        yield Figure("recommend at 64k, one client, p99", float(np.percentile(spent, 99)), "ms",
                     "≤", 40)  # fmt: skip
        rate, spent = throughput(service.port, requests, clients=16, seconds=10)
        yield Figure("recommends per second, 16 clients, one worker", rate, "/s", "≥", 150)
        yield Figure("latency under that load, p50", float(np.percentile(spent, 50)), "ms")
        yield Figure("latency under that load, p99", float(np.percentile(spent, 99)), "ms")


def synthetic() -> Iterator[Figure]:
    """100k made-up items of 300 B text: single inserts, and what the store holds."""
    items = list(data.synthetic_items(_STORE_ITEMS, described=True))
    with running() as service:
        before = asyncio.run(store_memory(service))
        service.call("PUT", "/v1/catalogs/made-up", {})
        yield from _imported(service, "made-up", items, target=None)
        each = (asyncio.run(store_memory(service)) - before) / len(items)
        yield Figure("store memory per item of 300 B text", each, "B", "≤", 1_200)
        fresh = [
            item.model_copy(update={"id": f"new/{item.id}", "title": f"{item.title} again"})
            for item in data.synthetic_items(_INSERTS, seed=7, described=True)
        ]
        puts = [
            (f"/v1/catalogs/made-up/items/{urllib.parse.quote(item.id)}", item.record())
            for item in fresh
        ]
        latencies(service.port, "PUT", puts[:20])
        spent, unseen = [], 0
        for item, put in zip(fresh[20:], puts[20:], strict=True):
            spent += latencies(service.port, "PUT", [put])
            unseen += not _answered(service, "made-up", item)
        yield Figure("single insert at 100k, p50", float(np.percentile(spent, 50)), "ms")
        yield Figure("single insert at 100k, p95", float(np.percentile(spent, 95)), "ms", "≤", 20)
        yield Figure("inserts that the next request does not see", unseen, "", "=", 0)


def _imported(
    service: Service, catalog: str, items: list[Item], *, target: float | None = 60
) -> Iterator[Figure]:
    payload = b"\n".join(item.record() for item in items)
    job: dict[str, dict[str, int]] = {}

    def load() -> None:
        started = service.call("POST", f"/v1/catalogs/{catalog}/imports", payload)
        job.update(service.finished(started))

    seconds = timed(load)
    result = job["result"]
    tree = service.call("GET", f"/v1/catalogs/{catalog}/tree?depth=1")
    yield Figure(f"import of {len(items):,} items over HTTP, tree ready", seconds, "s", "≤", target)
    yield Figure("items lost", len(items) - _exported(service, catalog), "", "=", 0)
    yield Figure("lines - accepted - rejected",
                 result["lines"] - result["accepted"] - result["rejected"], "", "=", 0)  # fmt: skip
    yield Figure("items missing in the tree", len(items) - tree["items"], "", "=", 0)


def _exported(service: Service, catalog: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
    connection.request("GET", f"/v1/catalogs/{catalog}/exports/items")
    response = connection.getresponse()
    ids = {json.loads(line)["id"] for line in response}
    connection.close()
    return len(ids)


def _requests(catalog: str, histories: list[list[str]]) -> list[tuple[str, bytes]]:
    path = f"/v1/catalogs/{catalog}/recommend"
    return [
        (path, json.dumps({"history": [{"item_id": i} for i in ids], "limit": 10}).encode())
        for ids in histories
    ]


def _answered(service: Service, catalog: str, item: Item) -> bool:
    """Whether a reader who asks for this very title is offered it."""
    body = {"instruction": item.text[:1_000], "limit": 20}
    answer = service.call("POST", f"/v1/catalogs/{catalog}/recommend", body)
    return item.id in {found["item_id"] for found in answer["items"]}


async def store_memory(service: Service) -> int:
    """Bytes that the embedded store of a service holds."""
    url = running_url(service.data_dir)
    assert url is not None
    client = connect(url)
    try:
        return int((await client.info("memory"))["used_memory"])
    finally:
        await client.aclose()
