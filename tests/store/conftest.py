"""Stores over a room of one's own, and a server to spoil."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from tests.store.support import SETTINGS, SPACE
from tree.store.keys import CatalogKeys
from tree.store.redis import RedisTreeStore
from tree.store.server import EmbeddedServer


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


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[EmbeddedServer]:
    """A server that a test may spoil."""
    server = await EmbeddedServer.start(tmp_path)
    yield server
    with suppress(ProcessLookupError):
        await server.stop()
