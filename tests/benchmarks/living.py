"""Figures of a tree that lives: ingestion, what readers see of it, and how replicas keep up."""

import asyncio
import http.client
import json
import os
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.service import Service, joined, running
from tests.benchmarks.serving import store_memory
from tree.item import Item

_CATALOG = "made-up"
_ITEMS = 100_000
_BATCH = 1_000
_CLIENTS = 4  # per API process
_INGEST_S = 20.0
_READS_PER_S = 20.0
_VISITS = 20
_SOAK_BATCHES_PER_S = 5.0
_NO_REBUILD = {"REBUILD_GROWTH": "1000"}  # a rebuild beside it has figures of its own


def ingest() -> Iterator[Figure]:
    """Batches over HTTP into 100k items, through one process and through three on one store."""
    with running(**_NO_REBUILD) as service:
        tell("importing the first items")
        items = list(data.synthetic_items(_ITEMS, described=True))
        service.call("PUT", f"/v1/catalogs/{_CATALOG}", {})
        payload = b"\n".join(item.record() for item in items)
        service.finished(service.call("POST", f"/v1/catalogs/{_CATALOG}/imports", payload))
        requests = reads(items)
        yield from _ingested([service], requests, first=0, target=3_000)
        with joined(service, 2, **_NO_REBUILD) as others:
            everyone = [service, *others]
            yield from _ingested(everyone, requests, first=1, target=6_000)
            lags = _visibility(service, others[0])
            yield Figure("acknowledged to seen on another replica, p50",
                         float(np.percentile(lags, 50)), "ms")  # fmt: skip
            yield Figure("acknowledged to seen on another replica, p99",
                         float(np.percentile(lags, 99)), "ms", "≤", 200)  # fmt: skip
            with Load(everyone, 1_000, seed=900):
                lags = _visibility(service, others[0])
            yield Figure("the same while batches arrive, p99",
                         float(np.percentile(lags, 99)), "ms", "≤", 200)  # fmt: skip


def _ingested(
    services: Sequence[Service], requests: Sequence[tuple[str, bytes]], *, first: int, target: int
) -> Iterator[Figure]:
    who = "1 process" if len(services) == 1 else f"{len(services)} processes"
    tell(f"readers alone, {who}")
    with Readers(services, requests) as idle:
        time.sleep(_INGEST_S / 2)
    tell(f"readers beside ingestion, {who}")
    with Load(services, _BATCH, seed=100 * (first + 1)) as load:
        time.sleep(2)
        with Readers(services, requests) as busy:
            before, spent, start = load.items, _cpu_s(services), time.perf_counter()
            time.sleep(_INGEST_S)
            items, spent = load.items - before, _cpu_s(services) - spent
            rate = items / (time.perf_counter() - start)
    yield Figure(f"ingestion, {who}", rate, "items/s", "≥", target)
    yield Figure(f"processor time, readers included, {who}", 1000 * spent / items, "ms/item")
    yield Figure(f"batch of {_BATCH:,}, {who}, p50", float(np.percentile(load.spent, 50)), "ms")
    yield Figure(f"recommend alone, {who}, p50", idle.at(50), "ms")
    yield Figure(f"recommend alone, {who}, p99", idle.at(99), "ms")
    yield Figure(f"recommend beside ingestion, {who}, p50", busy.at(50), "ms")
    yield Figure(f"recommend beside ingestion, {who}, p99", busy.at(99), "ms", "≤",
                 3 * idle.at(99))  # fmt: skip
    yield Figure(f"failed requests, {who}", load.failed + idle.failed + busy.failed, "", "=", 0)


