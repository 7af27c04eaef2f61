"""The service over three nodes of a Redis Cluster."""

import asyncio
import time

import httpx2

from app.main import create_app
from app.settings import Settings
from tests.app.test_api.support import assert_problem, item_path
from tests.app.test_cli import command, told
from tree.store.keys import CatalogKeys, DocumentKeys

ROOMY_S = 20


async def test_a_dead_node_is_a_503_for_its_catalogues_only(cluster, open_room, tmp_path):
    """The dead node also holds the registry, which an open catalogue does without."""
    async with open_room(cluster.url) as room:
        app = create_app(Settings(redis_url=cluster.url, key_prefix=room.prefix, data_dir=tmp_path))
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            for name in ("poems", "default", "books"):
                url = f"/v1/catalogs/{name}"
                if name != "default":
                    assert (await client.put(url, json={})).status_code == 201
                reply = await client.put(item_path(url, "a"), json={"title": "A"})
                assert reply.status_code == 201

            victim = cluster.owner(CatalogKeys("books", room.prefix).head)
            assert cluster.owner(DocumentKeys("catalog", room.prefix).index) is victim
            with cluster.without(victim):
                for method, path, body in (
                    ("POST", "/v1/catalogs/books/recommend", {}),
                    ("PUT", item_path("/v1/catalogs/books", "a"), {"title": "B"}),
                    ("GET", "/v1/catalogs", None),
                ):
                    reply = await client.request(method, path, json=body)
                    assert_problem(reply, 503, "store_unavailable")
                    assert int(reply.headers["retry-after"]) > 0
                for name in ("poems", "default"):
                    url = f"/v1/catalogs/{name}"
                    reply = await client.put(item_path(url, "b"), json={"title": "B"})
                    assert reply.status_code == 201
                    answer = await client.post(f"{url}/recommend", json={})
                    assert {item["item_id"] for item in answer.json()["items"]} == {"a", "b"}
                assert (await client.get("/readyz")).status_code == 200

            deadline = time.monotonic() + ROOMY_S
            while (await client.post("/v1/catalogs/books/recommend", json={})).status_code != 200:
                assert time.monotonic() < deadline
            answer = await client.post("/v1/catalogs/books/recommend", json={})
            assert [item["item_id"] for item in answer.json()["items"]] == ["a"]
            assert (await client.delete("/v1/catalogs/books")).status_code == 204


async def test_the_doctor_looks_at_every_node(cluster, open_room, tmp_path):
    async with open_room(cluster.url) as room:
        store = {"UNILLMREC_REDIS_URL": cluster.url, "UNILLMREC_KEY_PREFIX": room.prefix}
        found = told(
            await asyncio.to_thread(command, tmp_path / "data", "doctor", "--json", **store)
        )
        checks = {check["name"]: check for check in found["checks"]}
        assert checks["store"]["finding"].startswith("cluster of 3 nodes answers")
        for node in cluster.nodes:
            assert checks[f"persistence 127.0.0.1:{node.port}"]["finding"] == "kept by aof"
            assert "MB used" in checks[f"memory 127.0.0.1:{node.port}"]["finding"]

        store["UNILLMREC_REDIS_URL"] = f"redis://127.0.0.1:{cluster.nodes[0].port}"
        refused = await asyncio.to_thread(command, tmp_path / "data", "tree", **store)
        assert refused.returncode == 1
        assert "write redis+cluster:// in the store URL" in refused.stderr
