"""Lines that a model has written are found again by what they were written from."""

import pytest

from app.curate.enrichment.line_store import LineStore
from app.storage.documents import Documents, MemoryDocuments
from app.storage.redis_documents import RedisDocuments


@pytest.fixture(params=["memory", "redis"])
async def documents(request, embedded_url, open_room):
    """Documents of each kind."""
    if request.param == "memory":
        yield MemoryDocuments()
        return
    async with open_room(embedded_url) as room:
        yield RedisDocuments(room.client, prefix=room.prefix)


async def test_lines_are_found_again(documents: Documents):
    lines = {f"digest{number}": f"Für {number}" for number in range(450)}
    store = LineStore(documents)
    assert await store.get_many(lines) == {}
    await store.put_many(lines)
    await LineStore(documents).put_many({"digest7": "another"})
    asked = [*lines, "unknown", "digest7"]
    assert await store.get_many(asked) == lines | {"digest7": "another"}
    assert await store.get_many([]) == {}
