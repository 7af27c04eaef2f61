"""Attribution: what an answer leaves in the store, its cost, and how fast events are joined."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.attribution import Answered, Attributor
from app.event_types import EventRules
from app.storage.feedback import Event
from app.storage.redis_attribution import RedisAttribution
from tests.benchmarks.figures import Figure
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer

_LISTS = 4_000
_ITEMS = 10
_BATCH = 100
_WEEK_S = 604_800
_SCENARIOS = ("home", "cart", "item", "search", "mail")


def real() -> Iterator[Figure]:
    """Lists of ten items with ids of eight characters; three variants, five scenarios."""
    yield from asyncio.run(_measured())


async def _measured() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="unillmrec-bench-") as folder:
        server = await EmbeddedServer.start(Path(folder))
        try:
            async with connect(server.connect_url) as client:
                store = RedisAttribution(client, "shop")
                attributor = Attributor("shop", store, _WEEK_S)
                walls, cpu_ms = await _kept(attributor)
                sizes: dict[str, list[int]] = {"list": [], "tally": []}
                async for key in client.scan_iter(match="unillmrec:*", count=1_000):
                    role = key.decode().split("}:")[1].partition(":")[0]
                    sizes[role].append(int(await client.memory_usage(key, samples=0) or 0))
                joined = await _joined(attributor)
        finally:
            await server.stop()
    return [
        Figure("an answer is kept: least", min(walls), "ms"),
        Figure("an answer is kept: median", float(np.median(walls)), "ms"),
        Figure("an answer is kept: processor time of the service", cpu_ms, "ms", "≤", 0.5),
        Figure(f"kept of an answer with {_ITEMS} items", float(np.mean(sizes["list"])), "B"),
        Figure("tallies of a day", float(np.mean(sizes["tally"])) / 1024, "kB", "≤", 64),
        Figure(f"{_BATCH} events are joined: least", min(joined), "ms", "≤", 5),
        Figure(f"{_BATCH} events are joined: median", float(np.median(joined)), "ms"),
        Figure(f"{_BATCH} events are joined: p99", float(np.percentile(joined, 99)), "ms"),
    ]


async def _kept(attributor: Attributor) -> tuple[list[float], float]:
    """Milliseconds for each answer, and of processor time on average."""
    walls = []
    before = time.process_time()
    for number in range(_LISTS):
        began = time.perf_counter()
        await attributor.keep(
            Answered(
                list_id=f"rec_{number:022}",
                user_id=f"user {number % 1_000}",
                variant=("default", "bold", "calm")[number % 3],
                strategy="beam" if number % 2 else "embedded",
                effort="economy" if number % 2 else "-",
                scenario=_SCENARIOS[number % 5],
                degraded=not number % 50,
                tree_version=7,
                items=[f"{number % 97:06}{place:02}" for place in range(_ITEMS)],
            )
        )
        walls.append(1000 * (time.perf_counter() - began))
    return walls, 1000 * (time.process_time() - before) / _LISTS


async def _joined(attributor: Attributor) -> list[float]:
    """Milliseconds for each batch of events of a hundred lists."""
    rng, rules = np.random.default_rng(0), EventRules()
    kinds = rng.choice(
        ("impression", "click", "purchase"), (_LISTS // 10, _BATCH), p=(0.8, 0.15, 0.05)
    )
    walls = []
    for row in kinds:
        some = rng.integers(0, _LISTS, _BATCH).tolist()
        events = [
            Event("e", "u", f"{number % 97:06}{place % _ITEMS:02}", 1, str(kind), 9.5,
                  f"rec_{number:022}", place % _ITEMS + 1)
            for place, (number, kind) in enumerate(zip(some, row, strict=True))
        ]  # fmt: skip
        began = time.perf_counter()
        outcomes = await attributor.attribute(events, rules)
        walls.append(1000 * (time.perf_counter() - began))
        assert set(outcomes) <= {"attributed", "repeated"}
    return walls
