"""Recommendation runs over HTTP."""

import json

from app.catalog_jobs import CatalogJobs
from app.catalog_settings import CatalogSettings
from app.composition import services
from app.lists import new_folder
from app.settings import Settings
from tests.app.api.keyed import holder
from tests.app.api.support import assert_problem, ended, pointers, running
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer


def lists(api, job: dict) -> list[dict]:
    reply = api.get(f"/v1/jobs/{job['id']}/result")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in reply.content.splitlines()]


def test_all_stored_users_get_their_lists(api, films):
    for number in range(5):
        api.put(f"{films}/users/u{number}", json={"history": [f"f{number}"]})
    body = {
        "request": {"limit": 3, "filter": {"all": [{"field": "year", "in": [1990, 1991, 1992]}]}}
    }
    job = ended(api, api.post(f"{films}/recommendation-runs", json=body))
    assert (job["state"], job["type"]) == ("succeeded", "recommendation"), job
    assert job["result"] == {"lists": 5, "problems": 0, "degraded": 0}
    assert (job["progress"]["done"], job["progress"]["unit"]) == (5, "lists")
    found = {row["user_id"]: row["answer"]["items"] for row in lists(api, job)}
    assert found.keys() == {f"u{number}" for number in range(5)}
    alone = api.post(f"{films}/recommend", json={"user_id": "u2", **body["request"]}).json()
    assert found["u2"] == alone["items"]
    api.delete(f"{films}/users/u2")
    assert {row["user_id"] for row in lists(api, job)} == {"u0", "u1", "u3", "u4"}
    some = api.post(f"{films}/recommendation-runs", json={"user_ids": ["u4", "new", "u0"]})
    job = ended(api, some)
    marked = [(row["user_id"], row["stored_user"]) for row in lists(api, job)]
    assert marked == [("u4", True), ("new", False), ("u0", True)]
    assert job["result"]["lists"] == 3
    api.delete(f"{films}/users/u4")
    assert [row["user_id"] for row in lists(api, job)] == ["new", "u0"]


def test_a_file_of_requests_gets_a_list_for_each_line(api, films):
    requests = b'{"history": [{"item_id": "f0"}], "limit": 2}\n{"limit": 0}\n{"user_id": "x"}\n'
    requests += b'{"user_id": "stored"}\n{"user_id": "stored", "limit": 0}\n'
    api.put(f"{films}/users/stored", json={"history": ["f1"]})
    headers = {"Content-Type": "application/x-ndjson"}
    started = api.post(f"{films}/recommendation-runs", content=requests, headers=headers)
    job = ended(api, started)
    assert job["result"] == {"lists": 3, "problems": 2, "degraded": 0}
    first, second, third, fourth, fifth = lists(api, job)
    assert len(first["answer"]["items"]) == 2
    assert second["problem"]["code"] == "invalid_request"
    assert third["user_id"] == "x"
    assert (fourth["user_id"], fifth["user_id"]) == ("stored", "stored")
    api.delete(f"{films}/users/stored")
    assert lists(api, job) == [first, second, third]


def test_only_a_run_has_lists_and_only_an_administrator_gets_them(api, films, root):
    imported = api.post(
        f"{films}/imports",
        content=b'{"id": "n", "title": "N"}',
        headers={"Content-Type": "application/x-ndjson"},
    )
    job = ended(api, imported)
    assert_problem(api.get(f"/v1/jobs/{job['id']}/result"), 409, "no_lists")
    bad = api.post(f"{films}/recommendation-runs", json={"request": {"limit": 0}})
    assert assert_problem(bad, 422, "invalid_request")["errors"][0]["pointer"] == "/request/limit"
    common = {"request": {"user_id": "u", "cursor": "rec_1"}}
    bad = api.post(f"{films}/recommendation-runs", json=common)
    assert pointers(assert_problem(bad, 422, "invalid_request")) == [
        "/request/user_id",
        "/request/cursor",
    ]
    with holder(root, "ingest", "recommend") as client:
        refused = client.post("/v1/catalogs/a/recommendation-runs", json={})
        assert_problem(refused, 403, "forbidden_scope")
        started = ended(root, root.post("/v1/catalogs/a/recommendation-runs", json={}))
        refused = client.get(f"/v1/jobs/{started['id']}/result")
        assert_problem(refused, 403, "forbidden_scope")
    assert lists(root, started) == []


async def test_a_run_that_cannot_be_started_leaves_nothing(tmp_path):
    server = await EmbeddedServer.start(tmp_path / "store")
    try:
        settings = Settings(redis_url=server.connect_url, data_dir=tmp_path)
        async with running(settings) as client, connect(server.connect_url) as store:
            path = "/v1/catalogs/default/recommendation-runs"
            lines = {"content": b"{}", "headers": {"Content-Type": "application/x-ndjson"}}
            await store.config_set("maxmemory", "1mb")
            for body in ({"json": {"user_ids": ["a"]}}, lines):
                assert_problem(await client.post(path, **body), 507, "store_full")
            await store.config_set("maxmemory", "0")
        assert not list(settings.runs.iterdir())
        assert not list(settings.uploads.iterdir())
    finally:
        await server.stop()


async def test_the_lists_of_a_deleted_catalogue_are_removed(tmp_path):
    settings = Settings(data_dir=tmp_path)
    async with services(settings) as parts:
        catalogs = parts.catalogs
        kept, _ = await catalogs.create("kept", CatalogSettings())
        deleted, _ = await catalogs.create("other", CatalogSettings())
        stays, goes = (new_folder(settings.runs, one.id) for one in (kept, deleted))
        jobs = CatalogJobs(catalogs, settings)
        await jobs.housekeep()
        assert set(settings.runs.iterdir()) == {stays, goes}
        await catalogs.delete("other")
        await catalogs.create("other", CatalogSettings())
        await jobs.housekeep()
        assert list(settings.runs.iterdir()) == [stays]
