"""Stores over a room of one's own."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.tree.store.support import SETTINGS, SPACE
from tree.store.keys import CatalogKeys
from tree.store.redis_store import RedisTreeStore


@pytest.fixture
async def open_store(room) -> AsyncIterator:
    opened: list[RedisTreeStore] = []

    def opener(client: Redis = room.client) -> RedisTreeStore:
        store = RedisTreeStore(client, "books", space=SPACE, settings=SETTINGS, prefix=room.prefix)
        opened.append(store)
        return store

    yield opener
    for store in opened:
        await store.aclose()


@pytest.fixture
def keys(room) -> CatalogKeys:
    return CatalogKeys("books", room.prefix)
