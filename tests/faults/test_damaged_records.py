"""Item records that are gone or damaged: everything else is served, and they are named."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from app.embedders import LexicalEmbedder
from app.settings import Settings
from app.storage.keys import DocumentKeys
from tests.app.api.support import assert_problem, delete_catalog, ended, served
from tests.catalogs import id_of, keys_of
from tests.commands import command
from tree.item import Item
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.store.key_count import count_keys
from tree.store.keys import CatalogKeys
from tree.store.redis_store import RedisTreeStore

CATALOG = "/v1/catalogs/default"
WHOLE = {f"f{number}" for number in range(40)} - {"f3", "f4"}


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[EmbeddedServer]:
    server = await EmbeddedServer.start(tmp_path / "store")
    yield server
    await server.stop()


@pytest.fixture
async def store(server) -> AsyncIterator[Redis]:
    async with connect(server.connect_url) as client:
        yield client


@pytest.fixture
async def keys(api, store) -> CatalogKeys:
    """Those of the default catalogue."""
    return await keys_of(store)


@pytest.fixture
async def api(server, store, tmp_path) -> AsyncIterator[httpx2.Client]:
    """A service with forty films, of which f3 has a damaged record and f4 none."""
    settings = Settings(redis_url=server.connect_url, data_dir=tmp_path / "data")
    with served(settings) as url, httpx2.Client(base_url=url, timeout=60) as client:
        films = [
            {"id": f"f{number}", "title": f"Film {number} of ships and stars", "domain": "films"}
            for number in range(40)
        ]
        lines = "\n".join(map(json.dumps, films)).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        job = client.post(f"{CATALOG}/imports", content=lines, headers=headers)
        assert ended(client, job)["state"] == "succeeded"
        keys = await keys_of(store)
        record = await store.get(keys.item("f3"))
        await store.set(keys.item("f3"), record.replace(b"ships", b"chips"))
        await store.unlink(keys.item("f4"))
        yield client


async def doctor(server: EmbeddedServer, folder: Path) -> tuple[int, dict]:
    done = await unillmrec(server, folder, "doctor", "--deep", "--json")
    return done.returncode, json.loads(done.stdout)


async def unillmrec(
    server: EmbeddedServer, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A command, in a thread: it has an event loop of its own."""
    store = {"UNILLMREC_REDIS_URL": server.connect_url}
    return await asyncio.to_thread(command, folder, *arguments, **store)


async def test_all_that_is_whole_is_served(api):
    reply = api.post(f"{CATALOG}/recommend", json={"history": [{"item_id": "f3"}], "limit": 100})
    assert reply.status_code == 200, reply.text
    assert {item["item_id"] for item in reply.json()["items"]} == WHOLE
    reply = api.post(f"{CATALOG}/recommend", json={"history": [{"item_id": "f4"}], "limit": 5})
    assert len(reply.json()["items"]) == 5
    reply = api.get(f"{CATALOG}/similar", params={"item_id": "f3", "limit": 5})
    assert len(reply.json()["items"]) == 5, reply.text
    listed = api.get(f"{CATALOG}/items", params={"limit": 100}).json()
    assert {item["id"] for item in listed["items"]} == WHOLE
    exported = api.get(f"{CATALOG}/exports/items").text.splitlines()
    assert {json.loads(line)["id"] for line in exported} == WHOLE


async def test_a_damaged_item_is_not_taken_for_one_that_never_was(api):
    for item_id, flaw in (("f3", "damaged"), ("f4", "missing")):
        for reply in (
            api.get(f"{CATALOG}/items/{item_id}"),
            api.patch(f"{CATALOG}/items/{item_id}", json={"title": "New"}),
        ):
            problem = assert_problem(reply, 503, "store_corrupt")
            assert problem["detail"] == (
                f"the record of item '{item_id}' is {flaw}: put the item again, or delete it"
            )
    assert_problem(api.get(f"{CATALOG}/items/f99"), 404, "unknown_item")

    assert api.put(f"{CATALOG}/items/f3", json={"title": "Film 3, again"}).status_code == 200
    assert api.get(f"{CATALOG}/items/f3").json()["title"] == "Film 3, again"
    assert api.delete(f"{CATALOG}/items/f4").status_code == 204
    assert_problem(api.get(f"{CATALOG}/items/f4"), 404, "unknown_item")


@pytest.mark.parametrize("lost", [False, True], ids=["damaged", "lost"])
async def test_an_item_that_waits_with_a_damaged_record_can_be_deleted(api, store, keys, lost):
    catalog = RedisTreeStore(store, await id_of(store), space=LexicalEmbedder().space)
    await catalog.stage([Item(id="waits", title="An item that an import has read")])
    record = await store.get(keys.item("waits"))
    if lost:
        await store.unlink(keys.item("waits"))
    else:
        await store.set(keys.item("waits"), record.replace(b"import", b"export"))
    deletes = {"deletes": ["waits", "f99"]}
    rows = api.post(f"{CATALOG}/items:batch", json=deletes).json()["results"]
    assert [row["status"] for row in rows] == ["deleted", "absent"]
    assert await store.exists(keys.item("waits")) == 0
    assert not await store.hexists(keys.staged, "waits")
    assert_problem(api.get(f"{CATALOG}/items/waits"), 404, "unknown_item")


