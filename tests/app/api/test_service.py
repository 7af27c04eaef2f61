"""The service as a whole: health, problems of every kind, its description, its store."""

import asyncio
import os
import signal
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app import __version__
from app.composition import services
from app.main import create_app
from app.settings import Settings
from tests.app.api.support import assert_problem, item_path, running
from tree.errors import StoreUnavailable
from tree.redis.connection import connect
from tree.redis.data_folder import running_url
from tree.redis.embedded_server import EmbeddedServer

ROOT = Path(__file__).parents[3]


def test_health(api):
    assert api.get("/livez").json() == {"status": "alive"}
    ready = api.get("/readyz").json()
    assert ready["status"] == "ready"
    assert ready["catalogs"] >= 1
    assert api.get("/version").json()["version"] == __version__
    assert api.get("/docs").status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/catalogs/default/nope", "/livez/", "/v2/x"])
def test_an_unknown_path_is_a_problem(api, path):
    assert_problem(api.get(path), 404, "unknown_route")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/v1/catalogs", "GET, HEAD"),
        ("POST", "/v1/catalogs/default", "DELETE, GET, HEAD, PATCH, PUT"),
        ("POST", "/v1/catalogs/default/items/a", "DELETE, GET, HEAD, PATCH, PUT"),
        ("GET", "/v1/catalogs/default/items:batch", "POST"),
        ("GET", "/v1/catalogs/default/recommend", "POST"),
        ("DELETE", "/v1/jobs/job_a", "GET, HEAD"),
        ("GET", "/v1/jobs/job_a:cancel", "POST"),
        ("GET", "/v1/catalogs/default/tree/versions/1:activate", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(api, method, path, allowed):
    reply = api.request(method, path)
    assert_problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == allowed


def references(value: object) -> set[str]:
    match value:
        case {"$ref": str(target), **rest}:
            return {target} | references(rest)
        case dict():
            return set().union(*map(references, value.values()))
        case list():
            return set().union(*map(references, value))
    return set()


def test_the_description_is_whole(api):
    document = api.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    for target in references(document):
        assert target.removeprefix("#/components/schemas/") in schemas, target
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(ids)) == len(ids)
    assert "recommend" in ids
    for path, method, operation in operations:
        assert operation["description"], path
        if path.startswith("/v1"):
            assert {"404", "422", "503"} <= operation["responses"].keys(), (path, method)
        bare = path.endswith((":cancel", ":activate"))
        if method in ("put", "patch", "post") and not bare:
            assert operation["requestBody"]["content"], path
            assert {"400", "413", "415"} <= operation["responses"].keys(), (path, method)
        for status, response in operation["responses"].items():
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], (path, status)
    assert "id" not in schemas["ItemContent"]["required"]
    assert schemas["RecommendRequest"]["examples"]


# -- the store


async def test_it_works_on_a_server_that_others_run_and_leaves_no_key(
    server_url, open_room, tmp_path
):
    async with open_room(server_url) as room:
        settings = Settings(redis_url=server_url, key_prefix=room.prefix, data_dir=tmp_path)
        path = item_path("/v1/catalogs/default", "a")
        async with running(settings) as client:
            assert (await client.put(path, json={"title": "A"})).status_code == 201
            answer = await client.post("/v1/catalogs/default/recommend", json={})
            assert [item["item_id"] for item in answer.json()["items"]] == ["a"]
        async with running(settings) as client:
            assert (await client.get(path)).json()["title"] == "A"
            assert (await client.get("/readyz")).json()["items"] == 1
    assert running_url(tmp_path) is None


async def test_what_was_acknowledged_survives_a_restart_of_the_embedded_store(tmp_path):
    settings = Settings(data_dir=tmp_path)
    path = item_path("/v1/catalogs/default", "a")
    async with running(settings) as client:
        assert (await client.put(path, json={"title": "A"})).status_code == 201
    async with running(settings) as client:
        assert (await client.get(path)).json()["title"] == "A"


