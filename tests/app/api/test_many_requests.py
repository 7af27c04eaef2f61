"""Many requests at once, over fewer connections to the store than there are requests."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

import httpx2
import pytest

from app.main import create_app
from app.settings import Settings
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer

MOST = 4
ROOT = "root-" + "r" * 32
KEY = {"name": "crowd", "scopes": ["ingest"], "catalogs": ["default"]}
ITEMS = "/v1/catalogs/default/items"


@dataclass(frozen=True)
class Crowded:
    """A service with few connections to its store, and the store's URL."""

    client: httpx2.AsyncClient
    store_url: str

    async def commands(self) -> int:
        """How many the store has been asked for by name."""
        async with connect(self.store_url) as store:
            stats = await store.info("commandstats")
        return sum(one["calls"] for name, one in stats.items() if name != "cmdstat_info")


@pytest.fixture
async def crowded(tmp_path) -> AsyncIterator[Crowded]:
    server = await EmbeddedServer.start(tmp_path / "store")
    url = f"{server.connect_url}?max_connections={MOST}"
    app = create_app(Settings(redis_url=url, data_dir=tmp_path, admin_key=ROOT))
    transport = httpx2.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {ROOT}"}
    try:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(
                transport=transport, base_url="http://localhost", headers=headers
            ) as client,
        ):
            yield Crowded(client, server.connect_url)
    finally:
        await server.stop()


async def statuses(*asked: Awaitable[httpx2.Response]) -> Counter[int]:
    return Counter(reply.status_code for reply in await asyncio.gather(*asked))


async def test_a_crowd_waits_in_line_for_the_store(crowded):
    asked = [crowded.client.get(ITEMS, params={"limit": 1}) for _ in range(200)]
    assert await statuses(*asked) == {200: 200}


async def test_readiness_is_looked_at_once_for_all_who_ask(crowded):
    before = await crowded.commands()
    assert await statuses(*(crowded.client.get("/readyz") for _ in range(300))) == {200: 300}
    assert await crowded.commands() - before < 100


async def test_a_crowd_of_one_key_keeps_to_its_rate_and_hides_no_act(crowded):
    made = await crowded.client.post("/v1/keys", json={**KEY, "rate_per_minute": 60})
    headers = {"Authorization": f"Bearer {made.json()['key']}"}
    crowd = (crowded.client.get(ITEMS, headers=headers) for _ in range(300))
    others = (crowded.client.post("/v1/keys", json=KEY) for _ in range(20))
    found = await statuses(*crowd, *others)
    assert found == {200: 60, 429: 240, 201: 20}
    page = await crowded.client.get("/v1/audit")
    assert [entry["act"] for entry in page.json()["entries"]] == ["create_key"] * 21
