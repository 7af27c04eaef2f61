"""Figures of commits without HTTP: what an item costs the process that writes it, and another."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from app.curate.building import ListSource, build
from app.curate.writes import Writer
from app.embedders import EmbedderCache, LexicalEmbedder
from app.jobs import JobReport
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.living import tell
from tree.item import Item
from tree.node import TreeSettings
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.store.redis_store import RedisTreeStore

_ITEMS = 100_000
_COMMITS = {1: 200, 100: 40, 1_000: 20}  # how many of each size


def costs() -> Iterator[Figure]:
    """Processor time of this process alone: that of the store is not counted."""
    tell(f"building a tree of {_ITEMS:,} items")
    yield from asyncio.run(_costs())


async def _costs() -> list[Figure]:
    figures = []
    async with _two_processes() as (writing, following):
        fresh = _fresh()
        writer = Writer("commits", writing, EmbedderCache(), 0.0, lambda tree, edits: None)
        await writer.write({item.id: item for item in islice(fresh, 1_000)}, frozenset())
        for size, count in _COMMITS.items():
            tell(f"{count} commits of {size:,}")
            written = followed = 0.0
            for _ in range(count):
                puts = {item.id: item for item in islice(fresh, size)}
                start = time.process_time()
                await writer.write(puts, frozenset())
                written += time.process_time() - start
                start = time.process_time()
                await following.load()
                followed += time.process_time() - start
            each_ms = 1_000 / (size * count)
            target_ms = 0.15 if size >= 100 else None
            what = f"an item in a commit of {size:,}"
            figures.append(Figure(f"{what}, written", written * each_ms, "ms"))
            figures.append(Figure(f"{what}, followed", followed * each_ms, "ms", "≤", target_ms))
        await writer.aclose(5)
    return figures


def _fresh() -> Iterator[Item]:
    count = 1_000 + sum(size * count for size, count in _COMMITS.items())
    for item in data.synthetic_items(count, seed=7, described=True):
        yield item.model_copy(update={"id": f"new/{item.id}"})


@asynccontextmanager
async def _two_processes() -> AsyncIterator[tuple[RedisTreeStore, RedisTreeStore]]:
    """A catalogue on a real store, as two processes would have it."""
    source = ListSource(data.synthetic_items(_ITEMS, described=True))
    tree = await build(source, TreeSettings(), JobReport.unwatched())
    with tempfile.TemporaryDirectory(prefix="unillmrec-bench-") as folder:
        server = await EmbeddedServer.start(Path(folder))
        clients = [connect(server.connect_url, timeout_s=60) for _ in range(2)]
        space = LexicalEmbedder().space
        one, other = (RedisTreeStore(client, "commits", space=space) for client in clients)
        await one.replace(tree, base=0)
        await other.load()
        try:
            yield one, other
        finally:
            await one.aclose()
            await other.aclose()
            for client in clients:
                await client.aclose()
            await server.stop()