async def test_a_store_that_is_gone_is_a_503(tmp_path):
    server = await EmbeddedServer.start(tmp_path / "store")
    settings = Settings(redis_url=server.connect_url, data_dir=tmp_path)
    async with running(settings) as client:
        os.kill(server.pid, signal.SIGKILL)
        await server.stop()
        for method, path in (
            ("GET", "/readyz"),
            ("GET", "/v1/catalogs"),
            ("GET", "/v1/jobs"),
            ("GET", "/v1/catalogs/default/items"),
            ("GET", "/v1/catalogs/default/exports/items"),
            ("DELETE", "/v1/catalogs/default/items/a"),
        ):
            reply = await client.request(method, path)
            problem = assert_problem(reply, 503, "store_unavailable")
            assert "check that the server runs" in problem["detail"]
            assert ".sock" not in problem["detail"]  # nor any other address
            assert int(reply.headers["retry-after"]) > 0
        reply = await client.post("/v1/catalogs/default/recommend", json={})
        assert_problem(reply, 503, "store_unavailable")
        assert (await client.get("/livez")).status_code == 200


async def test_a_store_that_is_full_is_a_507_and_still_answers(tmp_path):
    server = await EmbeddedServer.start(tmp_path / "store")
    try:
        settings = Settings(redis_url=server.connect_url, data_dir=tmp_path)
        path = item_path("/v1/catalogs/default", "a")
        async with running(settings) as client, connect(server.connect_url) as store:
            assert (await client.put(path, json={"title": "A"})).status_code == 201
            await store.config_set("maxmemory", "1mb")
            assert_problem(await client.put(path, json={"title": "B"}), 507, "store_full")
            assert (await client.get(path)).json()["title"] == "A"
            await store.config_set("maxmemory", "0")
            assert (await client.put(path, json={"title": "B"})).status_code == 200
    finally:
        await server.stop()


async def test_a_store_that_may_evict_is_not_served_from(tmp_path):
    server = await EmbeddedServer.start(tmp_path / "store")
    try:
        async with connect(server.connect_url) as store:
            await store.config_set("maxmemory-policy", "allkeys-lru")
        settings = Settings(redis_url=server.connect_url, data_dir=tmp_path)
        with pytest.raises(StoreUnavailable, match="set maxmemory-policy to noeviction"):
            async with running(settings):
                pass
    finally:
        await server.stop()


async def test_a_second_process_can_work_beside_the_first(tmp_path):
    settings = Settings(data_dir=tmp_path)
    path = item_path("/v1/catalogs/default", "a")
    async with running(settings) as client:
        with pytest.raises(StoreUnavailable, match="belongs to a running service"):
            async with services(settings):
                pass
        async with services(settings, attach=True) as parts:
            catalog = await parts.catalogs.get("default")
            assert (await client.put(path, json={"title": "A"})).status_code == 201
            assert "a" in await catalog.store.load()
    assert running_url(tmp_path) is None


async def test_what_nobody_expected_is_a_500_without_its_trace(tmp_path):
    app = create_app(Settings(data_dir=tmp_path))

    @app.get("/broken")
    async def broken() -> None:
        raise ArithmeticError("a secret")

    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reply = await client.get("/broken")
    assert_problem(reply, 500, "internal")
    assert "secret" not in reply.text


async def test_an_upload_that_breaks_off_leaves_nothing_behind(tmp_path):
    app = create_app(Settings(data_dir=tmp_path))
    messages: Iterator[dict[str, Any]] = iter(
        [
            {"type": "http.request", "body": b'{"id": "a"', "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/v1/catalogs/default/imports", "root_path": "",
        "raw_path": b"/v1/catalogs/default/imports", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/x-ndjson")],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }  # fmt: skip

    async def receive() -> dict:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await asyncio.wait_for(app(scope, receive, send), 10)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert [message.get("status") for message in sent][:1] == [400]
