"""A catalogue is deleted while it is written to, and processes die in the middle of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha1

import httpx2
import pytest

from app.storage.redis_documents import SWAP
from tests.catalogs import id_of
from tests.conftest import Room
from tests.faults.fleet import Api, running
from tests.servers.shim import Shim
from tree.store.key_count import count_keys
from tree.store.keys import CatalogKeys
from tree.store.scripts import MARK_DELETED

PATH = "/v1/catalogs/brief"
GONE = {"confirm": "brief"}
RECORDS = 1_200  # so many that they do not go at once
PATIENCE_S = 60


def sha(script: str) -> bytes:
    return sha1(script.encode()).hexdigest().encode()


# Where the process dies: before which of the requests that name the catalogue, by which it goes on.
POINTS = {
    "marked, nothing has gone": (sha(MARK_DELETED.lua), 1),
    "writers are refused, nothing has gone": (b"\r\nSCAN\r\n", 1),
    "some keys have gone": (b"\r\nUNLINK\r\n", 2),
    "all keys have gone": (sha(SWAP.lua), 2),
}


@dataclass
class Scene:
    """A process that dies, on a network that stops for it, and one that goes on."""

    victim: Api
    heir: httpx2.AsyncClient
    shim: Shim
    room: Room


@pytest.fixture
async def scene(store, tmp_path, open_room) -> AsyncIterator[Scene]:
    (tmp_path / "heir").mkdir()
    async with (
        open_room(store.url) as room,
        Shim.before(store.socket) as shim,
        running(tmp_path, prefix=room.prefix, apis=1, store=store, store_url=shim.url) as doomed,
        running(tmp_path / "heir", prefix=room.prefix, apis=1, store=store) as kept,
        httpx2.AsyncClient(base_url=kept.urls[0], timeout=PATIENCE_S) as heir,
    ):
        yield Scene(doomed.apis[0], heir, shim, room)


async def test_whoever_dies_in_the_middle_of_a_deletion_another_one_finishes_it(scene):
    heir, room = scene.heir, scene.room
    names = {f"brief-{number}": point for number, point in enumerate(POINTS)}
    before = {name: await filled(scene, name) for name in names}
    async with httpx2.AsyncClient(base_url=scene.victim.url, timeout=PATIENCE_S) as client:
        begun = []
        for name, point in names.items():
            words, nth = POINTS[point]
            reached = scene.shim.hold(words, name.encode(), nth=nth)
            begun.append(asyncio.create_task(deleted(client, name)))
            await asyncio.wait_for(reached.wait(), PATIENCE_S)
        scene.victim.kill()
        await scene.shim.forget()
        replies = await asyncio.gather(*begun, return_exceptions=True)
        assert all(isinstance(reply, httpx2.TransportError) for reply in replies), replies
    for name, point in names.items():
        await nothing_half_deleted_is_served(heir, name, point)
    for name, point in list(names.items())[1:]:  # the first is left to housekeeping
        assert (await deleted(heir, name)).status_code in (204, 404), point
    for name, point in names.items():
        path = f"/v1/catalogs/{name}"
        await created(heir, path, point)
        reply = await heir.put(f"{path}/items/new", json={"title": "New"})
        assert reply.status_code == 201, (point, reply.text)
        assert (await heir.get(path)).json()["items"] == 1, point
        listed = (await heir.get(f"{path}/items")).json()["items"]
        assert [item["id"] for item in listed] == ["new"], point
        assert await id_of(room.client, name, room.prefix) != before[name]
        assert before[name] not in await count_keys(room.client, room.prefix), point


async def filled(scene: Scene, name: str) -> str:
    """A catalogue with an item, and as many keys as a large one; its id."""
    path = f"/v1/catalogs/{name}"
    assert (await scene.heir.put(path)).status_code == 201
    assert (await scene.heir.put(f"{path}/items/old", json={"title": "Old"})).status_code == 201
    found = await id_of(scene.room.client, name, scene.room.prefix)
    keys = CatalogKeys(found, scene.room.prefix)
    await scene.room.client.mset({keys.item(f"old-{n}"): b"a record" for n in range(RECORDS)})
    return found


async def deleted(client: httpx2.AsyncClient, name: str) -> httpx2.Response:
    return await client.delete(f"/v1/catalogs/{name}", params={"confirm": name})


async def nothing_half_deleted_is_served(heir: httpx2.AsyncClient, name: str, point: str) -> None:
    """What is asked of it is 404; the others are served."""
    for method, path in (
        ("GET", ""), ("GET", "/items/old"), ("GET", "/items"), ("GET", "/exports/items"),
        ("PUT", "/items/late"), ("POST", "/recommend"),
    ):  # fmt: skip
        body = {"title": "Late"} if method == "PUT" else {} if method == "POST" else None
        reply = await heir.request(method, f"/v1/catalogs/{name}{path}", json=body)
        assert reply.status_code == 404, (point, path, reply.text)
        assert reply.json()["code"] == "unknown_catalog", (point, path)
    listed = {one["name"]: one for one in (await heir.get("/v1/catalogs")).json()["catalogs"]}
    assert name not in listed, point
    assert listed["default"]["problem"] is None
    assert (await heir.get("/readyz")).status_code == 200


async def created(client: httpx2.AsyncClient, path: str, point: str) -> None:
    """Return when the name is free, and taken again."""
    deadline = time.monotonic() + PATIENCE_S
    while (reply := await client.put(path)).status_code != 201:
        said = (reply.status_code, reply.json()["code"])
        assert said == (409, "being_deleted"), (point, reply.text)
        assert time.monotonic() < deadline, f"nobody finishes a deletion: {point}"
        await asyncio.sleep(0.05)


async def test_writers_beside_deletions_lose_nothing_that_was_acknowledged(
    store, tmp_path, open_room
):
    """One process deletes and creates; the others write, and trust for a while in what was."""
    async with (
        open_room(store.url) as room,
        running(tmp_path, prefix=room.prefix, apis=2, store=store) as fleet,
        httpx2.AsyncClient(timeout=PATIENCE_S) as client,
    ):
        chief, other = fleet.urls
        acknowledged: list[tuple[str, float, float]] = []
        over = asyncio.Event()
        writers = [
            asyncio.create_task(write(client, url, acknowledged, over)) for url in fleet.urls
        ]
        spans: list[tuple[float, float]] = []  # of the deletions, from the request to the answer
        for _ in range(4):
            await created_at(client, chief)
            seen = await client.put(f"{other}{PATH}/users/u", json={"profile": "likes sand"})
            assert seen.status_code == 200, "the name means the new one, everywhere and at once"
            await asyncio.sleep(0.1)
            began = time.monotonic()
            assert (await client.delete(chief + PATH, params=GONE)).status_code == 204
            spans.append((began, time.monotonic()))
            assert (await client.get(f"{other}{PATH}/users/u")).status_code == 404
        await created_at(client, chief)
        await asyncio.sleep(0.5)
        over.set()
        await asyncio.gather(*writers)
        # What was written before a deletion, or while it went on, may have gone with it.
        last = spans[-1][1]
        kept = {item for item, asked, _ in acknowledged if asked > last}
        gone = {item for item, _, answered in acknowledged if answered < spans[-1][0]}
        assert kept
        assert gone
        lines = (await client.get(f"{other}{PATH}/exports/items")).text
        assert all(f'"{item}"' in lines for item in kept)
        assert not any(f'"{item}"' in lines for item in gone)


async def write(
    client: httpx2.AsyncClient,
    url: str,
    acknowledged: list[tuple[str, float, float]],
    over: asyncio.Event,
) -> None:
    """Put one item after the other; no answer but that it is stored, or that there is nothing."""
    number = 0
    while not over.is_set():
        number += 1
        item, asked = f"{url[-5:]}-{number}", time.monotonic()
        reply = await client.put(f"{url}{PATH}/items/{item}", json={"title": "A film"})
        if reply.status_code == 201:
            acknowledged.append((item, asked, time.monotonic()))
        else:
            assert (reply.status_code, reply.json()["code"]) == (404, "unknown_catalog"), reply.text


async def created_at(client: httpx2.AsyncClient, url: str) -> None:
    assert (await client.put(url + PATH)).status_code == 201