async def test_a_rebuild_names_what_it_had_to_leave_out(api):
    job = ended(api, api.post(f"{CATALOG}/tree/rebuilds"))
    assert (job["state"], job["result"]["items"], job["result"]["damaged"]) == ("succeeded", 38, 2)
    assert job["result"]["damaged_items"] == {
        "f3": "the record of item 'f3' is damaged",
        "f4": "the record of item 'f4' is missing",
    }
    assert_problem(api.get(f"{CATALOG}/items/f3"), 503, "store_corrupt")
    job = ended(api, api.post(f"{CATALOG}/tree/rebuilds"))
    assert (job["result"]["items"], job["result"]["damaged"]) == (38, 0)


async def test_doctor_names_them_and_every_record_of_another_time(
    api, server, store, keys, tmp_path
):
    stale = Item(id="f5", title="What the film was called before", domain="films", hidden=True)
    whole = await store.get(keys.item("f6"))
    api.put(f"{CATALOG}/items/f5", json=stale.model_dump(mode="json", exclude={"id"}))
    record = await store.get(keys.item("f5"))
    api.put(f"{CATALOG}/items/f5", json={"title": "The new title", "domain": "films"})
    await store.set(keys.item("f5"), record)
    await store.set(keys.item("f7"), whole)
    key = DocumentKeys("catalog").document("lost")
    await store.set(key, b"{}")
    assert_problem(api.get("/v1/catalogs/lost/items"), 503, "store_corrupt")
    await store.copy(keys.item("f6"), keys.item("gone"))

    torn = tmp_path / "torn-20260131T120000.aof"
    torn.write_bytes(b"*1")

    code, report = await doctor(server, tmp_path)
    (warned,) = [one for one in report["checks"] if one["name"] == "torn writes"]
    assert f"2 bytes were cut off the end of the append-only file: {torn}" in warned["finding"]
    failed = {one["name"]: one for one in report["checks"] if one["status"] == "fail"}
    assert (code, failed.keys()) == (
        1,
        {"documents", "catalogue default, records", "catalogue default, strays"},
    )
    assert failed["documents"]["flaws"] == ["the catalog document 'lost' is damaged"]
    assert set(failed["catalogue default, records"]["flaws"]) == {
        "the record of item 'f3' is damaged",
        "the record of item 'f4' is missing",
        "the record of item 'f5' differs from the tree in: text, visibility",
        "the record of item 'f7' is that of 'f6'",
    }
    assert failed["catalogue default, strays"]["flaws"] == [
        "the record of item 'gone' belongs to no item of the tree"
    ]
    assert all(one["advice"] for one in failed.values())


async def test_what_belongs_to_no_catalogue_is_a_flaw_and_can_be_removed(
    api, server, store, keys, tmp_path
):
    await RedisTreeStore(store, "gone~0000aaaa", space=LexicalEmbedder().space).drop()
    left = RedisTreeStore(store, "default~0000bbbb", space=LexicalEmbedder().space)
    await left.stage([Item(id=f"left-{number}", title="Left") for number in range(1_200)])
    api.put("/v1/catalogs/lost")
    api.put("/v1/catalogs/lost/items/a", json={"title": "A"})
    lost = await id_of(store, "lost")
    await store.set(DocumentKeys("catalog").document("lost"), b"damaged")

    _, report = await doctor(server, tmp_path)
    (strays,) = [one for one in report["checks"] if one["name"] == "strays"]
    assert (strays["status"], strays["flaws"]) == ("fail", ["1,202 keys of 'default~0000bbbb'"])
    assert "--remove-strays" in strays["advice"]
    await unillmrec(server, tmp_path, "doctor", "--deep", "--remove-strays")
    assert (await count_keys(store)).keys() == {await id_of(store), lost}, "one that may come back"
    _, report = await doctor(server, tmp_path)
    (strays,) = [one for one in report["checks"] if one["name"] == "strays"]
    assert strays["status"] == "ok"


async def test_a_catalogue_without_its_tree_can_be_saved_and_made_anew(
    api, server, store, keys, tmp_path
):
    version = ended(api, api.post(f"{CATALOG}/tree/rebuilds"))["result"]["tree_version"]
    lost = f"chunk 0 of 1 of snapshot version {version} is missing"
    generation = (await store.hget(keys.head, "generation")).decode()
    await store.hdel(keys.snapshot(generation), "0")
    api.put("/v1/catalogs/other")
    api.put("/v1/catalogs/other/items/a", json={"title": "A"})
    settings = Settings(redis_url=server.connect_url, data_dir=tmp_path / "other data")
    with served(settings) as url, httpx2.Client(base_url=url, timeout=60) as again:
        problem = assert_problem(again.post(f"{CATALOG}/recommend", json={}), 503, "store_corrupt")
        assert problem["detail"] == lost
        assert len(again.post("/v1/catalogs/other/recommend", json={}).json()["items"]) == 1

        code, report = await doctor(server, tmp_path)
        (damage,) = [one for one in report["checks"] if one["name"].endswith("default, snapshot")]
        assert code == 1
        assert damage["flaws"] == [lost, "the places of 38 of 38 items are missing"]
        assert "unillmrec export --records -c default" in damage["advice"]
        saved = tmp_path / "saved.jsonl"
        await unillmrec(server, tmp_path, "export", "--records", "-o", str(saved))
        assert delete_catalog(again, CATALOG).status_code == 204
        assert again.put(CATALOG).status_code == 201
        headers = {"Content-Type": "application/x-ndjson"}
        job = again.post(f"{CATALOG}/imports", content=saved.read_bytes(), headers=headers)
        assert ended(again, job)["result"]["items"] == len(WHOLE)
