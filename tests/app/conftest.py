"""The bundled catalogue on a real store, and what works on it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import app.demo
from app.curate import Curator
from app.curate.building import ListSource, build
from app.embedders import EmbedderCache, LexicalEmbedder
from app.jobs import Job, JobReport, Jobs
from app.recommend import RecommendConfig, Recommender
from app.settings import Settings
from app.storage.redis_documents import RedisDocuments
from tree.item import Item
from tree.node import TreeSettings
from tree.snapshot import SemanticTree
from tree.store.redis_store import RedisTreeStore

DEMO = Path(app.demo.__file__).parent


@dataclass(frozen=True)
class Shop:
    """One catalogue with all its parts."""

    store: RedisTreeStore
    documents: RedisDocuments
    jobs: Jobs
    curator: Curator
    recommender: Recommender
    uploads: Path

    async def ended(self, job: Job) -> Job:
        return await self.jobs.wait(job.id)


@pytest.fixture(scope="session")
def demo_items() -> list[Item]:
    lines = (DEMO / "catalogue.jsonl").read_text(encoding="utf-8").splitlines()
    return [Item.model_validate_json(line) for line in lines]


@pytest.fixture(scope="session")
def demo_tree(demo_items: list[Item]) -> SemanticTree:
    return asyncio.run(built(demo_items))


async def built(items: list[Item], settings: TreeSettings = TreeSettings()) -> SemanticTree:  # noqa: B008
    """The tree that a rebuild makes of some items."""
    return await build(ListSource(items), settings, JobReport.unwatched())


@pytest.fixture
async def shop(embedded_url, open_room, tmp_path) -> AsyncIterator[Shop]:
    """An empty catalogue."""
    async with open_room(embedded_url) as room:
        store = RedisTreeStore(
            room.client, "shop", space=LexicalEmbedder().space, prefix=room.prefix
        )
        documents = RedisDocuments(room.client, prefix=room.prefix)
        settings = Settings(data_dir=tmp_path)
        settings.uploads.mkdir()
        jobs, embedders = Jobs(documents, 60), EmbedderCache()
        curator = Curator("shop", store, jobs, embedders, settings)
        jobs.set_worker(curator)
        yield Shop(
            store,
            documents,
            jobs,
            curator,
            Recommender("shop", store, documents, embedders, RecommendConfig.of(settings)),
            settings.uploads,
        )
        await jobs.aclose()
        await curator.aclose()
        await store.aclose()


@pytest.fixture
async def demo(shop: Shop, demo_items: list[Item], demo_tree: SemanticTree) -> Shop:
    """The bundled catalogue, built."""
    await shop.store.stage(demo_items)
    await shop.store.replace(demo_tree, base=0)
    return shop


@pytest.fixture(scope="session")
def readers() -> list[dict]:
    return json.loads((DEMO / "users.json").read_text(encoding="utf-8"))
