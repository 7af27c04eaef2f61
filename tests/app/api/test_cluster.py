"""The service over three nodes of a Redis Cluster."""

import asyncio
import time
from itertools import count

import httpx2

from app.main import create_app
from app.settings import Settings
from app.storage.keys import DocumentKeys
from tests.app.api.support import assert_problem, item_path
from tests.catalogs import keys_of
from tests.commands import command, told

ROOMY_S = 20


async def test_a_dead_node_is_a_503_for_its_catalogues_only(cluster, open_room, tmp_path):
    """The dead node also holds the registry, which an open catalogue does without."""
    async with open_room(cluster.url) as room:
        app = create_app(Settings(redis_url=cluster.url, key_prefix=room.prefix, data_dir=tmp_path))
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            victim = cluster.owner(DocumentKeys("catalog", room.prefix).index)
            there: list[str] = []
            elsewhere: list[str] = []
            for number in count():
                name = f"c{number}"
                assert (await client.put(f"/v1/catalogs/{name}", json={})).status_code == 201
                keys = await keys_of(room.client, name, room.prefix)
                (there if cluster.owner(keys.head) is victim else elsewhere).append(name)
                if there and len(elsewhere) > 1:
                    break
            for name in (*there, *elsewhere):
                url = item_path(f"/v1/catalogs/{name}", "a")
                assert (await client.put(url, json={"title": "A"})).status_code == 201
            books = f"/v1/catalogs/{there[0]}"
            with cluster.without(victim):
                for method, path, body in (
                    ("POST", f"{books}/recommend", {}),
                    ("PUT", item_path(books, "a"), {"title": "B"}),
                    ("GET", "/v1/catalogs", None),
                ):
                    reply = await client.request(method, path, json=body)
                    assert_problem(reply, 503, "store_unavailable")
                    assert int(reply.headers["retry-after"]) > 0
                for name in elsewhere[:2]:
                    url = f"/v1/catalogs/{name}"
                    reply = await client.put(item_path(url, "b"), json={"title": "B"})
                    assert reply.status_code == 201
                    answer = await client.post(f"{url}/recommend", json={})
                    assert {item["item_id"] for item in answer.json()["items"]} == {"a", "b"}
                assert (await client.get("/readyz")).status_code == 200

            deadline = time.monotonic() + ROOMY_S
            while (await client.post(f"{books}/recommend", json={})).status_code != 200:
                assert time.monotonic() < deadline
            answer = await client.post(f"{books}/recommend", json={})
            assert [item["item_id"] for item in answer.json()["items"]] == ["a"]
            assert (await client.delete(books, params={"confirm": there[0]})).status_code == 204


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
