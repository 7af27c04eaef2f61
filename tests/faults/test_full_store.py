"""A store without room refuses what is new, keeps what it has, and goes on when it gets room."""

import random

import httpx2

from tests.faults.checks import losses
from tests.faults.fleet import running
from tests.faults.ledger import Content, Ledger
from tests.faults.traffic import (
    CATALOG,
    JSONL,
    Client,
    as_lines,
    content_of,
    item_url,
    problem_flaw,
    stocked,
)

SPARE = "/v1/catalogs/spare"
ROOM_BYTES = 2_000_000
PADDING = {f"padding {n}": "x" * 2_000 for n in range(10)}  # 20 kB an item, and no words


def assert_full(reply: httpx2.Response) -> None:
    assert problem_flaw(reply) is None
    assert (reply.status_code, reply.json()["code"]) == (507, "store_full"), reply.text


async def test_a_full_store_refuses_writes_and_loses_none(store, tmp_path, open_room):
    ledger, chance = Ledger(), random.Random(3)
    async with (
        open_room(store.url) as room,
        running(tmp_path, prefix=room.prefix, apis=2, store=store) as fleet,
        httpx2.AsyncClient(timeout=30) as client,
    ):
        await stocked(fleet.urls, ledger, 300)
        assert (await client.put(f"{fleet.urls[0]}{SPARE}")).status_code == 201
        assert (await client.put(f"{fleet.urls[0]}{SPARE}/items/a", json={"title": "A"})).is_success
        used = (await room.client.info("memory"))["used_memory"]
        await room.client.config_set("maxmemory", used + ROOM_BYTES)
        try:
            await _fill(client, fleet.urls, ledger, chance)
            await room.client.config_set("maxmemory", used)  # no room for the smallest write
            for url in fleet.urls:
                await _reads_go_on(client, url)
                await _writes_are_refused(client, url, chance)
            gone = await client.delete(f"{fleet.urls[0]}{SPARE}", params={"confirm": "spare"})
            assert gone.status_code == 204, gone.text
            assert (await client.get(f"{fleet.urls[1]}{SPARE}/items")).status_code == 404
            assert await losses(room, ledger) == []
        finally:
            await room.client.config_set("maxmemory", 0)
        asking = Client(fleet.urls, ledger, "after")
        for url in fleet.urls:
            await _writes_go_on(asking, url, chance)
        await asking.aclose()
        assert await losses(room, ledger) == []
    assert ledger.counts["writes"] > 300
    ledger.assert_clean()


def _big(item_id: str, chance: random.Random) -> Content:
    content = content_of(item_id, 1, chance)
    return content | {"attributes": content["attributes"] | PADDING}


async def _fill(
    client: httpx2.AsyncClient, urls: list[str], ledger: Ledger, chance: random.Random
) -> None:
    """Write until every process has refused a single item."""
    refused: set[str] = set()
    for number in range(3_000):
        url = urls[number % len(urls)]
        content = _big(f"big/{number}", chance)
        body = {name: value for name, value in content.items() if name != "id"}
        reply = await client.put(url + item_url(content["id"]), json=body)
        if reply.status_code == 201:
            ledger.put([content])
            refused.discard(url)
        else:
            assert_full(reply)
            refused.add(url)
        if len(refused) == len(urls):
            return
    raise AssertionError("the store never gets full")


async def _reads_go_on(client: httpx2.AsyncClient, url: str) -> None:
    answer = await client.post(f"{url}{CATALOG}/recommend", json={"instruction": "a bridge"})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == 10
    for path in ("/similar?item_id=stock/1", "/items/stock/1", "/tree", "/exports/items", ""):
        reply = await client.get(f"{url}{CATALOG}{path}")
        assert reply.status_code == 200, (path, reply.text)
    assert (await client.get(f"{url}/readyz")).status_code == 200


async def _writes_are_refused(client: httpx2.AsyncClient, url: str, chance: random.Random) -> None:
    big = [_big(f"refused/{n}", chance) for n in range(50)]
    assert_full(await client.post(f"{url}{CATALOG}/items:batch", json={"upserts": big}))
    sent = as_lines(big)
    assert_full(await client.post(f"{url}{CATALOG}/imports", content=sent, headers=JSONL))
    assert_full(await client.post(f"{url}{CATALOG}/tree/rebuilds"))


async def _writes_go_on(client: Client, url: str, chance: random.Random) -> None:
    content = content_of(f"after/{url[-5:]}", 1, chance)
    body = {name: value for name, value in content.items() if name != "id"}
    reply = await client.ask("PUT", item_url(content["id"]), url, json=body)
    assert reply is not None
    assert reply.status_code == 201
    client.ledger.put([content])
    reply = await client.ask("DELETE", item_url("big/0"), url)
    assert reply is not None
    assert reply.status_code == 204
    client.ledger.deleted(["big/0"])
