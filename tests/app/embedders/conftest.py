"""A catalogue whose embedder is an endpoint that counts, and may fail in every way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from app.curate import Curator, RebuildParams
from app.curate.imports import ImportParams
from app.embedders import (
    EmbedderCache,
    EmbedderStore,
    EndpointAddress,
    EndpointTimes,
    LexicalEmbedder,
    Spending,
)
from app.embedders.embedder_store import VECTOR_TTL_S
from app.jobs import Job, Jobs
from app.settings import Settings
from app.storage.redis_documents import RedisDocuments
from app.storage.vectors import RedisVectors
from tests.conftest import Room
from tests.servers.hostile import MODEL, HostileServer
from tree.item import Item
from tree.node import TreeSettings
from tree.store.redis_store import RedisTreeStore


@dataclass(frozen=True)
class PaidShop:
    """One catalogue with the embedder `openai:hostile`, and one process that serves it."""

    room: Room
    store: RedisTreeStore
    jobs: Jobs
    embedders: EmbedderCache
    curator: Curator
    settings: Settings
    server: HostileServer

    def texts_asked(self) -> list[str]:
        """All texts that the endpoint has answered or refused, other than probes."""
        texts = [text for body in self.server.requests for text in body["input"]]
        return [text for text in texts if text not in PROBES]

    async def imported(self, items: Sequence[Item]) -> Job:
        """An import of these items that has ended."""
        (self.settings.uploads / "a").write_bytes(b"\n".join(item.record() for item in items))
        job = await self.curator.start_import(ImportParams(upload="a"))
        return await self.jobs.wait(job.id)

    async def rebuilt(self, max_cost_usd: float | None = None) -> Job:
        """A rebuild that has ended."""
        job = await self.curator.start_rebuild(RebuildParams(max_cost_usd=max_cost_usd))
        return await self.jobs.wait(job.id)


PROBES = ("a test", "A quick brown fox reads the news.")


def store_of(room: Room, vector_ttl_s: int = VECTOR_TTL_S) -> EmbedderStore:
    """The store as embedders see it."""
    return EmbedderStore(
        asyncio.get_running_loop(),
        RedisDocuments(room.client, prefix=room.prefix),
        partial(RedisVectors, room.client, prefix=room.prefix),
        vector_ttl_s,
    )


@contextlib.asynccontextmanager
async def serve_shop(
    room: Room,
    server: HostileServer,
    folder: Path,
    spending: Spending | None = None,
    embedder: str = f"openai:{MODEL}",
) -> AsyncIterator[PaidShop]:
    """The shop in a process of its own, as far as memory is concerned."""
    settings = Settings(data_dir=folder, embedder=embedder, rebuild_growth=50)
    settings.uploads.mkdir(parents=True, exist_ok=True)
    embedders = EmbedderCache(
        EndpointAddress(server.base_url, "sk-a-secret"),
        times=EndpointTimes(pause_s=0.5, fair_s=0.2),
        store=store_of(room),
        spending=spending,
    )
    store = RedisTreeStore(
        room.client,
        "shop",
        space=LexicalEmbedder().space,
        settings=TreeSettings(embedder=settings.embedder),
        prefix=room.prefix,
        keep=3,
    )
    jobs = Jobs(RedisDocuments(room.client, prefix=room.prefix), 60)
    curator = Curator("shop", store, jobs, embedders, settings)
    jobs.set_worker(curator)
    yield PaidShop(room, store, jobs, embedders, curator, settings, server)
    await jobs.aclose()
    await curator.aclose()
    await store.aclose()
    embedders.close()


@pytest.fixture
async def paid(embedded_url, open_room, hostile_server, tmp_path) -> AsyncIterator[PaidShop]:
    """An empty catalogue."""
    async with (
        open_room(embedded_url) as room,
        serve_shop(room, hostile_server, tmp_path) as shop,
    ):
        yield shop