def _cpu_s(services: Sequence[Service]) -> float:
    """Processor seconds that the services and the processes they started have taken so far.

    On a machine that others use, too, it says more than the rate.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            ticks[int(path.parent.name)] = int(fields[11]) + int(fields[12])
    wanted = {service.pid for service in services}
    while more := {pid for pid, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    return sum(ticks.get(pid, 0) for pid in wanted) / os.sysconf("SC_CLK_TCK")


def tell(what: str) -> None:
    """Progress, beside the figures."""
    print(f"  {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def reads(items: Sequence[Item], count: int = 200) -> list[tuple[str, bytes]]:
    """Requests for recommendations, each by five items of the catalogue."""
    rng = np.random.default_rng(5)
    path = f"/v1/catalogs/{_CATALOG}/recommend"
    return [
        (path, json.dumps({
            "history": [{"item_id": items[i].id} for i in rng.integers(0, len(items), 5)],
            "limit": 10,
        }).encode())
        for _ in range(count)
    ]  # fmt: skip


@dataclass
class Readers:
    """Asks all services in turn at a modest rate while the block runs."""

    services: Sequence[Service]
    requests: Sequence[tuple[str, bytes]]
    spent: list[float] = field(default_factory=list)
    failed: int = 0

    def __enter__(self) -> "Readers":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def at(self, percentile: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.spent, percentile))

    def _read(self) -> None:
        connections = [
            http.client.HTTPConnection("127.0.0.1", each.port, timeout=60) for each in self.services
        ]
        start, number = time.perf_counter(), 0
        while not self._stop.is_set():
            path, body = self.requests[number % len(self.requests)]
            sent = time.perf_counter()
            status = _posted(connections[number % len(connections)], path, body)
            self.spent.append((time.perf_counter() - sent) * 1000)
            self.failed += status >= 300
            number += 1
            time.sleep(max(0.0, start + number / _READS_PER_S - time.perf_counter()))


class Load:
    """Batches of new items for all services while the block runs, from processes of their own."""

    def __init__(self, services: Sequence[Service], batch: int, *, seed: int) -> None:
        context = get_context("spawn")
        self._stop = context.Event()
        self._items = context.Value("q", 0)
        self._failed = context.Value("q", 0)
        self._spent = context.Queue()
        ready = context.Barrier(len(services) + 1)
        self._ready = ready
        self._processes = [
            context.Process(
                target=_load,
                args=(each.port, batch, seed + number, ready, self._stop, self._items,
                      self._failed, self._spent),
                daemon=True,
            )
            for number, each in enumerate(services)
        ]  # fmt: skip
        self.spent: list[float] = []

    @property
    def items(self) -> int:
        """Acknowledged so far."""
        return int(self._items.value)

    @property
    def failed(self) -> int:
        return int(self._failed.value)

    def __enter__(self) -> "Load":
        for process in self._processes:
            process.start()
        self._ready.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for _process in self._processes:
            self.spent += self._spent.get(timeout=120)
        for process in self._processes:
            process.join(60)


def _load(port, batch, seed, ready, stop, items, failed, spent) -> None:
    """What a load process does: `_CLIENTS` clients of one service, on bodies made beforehand."""
    fresh = [item.model_dump(exclude_defaults=True, mode="json")
             for item in data.synthetic_items(20_000, seed=seed, described=True)]  # fmt: skip
    bodies = [
        json.dumps({"upserts": fresh[start : start + batch]}).encode()
        for start in range(0, len(fresh), batch)
    ]
    took: list[float] = []
    ready.wait(120)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        turn = 0
        while not stop.is_set():
            body = bodies[(number + turn * _CLIENTS) % len(bodies)]
            mark = f'"id": "{seed}-{number}-{turn}-'.encode()
            turn += 1
            start = time.perf_counter()
            status = _posted(connection, f"/v1/catalogs/{_CATALOG}/items:batch",
                             body.replace(b'"id": "item-', mark))  # fmt: skip
            took.append((time.perf_counter() - start) * 1000)
            with items.get_lock(), failed.get_lock():
                if status < 300:
                    items.value += batch
                else:
                    failed.value += 1
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent.put(took)


def _posted(connection: http.client.HTTPConnection, path: str, body: bytes) -> int:
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


def soak(minutes: float = 1.0) -> Iterator[Figure]:
    """The memory of a service and of its store under steady writes that leave the size as it is.

    Batches replace the same items over and over, beside readers; the slope is a least-squares fit
    over the second half, when what grows at first has grown.
    """
    items = list(data.synthetic_items(20_000, described=True))
    rows = [item.model_dump(exclude_defaults=True, mode="json") for item in items]
    bodies = [
        json.dumps({"upserts": rows[start : start + 100]}).encode()
        for start in range(0, len(rows), 100)
    ]
    short = {**_NO_REBUILD, "TRACE_TTL_S": "20"}  # traces grow for as long as they are kept
    with running(**short) as service:
        service.call("PUT", f"/v1/catalogs/{_CATALOG}", {})
        payload = b"\n".join(item.record() for item in items)
        service.finished(service.call("POST", f"/v1/catalogs/{_CATALOG}/imports", payload))
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        samples: list[tuple[float, int, int]] = []
        start, number = time.perf_counter(), 0
        with Readers([service], reads(items)) as readers:
            while (now := time.perf_counter() - start) < 60 * minutes:
                _posted(connection, f"/v1/catalogs/{_CATALOG}/items:batch", bodies[number % 200])
                number += 1
                if not samples or now - samples[-1][0] >= 1:
                    samples.append((now, resident(service.pid), _store_bytes(service)))
                    if len(samples) % 30 == 0:
                        mib = [size / 2**20 for size in samples[-1][1:]]
                        tell(f"{now:.0f} s: service {mib[0]:.0f} MiB, store {mib[1]:.0f} MiB")
                time.sleep(max(0.0, start + number / _SOAK_BATCHES_PER_S - time.perf_counter()))
        connection.close()
    late = np.array(samples[len(samples) // 2 :], np.float64)
    for column, what in ((1, "service"), (2, "store")):
        slope = float(np.polyfit(late[:, 0], late[:, column], 1)[0]) * 60 / 2**20
        yield Figure(f"memory of the {what} at the end", late[-1, column] / 2**20, "MiB")
        yield Figure(f"its growth over the second half of {minutes:g} min", slope, "MiB/min")
    yield Figure("items written meanwhile", 100 * number)
    yield Figure("failed reads", readers.failed, "", "=", 0)


def _store_bytes(service: Service) -> int:
    return asyncio.run(store_memory(service))


def _visibility(writer: Service, reader: Service) -> list[float]:
    """Milliseconds from the answer to a put until another replica offers the item."""
    tell("puts through one replica, looked for on another")
    lags = []
    for item in data.synthetic_items(_VISITS, seed=77, described=True):
        title = f"{item.title} {time.monotonic_ns()}"
        item_id = f"seen/{time.monotonic_ns()}"
        path = f"/v1/catalogs/{_CATALOG}/items/{urllib.parse.quote(item_id)}"
        writer.call("PUT", path, {"title": title, "description": item.description})
        start = time.perf_counter()
        body = {"instruction": f"{title} {item.description}"[:1_000], "limit": 20}
        while True:
            answer = reader.call("POST", f"/v1/catalogs/{_CATALOG}/recommend", body)
            if any(found["item_id"] == item_id for found in answer["items"]):
                break
            if time.perf_counter() - start > 10:
                raise RuntimeError(f"{title!r} was not seen within ten seconds")
        lags.append((time.perf_counter() - start) * 1000)
    return lags


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4_096
