"""The data folder of a release, small enough to keep: later releases must serve it.

`python -m tests.tree.store.release_folder` writes it with the code of this checkout: what the
embedded store holds after a service has done its work, and what the service answered. Run it before
a change of stored forms, and keep the file of the release before: its test reads every such file.
"""

import asyncio
import json
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from app import __version__
from app.catalogs import CatalogSettings
from app.composition import services
from app.settings import Settings
from tests.commands import WAIT_S, serving
from tree.item import Item
from tree.redis.aof_rewrite import rewrite_aof
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer

HERE = Path(__file__).parent
STORE = "appendonlydir"
ANSWERS = "answers.json"
ROOT = "root-" + "r" * 32
ENVIRONMENT = {"UNILLMREC_ADMIN_KEY": ROOT, "UNILLMREC_POPULARITY_WEIGHT": "0.1"}
ITEMS = 80
MOODS = ("quiet", "grim", "merry", "bold", "odd", "late", "wild")
PLACES = ("sea", "moon", "town", "farm", "ice", "sky", "road", "isle", "cave", "mill", "bay")
SHOP = "/v1/catalogs/shop"
WAITING = "/v1/catalogs/waiting"
FOR_EVER = 4_102_444_800  # the year 2100, in seconds since the epoch

RECOMMENDED = f"{SHOP}/recommend"
QUESTIONS = (
    {"user_id": "u1", "limit": 10},
    {"history": [{"item_id": "i0"}, {"item_id": "i41"}], "instruction": "the sea", "limit": 10},
    {"instruction": "a quiet sea", "limit": 10},
)


def client(url: str, key: str = ROOT) -> httpx2.Client:
    return httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=WAIT_S)


def recommended(service: httpx2.Client, question: dict) -> dict:
    """What must not change in the answer to a question."""
    answer = service.post(RECOMMENDED, json=question).raise_for_status().json()
    ids = [item["item_id"] for item in answer["items"]]
    return {"tree_version": answer["tree_version"], "items": ids}


def finished(service: httpx2.Client, job: httpx2.Response) -> str:
    """The id of a job that has succeeded."""
    job_id = job.raise_for_status().json()["id"]
    deadline = time.monotonic() + WAIT_S
    while (now := service.get(f"/v1/jobs/{job_id}").json())["state"] != "succeeded":
        assert now["state"] in {"queued", "running"}, now
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return job_id


def item(number: int) -> dict:
    """Of few words: the state of the embedder grows with them."""
    mood, place = MOODS[number % len(MOODS)], PLACES[number // 3 % len(PLACES)]
    domain = ("books", "films")[number % 2]
    title = f"{mood} {place} {number}"
    return {"id": f"i{number}", "title": title, "domain": domain, "popularity": number}


def use(service: httpx2.Client) -> dict:
    """Work through everything that is stored; what was answered to whom."""
    shape = {"seed": 3, "language": "de", "leaf_capacity": 8, "fan_out": 4}
    service.put(SHOP, json=shape).raise_for_status()
    content = "\n".join(map(json.dumps, map(item, range(ITEMS)))).encode()
    lines_of_json = {"Content-Type": "application/jsonl"}
    sent = service.post(f"{SHOP}/imports", content=content, headers=lines_of_json)
    imported = finished(service, sent)
    finished(service, service.post(f"{SHOP}/tree/rebuilds", json={"mode": "full"}))
    new = {"title": "late moon", "attributes": {"year": 2026}}
    service.put(f"{SHOP}/items/late", json=new).raise_for_status()
    service.patch(f"{SHOP}/items/i1", json={"hidden": True}).raise_for_status()
    service.delete(f"{SHOP}/items/i2").raise_for_status()
    top = service.get(f"{SHOP}/tree").json()["tree"]["children"][0]["id"]
    name = {"label": "Named by hand", "locked": True}
    service.patch(f"{SHOP}/tree/nodes/{top}", json=name).raise_for_status()
    events = [
        {
            "event_id": f"e{user}.{at}",
            "user_id": f"u{user}",
            "item_id": f"i{at}",
            "type": "like",
        }
        for user in range(8)
        for at in range(user, user + 40, 10)
    ]
    service.post(f"{SHOP}/events", json={"events": events}).raise_for_status()
    user = {"history": ["i5", "i6"], "profile": "likes deserts", "attributes": {"age": 7}}
    service.put(f"{SHOP}/users/by-hand", json=user).raise_for_status()
    narrow = {"name": "page", "scopes": ["recommend"], "catalogs": ["shop"]}
    key = service.post("/v1/keys", json=narrow).raise_for_status().json()["key"]
    trace = service.post(RECOMMENDED, json=QUESTIONS[0]).json()["recommendation_id"]
    read = [
        SHOP, f"{SHOP}/items/i0", f"{SHOP}/items/i1", f"{SHOP}/items/late", f"{SHOP}/tree",
        f"{SHOP}/tree/versions", f"{SHOP}/exports/items", f"{SHOP}/users/u3",
        f"{SHOP}/users/by-hand", f"{SHOP}/recommendations/{trace}", f"/v1/jobs/{imported}",
        "/v1/keys", "/v1/audit",
    ]  # fmt: skip
    return {
        "key": key,
        "read": {path: service.get(path).raise_for_status().text for path in read},
        "recommended": [recommended(service, question) for question in QUESTIONS],
    }


async def stage(folder: Path) -> None:
    """An item that waits for its place, as a process that was killed would leave it."""
    async with services(Settings(data_dir=folder)) as parts:
        waiting, _ = await parts.catalogs.create("waiting", CatalogSettings())
        await waiting.store.stage([Item(id="waits", title="Waits for its place")])


async def keep_for_ever(folder: Path) -> None:
    """Let what expires live until the test reads it, and shorten the append-only file."""
    server = await EmbeddedServer.start(folder)
    async with connect(server.connect_url) as store:
        async for key in store.scan_iter(match="*", count=1_000):
            if await store.ttl(key) > 0:
                await store.expireat(key, FOR_EVER)
            if key.endswith(b":index"):
                expiring: list[Any] = await store.zrangebyscore(key, "-inf", FOR_EVER)
                if expiring:
                    await store.zadd(key, dict.fromkeys(expiring, FOR_EVER))
        await rewrite_aof(store)
    await server.stop()


def write(file: Path) -> None:
    """Write the folder and the answers of this release into a zip file."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        with serving(folder, **ENVIRONMENT) as (url, _), client(url) as service:
            answers = use(service)
        asyncio.run(stage(folder))
        asyncio.run(keep_for_ever(folder))
        with zipfile.ZipFile(file, "w") as archive:
            _pack(archive, ANSWERS, json.dumps(answers, indent=1).encode())
            for part in sorted((folder / STORE).iterdir()):
                _pack(archive, f"{STORE}/{part.name}", part.read_bytes())


def _pack(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Without the time, so that the same content makes the same file."""
    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, compresslevel=9)


if __name__ == "__main__":
    write(HERE / f"release_{__version__}.zip")
