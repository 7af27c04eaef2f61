"""Every implementation of TreeStore and Feedback, on every kind of server."""

from collections.abc import AsyncIterator

import pytest

from app.storage.feedback import Feedback
from app.storage.memory_feedback import MemoryFeedback
from app.storage.redis_feedback import RedisFeedback
from tests.contracts.support import SETTINGS, SPACE, OpenStore
from tree.store.memory import MemoryTreeStore
from tree.store.protocol import TreeStore
from tree.store.redis_store import RedisTreeStore


@pytest.fixture(params=["embedded_url", "tcp_url", "memory"])
def store_url(request):
    return None if request.param == "memory" else request.getfixturevalue(request.param)


@pytest.fixture
async def open_store(store_url, open_room) -> AsyncIterator[OpenStore]:
    """Opens a catalogue by name: each time as another process would."""
    kept: dict[str, MemoryTreeStore] = {}

    def in_memory(catalog: str) -> TreeStore:
        return kept.setdefault(catalog, MemoryTreeStore(space=SPACE, settings=SETTINGS))

    if store_url is None:
        yield in_memory
        return
    async with open_room(store_url) as room:
        opened: list[RedisTreeStore] = []

        def on_server(catalog: str) -> TreeStore:
            store = RedisTreeStore(
                room.client, catalog, space=SPACE, settings=SETTINGS, prefix=room.prefix
            )
            opened.append(store)
            return store

        yield on_server
        for store in opened:
            await store.aclose()


@pytest.fixture
def store(open_store) -> TreeStore:
    return open_store("books")


@pytest.fixture(params=["embedded_url", "tcp_url", "memory"])
def feedback_url(request):
    return None if request.param == "memory" else request.getfixturevalue(request.param)


@pytest.fixture
async def feedback(feedback_url, open_room) -> AsyncIterator[Feedback]:
    if feedback_url is None:
        yield MemoryFeedback()
    else:
        async with open_room(feedback_url) as room:
            yield RedisFeedback(room.client, "books", prefix=room.prefix)
