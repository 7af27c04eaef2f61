"""A catalogue whose embedder is an endpoint: how many texts it is asked for, job by job."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from app.catalog import Catalog
from app.composition import Services, services
from app.curate.imports import ImportParams
from app.jobs import Job
from app.settings import ModelPrice, Settings
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.servers.hostile import MODEL, HostileServer
from tree.item import Item

_NAME = "amazon_games"
_RETURNING = 500  # items that are deleted and imported again
_PRICE = 0.02  # dollars per million tokens


def real() -> Iterator[Figure]:
    """Texts that the endpoint has received, their price, and how long the jobs took."""
    server = HostileServer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from asyncio.run(_measured(Path(folder), server))
    finally:
        server.stop()


@asynccontextmanager
async def _opened(folder: Path, server: HostileServer) -> AsyncIterator[tuple[Services, Catalog]]:
    settings = Settings(
        data_dir=folder,
        embedder=f"openai:{MODEL}",
        embedder_base_url=server.base_url,
        llm_prices={MODEL: ModelPrice(input=_PRICE, output=0)},
        kept_versions=3,
    )
    settings.uploads.mkdir(parents=True, exist_ok=True)
    async with services(settings) as parts:
        yield parts, await parts.catalogs.get("default")


async def _measured(folder: Path, server: HostileServer) -> list[Figure]:
    items, figures = list(data.real_items(_NAME)), list[Figure]()

    async def measured(what: str, work: Awaitable[Job], most: float) -> None:
        server.requests.clear()
        began = time.monotonic()
        job = await work
        seconds = time.monotonic() - began
        assert job.state == "succeeded", job
        # Every job asks for a sentence that identifies the model.
        asked = sum(len(body["input"]) for body in server.requests if len(body["input"]) > 1)
        figures.append(Figure(f"{what}: texts asked", asked, "texts", "≤", most))
        figures.append(Figure(f"{what}: cost", job.cost_usd, "USD"))
        figures.append(Figure(f"{what}: time", seconds, "s"))

    async with _opened(folder, server) as (parts, shop):
        await measured("first import", _imported(parts, shop, items), len(items))
        await measured("import of unchanged items", _imported(parts, shop, items), 0)
        await measured("rebuild", _ended(parts, await shop.curator.start_rebuild()), 0)
        _, before = await shop.store.versions()
        activation = await shop.curator.start_activation(before.version)
        await measured("activation", _ended(parts, activation), 0)
    async with _opened(folder, server) as (parts, shop):  # another process
        some = items[:_RETURNING]
        await shop.curator.delete([item.id for item in some])
        await measured("deleted and imported again", _imported(parts, shop, some), 0)
    return figures


async def _imported(parts: Services, shop: Catalog, items: Sequence[Item]) -> Job:
    lines = b"\n".join(item.record() for item in items)
    (parts.settings.uploads / "items").write_bytes(lines)
    return await _ended(parts, await shop.curator.start_import(ImportParams(upload="items")))


async def _ended(parts: Services, job: Job) -> Job:
    return await parts.jobs.wait(job.id)
