"""The bundled catalogue for tests that do not write to it: stored once, not once per test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from secrets import token_hex

import pytest

from app.embedders import LexicalEmbedder
from app.llm.tokens import vocabulary
from app.storage.redis_documents import RedisDocuments
from tests.app.recommend.with_model.support import Shelf
from tests.conftest import OpenRoom
from tree.item import Item
from tree.redis.connection import connect
from tree.snapshot import SemanticTree
from tree.store.redis_store import RedisTreeStore


@pytest.fixture(scope="session", autouse=True)
def settled_vocabulary() -> None:
    """Where tiktoken can fetch its vocabulary, tests begin once it is there."""
    vocabulary.ready(60)


@pytest.fixture(scope="session")
def stocked(embedded_url: str, demo_items: list[Item], demo_tree: SemanticTree) -> Iterator[str]:
    """The key prefix of a store that holds the bundled catalogue."""
    prefix = f"test-{token_hex(6)}"

    async def stock(items: list[Item]) -> None:
        async with connect(embedded_url) as client:
            space = LexicalEmbedder().space
            store = RedisTreeStore(client, "shop", space=space, prefix=prefix)
            if items:
                await store.stage(items)
                await store.replace(demo_tree, base=0)
            else:
                await store.drop()
            await store.aclose()

    asyncio.run(stock(demo_items))
    yield prefix
    asyncio.run(stock([]))


@pytest.fixture
async def demo(stocked: str, embedded_url: str, open_room: OpenRoom) -> AsyncIterator[Shelf]:
    """The bundled catalogue, and documents of one's own."""
    async with open_room(embedded_url) as room:
        space = LexicalEmbedder().space
        store = RedisTreeStore(room.client, "shop", space=space, prefix=stocked)
        yield Shelf(store, RedisDocuments(room.client, prefix=room.prefix))
        await store.aclose()
