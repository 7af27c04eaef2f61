"""The life of a catalogue: what is asked before it goes, and what the next of its name meets."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import httpx2
import pytest
from redis.asyncio import Redis

from app.catalog_settings import CatalogSettings
from app.embedders import LexicalEmbedder
from app.registry import Registry, UnknownCatalog
from app.settings import Settings
from app.storage.keys import DocumentKeys
from tests.app.api.support import (
    assert_problem,
    delete_catalog,
    ended,
    item_path,
    pointers,
    served,
)
from tests.catalogs import id_of, registry_of
from tests.contracts.support import put
from tree.redis.checksum import seal
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.store.key_count import count_keys
from tree.store.keys import CatalogKeys
from tree.store.redis_store import RedisTreeStore

JSONL = {"Content-Type": "application/x-ndjson"}
PATIENCE_S = 30


def lines(count: int) -> bytes:
    rows = ({"id": f"i{number}", "title": f"Item {number}"} for number in range(count))
    return "\n".join(map(json.dumps, rows)).encode()


@dataclass
class Place:
    """A store that a test may spoil, and what a service over it is started with."""

    store: Redis
    settings: Settings

    async def spoil(self, name: str) -> None:
        """Damage what is registered of a name."""
        await self.store.set(DocumentKeys("catalog").document(name), b"damaged")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    server = await EmbeddedServer.start(tmp_path / "store")
    async with connect(server.connect_url) as store:
        yield Place(store, Settings(redis_url=server.connect_url, data_dir=tmp_path / "data"))
    await server.stop()


def client_of(url: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, timeout=60)


# -- before it goes


def test_a_deletion_says_twice_what_is_to_go(api, catalog):
    name = catalog.rpartition("/")[2]
    for params in ({}, {"confirm": ""}, {"confirm": "other"}):
        problem = assert_problem(api.delete(catalog, params=params), 400, "confirmation_required")
        assert f"?confirm={name}" in problem["detail"]
    tidied = api.delete(f"/v1/catalogs/other/users/../../{name}")
    assert tidied.request.url.path == catalog, "the client has tidied the path"
    assert_problem(tidied, 400, "confirmation_required")
    assert_problem(api.delete(f"{catalog}?sure=yes"), 422, "invalid_request")
    assert api.get(catalog).status_code == 200
    assert_problem(delete_catalog(api, f"{catalog}-other"), 404, "unknown_catalog")


# -- what the next one meets


def test_traces_and_jobs_of_a_deleted_catalogue_are_not_those_of_the_next(api):
    path = f"/v1/catalogs/test-{token_hex(6)}"
    name = path.rpartition("/")[2]
    assert api.put(path).status_code == 201
    api.put(item_path(path, "secret"), json={"title": "A secret"})
    job = ended(api, api.post(f"{path}/imports", content=lines(3), headers=JSONL))
    trace = api.post(f"{path}/recommend", json={}).json()["recommendation_id"]
    assert api.get(f"{path}/recommendations/{trace}").status_code == 200

    assert delete_catalog(api, path).status_code == 204
    assert api.put(path).status_code == 201
    assert_problem(api.get(f"{path}/recommendations/{trace}"), 410, "recommendation_gone")
    assert api.post(f"{path}/recommend", json={}).json()["items"] == []
    assert api.get("/v1/jobs", params={"catalog": name}).json()["jobs"] == []
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
    assert delete_catalog(api, path).status_code == 204


def test_a_deletion_ends_the_jobs_and_neither_hangs_nor_complains(api, service_url, caplog):
    caplog.set_level(logging.WARNING)
    path = f"/v1/catalogs/test-{token_hex(6)}"
    for _ in range(2):
        assert api.put(path).status_code == 201
        for start in range(0, 2_700, 900):
            rows = [{"id": f"i{start + n}", "title": f"Item {n}"} for n in range(900)]
            assert api.post(f"{path}/items:batch", json={"upserts": rows}).status_code == 200
        job = api.post(f"{path}/imports", content=lines(20_000), headers=JSONL).json()
        began = time.monotonic()
        assert delete_catalog(api, path).status_code == 204
        assert time.monotonic() - began < PATIENCE_S
        assert api.get("/readyz").status_code == 200
        assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_client_that_hangs_up_does_not_stop_a_deletion(api, service_url):
    path = f"/v1/catalogs/test-{token_hex(6)}"
    name, port = path.rpartition("/")[2], int(service_url.rpartition(":")[2])
    assert api.put(path).status_code == 201
    for start in range(0, 3_000, 1_000):
        rows = [{"id": f"i{start + n}", "title": f"Item {n}"} for n in range(1_000)]
        assert api.post(f"{path}/items:batch", json={"upserts": rows}).status_code == 200
    with socket.create_connection(("127.0.0.1", port)) as connection:
        request = f"DELETE {path}?confirm={name} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
        connection.sendall(request.encode())
        deadline = time.monotonic() + PATIENCE_S
        while api.get(path).status_code == 200:
            assert time.monotonic() < deadline
    while (reply := api.put(path)).status_code != 201:
        assert_problem(reply, 409, "being_deleted")
        assert time.monotonic() < deadline
    assert api.get(path).json()["items"] == 0
    assert delete_catalog(api, path).status_code == 204


async def test_what_an_older_release_has_stored_is_served_and_can_go(place):
    """It had no creations: the record was the settings, and the name the hash tag."""
    documents = DocumentKeys("catalog")
    record = b'{"leaf_capacity":7,"fan_out":16,"seed":0,"embedder":"lexical",'
    record += b'"perspective":"interest","language":"en"}'
    await place.store.set(documents.document("old"), seal(record))
    await place.store.zadd(documents.index, {"old": "+inf"})
    store = RedisTreeStore(place.store, "old", space=LexicalEmbedder().space)
    await store.commit([put("a")], base=0)
    await store.aclose()
    with served(place.settings) as url, client_of(url) as api:
        found = api.get("/v1/catalogs").json()["catalogs"]
        assert [(one["name"], one["items"]) for one in found] == [("old", 1)]
        assert found[0]["settings"]["leaf_capacity"] == 7
        assert api.put("/v1/catalogs/old/items/b", json={"title": "B"}).status_code == 201
        assert await id_of(place.store, "old") == "old"
        assert delete_catalog(api, "/v1/catalogs/old").status_code == 204
        assert api.put("/v1/catalogs/old").status_code == 201
        assert api.get("/v1/catalogs/old").json()["items"] == 0
        assert await id_of(place.store, "old") != "old"
        assert await count_keys(place.store) == {}


# -- which there are


async def test_default_can_be_deleted_and_comes_back_where_there_is_no_other(place):
    with served(place.settings) as url, client_of(url) as api:
        assert delete_catalog(api, "/v1/catalogs/default").status_code == 204
        assert api.get("/readyz").json() == {"status": "ready", "catalogs": 0, "items": 0}
        assert api.get("/v1/catalogs").json() == {"catalogs": []}
        assert api.put("/v1/catalogs/mine").status_code == 201
    with served(place.settings) as url, client_of(url) as api:
        assert [one["name"] for one in api.get("/v1/catalogs").json()["catalogs"]] == ["mine"]
        assert delete_catalog(api, "/v1/catalogs/mine").status_code == 204
    with served(place.settings) as url, client_of(url) as api:
        assert [one["name"] for one in api.get("/v1/catalogs").json()["catalogs"]] == ["default"]


async def test_one_damaged_catalogue_hides_no_other_and_can_be_replaced(place):
    with served(place.settings) as url, client_of(url) as api:
        for name in ("fine", "headless", "lost"):
            assert api.put(f"/v1/catalogs/{name}", json={"fan_out": 5}).status_code == 201
            assert api.put(f"/v1/catalogs/{name}/items/a", json={"title": "A"}).status_code == 201
        headless = CatalogKeys(await id_of(place.store, "headless")).head
        await place.store.hset(headless, "version", "3x")
        before = await id_of(place.store, "lost")
        await place.spoil("lost")
    with served(place.settings) as url, client_of(url) as api:
        found = {one["name"]: one for one in api.get("/v1/catalogs").json()["catalogs"]}
        assert found["fine"]["problem"] is None
        assert found["fine"]["items"] == 1
        assert "the head of the catalogue is damaged" in found["headless"]["problem"]
        assert found["headless"]["settings"]["fan_out"] == 5
        assert "the catalog document 'lost' is damaged" in found["lost"]["problem"]
        assert (found["lost"]["settings"], found["lost"]["items"]) == (None, None)
        assert api.get("/v1/catalogs/lost").json() == found["lost"]
        assert api.get("/readyz").status_code == 200
        assert_problem(api.get("/v1/catalogs/lost/items"), 503, "store_corrupt")

        again = api.put("/v1/catalogs/lost", json={"fan_out": 5})
        assert (again.status_code, again.json()["items"]) == (200, 1), "the items stay"
        assert await id_of(place.store, "lost") == before
        await place.spoil("lost")
        for name in ("lost", "headless"):
            path = f"/v1/catalogs/{name}"
            assert delete_catalog(api, path).status_code == 204
            assert api.put(path).status_code == 201
            assert api.get(path).json()["items"] == 0
        assert (await count_keys(place.store)).keys() == {await id_of(place.store, "fine")}


async def test_what_a_lost_restore_has_left_goes_and_what_it_has_published_stays(place):
    """It fills a catalogue that nobody finds yet, which then takes the place of another."""
    registry, space = registry_of(place.store), LexicalEmbedder().space

    async def filled(name: str, *, published: bool) -> str:
        entry, _ = await registry.prepare(name, CatalogSettings(embedder="lexical"))
        store = RedisTreeStore(place.store, entry.id, space=space)
        await store.commit([put("a")], base=0)
        await store.aclose()
        if published:
            await registry.publish(entry)
        return entry.id

    replaced = await filled("shop", published=True)
    whole = await filled("shop", published=True)
    cut_short = await filled("shop", published=False)
    assert await registry.strays() == {}, "they are known"
    assert (await count_keys(place.store)).keys() == {replaced, whole, cut_short}
    with served(place.settings) as url, client_of(url) as api:
        deadline = time.monotonic() + PATIENCE_S
        while (await count_keys(place.store)).keys() != {whole}:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        found = api.get("/v1/catalogs").json()["catalogs"]
        assert [(one["name"], one["items"]) for one in found] == [("shop", 1)]
        assert await id_of(place.store, "shop") == whole
        while await registry.unfinished():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert await registry.documents.ids("catalog") == ["shop"]


def test_some_settings_may_change(api, catalog):
    usual = {"enabled": False, "max_cost_usd_per_day": None, "images": False}
    first = api.get(catalog).json()["settings"]
    assert (first["guidance"], first["enrichment"]) == ("", usual)

    def changed(**patch) -> tuple[str, dict]:
        reply = api.patch(catalog, json=patch)
        assert reply.status_code == 200, reply.text
        settings = reply.json()["settings"]
        assert settings == api.get(catalog).json()["settings"]
        assert settings | {"guidance": "", "enrichment": usual} == first
        return settings["guidance"], settings["enrichment"]

    assert changed() == ("", usual)
    assert changed(guidance=" Outdoor gear. ") == ("Outdoor gear.", usual)
    daily = {"enabled": True, "max_cost_usd_per_day": 0.5}
    assert changed(enrichment=daily) == ("Outdoor gear.", usual | daily)
    images = usual | daily | {"images": True}
    assert changed(enrichment={"images": True}) == ("Outdoor gear.", images)
    cheap = images | {"max_cost_usd_per_day": None}
    assert changed(enrichment={"max_cost_usd_per_day": None}) == ("Outdoor gear.", cheap)
    assert changed(guidance=None, enrichment=None) == ("", usual)
    for objective in (" Prefer what lasts. ", "Prefer the cheap.", None):
        patched = api.patch(catalog, json={"objective": objective}).json()["settings"]
        assert patched == first | {"objective": (objective or "").strip()}

    other = api.put(catalog, json={"guidance": "Another one"})
    assert "PATCH" in assert_problem(other, 409, "settings_fixed")["detail"]
    assert api.put(catalog, json={"guidance": "", "enrichment": {}}).status_code == 200


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        ({"guidance": "x" * 501}, "/guidance"),
        ({"guidance": "a\x00b"}, "/guidance"),
        ({"objective": "x" * 301}, "/objective"),
        ({"enrichment": {"enabled": "yes"}}, "/enrichment/enabled"),
        ({"enrichment": {"max_cost_usd_per_day": -1}}, "/enrichment/max_cost_usd_per_day"),
        ({"enrichment": {"more": 1}}, "/enrichment/more"),
        ({"leaf_capacity": 5}, "/leaf_capacity"),
    ],
)
def test_other_changes_of_settings_are_refused(api, catalog, patch, place):
    problem = assert_problem(api.patch(catalog, json=patch), 422, "invalid_request")
    assert pointers(problem) == [place]
    assert_problem(api.patch("/v1/catalogs/nothing", json={}), 404, "unknown_catalog")


async def test_changes_of_settings_at_the_same_time_are_all_made(place):
    """Two processes change one catalogue; each sees what the other has changed."""
    registry, other = registry_of(place.store), registry_of(place.store)
    entry, _ = await registry.create("books", CatalogSettings())

    async def change(of: Registry, **update: object) -> None:
        await of.change(entry, lambda settings: settings.model_copy(update=update))

    await asyncio.gather(change(registry, guidance="Books"), change(other, language="de"))
    found = await other.look("books")
    assert found is not None
    assert (found.settings.guidance, found.settings.language) == ("Books", "de")
    await registry.remove(await registry.mark_deleted("books"))
    with pytest.raises(UnknownCatalog):
        await change(other, guidance="Gone")
    again, _ = await registry.create("books", CatalogSettings())
    with pytest.raises(UnknownCatalog):
        await change(other, guidance="Of another one")
    assert (await other.look("books")) == again


def test_a_patch_of_event_types_is_merged_by_name_and_field(api, catalog):
    def patched(types: object) -> dict:
        reply = api.patch(catalog, json={"event_types": types})
        assert reply.status_code == 200, reply.text
        return reply.json()["settings"]["event_types"]

    wishlist = {"weight": 0.7, "hides": False}
    assert patched({"wishlist": {"weight": 0.7}, "view": {"hides": True}}) == {
        "wishlist": wishlist,
        "view": {"weight": 0.25, "hides": True},
    }
    found = patched({"click": {"weight": 0.3}, "view": {"weight": 0.1}})
    assert found == {
        "wishlist": wishlist,
        "view": {"weight": 0.1, "hides": True},
        "click": {"weight": 0.3, "hides": False},
    }
    assert patched({"view": {"weight": None}})["view"] == {"weight": 0.25, "hides": True}
    assert patched({"wishlist": {"hides": True}})["wishlist"] == {"weight": 0.7, "hides": True}
    assert list(patched({"wishlist": None, "view": None, "never": None})) == ["click"]
    for types in ({"shared": {"hides": True}}, {"shared": {"weight": None}}):
        reply = api.patch(catalog, json={"event_types": types})
        flaws = pointers(assert_problem(reply, 422, "invalid_request"))
        assert flaws == ["/event_types/shared/weight"]
    many = {f"t{number}": {"weight": 0.5} for number in range(32)}
    reply = api.patch(catalog, json={"event_types": many})
    assert pointers(assert_problem(reply, 422, "invalid_request")) == ["/event_types"]
    assert patched(None) == {}
