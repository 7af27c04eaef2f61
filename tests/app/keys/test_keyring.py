"""The ring of keys on a real store: outages, floods, damage; and the money of a day."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from app.budget import BudgetExceeded
from app.keys import ROOT, DailyBudget, KeyRequest, Keyring, KeyView, new_key
from app.storage.audit import RedisAudit
from app.storage.key_usage import RedisKeyUsage, today
from app.storage.keys import DocumentKeys
from app.storage.redis_documents import RedisDocuments
from tests.conftest import Room
from tree.errors import StoreBusy, StoreUnavailable
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.redis.pool import Pool

SECRET = SecretStr("root-" + "r" * 32)


def ring(room: Room, **more: float) -> Keyring:
    documents = RedisDocuments(room.client, prefix=room.prefix)
    usage = RedisKeyUsage(room.client, prefix=room.prefix)
    audit = RedisAudit(room.client, prefix=room.prefix)
    return Keyring(documents, usage, audit, SECRET, **more)


def request(**more: Any) -> KeyRequest:
    return KeyRequest.model_validate(
        {"name": "test", "scopes": ["recommend"], "catalogs": "*", **more}
    )


@pytest.fixture
async def own(embedded_url, open_room) -> AsyncIterator[Room]:
    async with open_room(embedded_url) as room:
        yield room


async def test_keys_are_the_same_on_every_kind_of_store(room):
    writer, reader = ring(room), ring(room)
    key, token = new_key(request())
    assert await reader.caller(token) is None
    await writer.add(key)
    for one in (writer, reader):
        caller = await one.caller(token)
        assert caller is not None
        assert (caller.id, caller.key) == (key.id, key)
    assert [kept.id for kept in await reader.all()] == [key.id]
    stored = repr(await room.client.get(DocumentKeys("key", room.prefix).document(key.id)))
    assert key.id in stored
    assert token.removeprefix(key.id) not in stored
    assert await writer.revoke(key.id)
    assert not await writer.revoke(key.id)
    assert await reader.all() == []
    assert await reader.caller(token) is None


async def test_a_flood_of_unknown_keys_asks_the_store_next_to_nothing(own):
    keyring = ring(own)
    key, token = new_key(request())
    await keyring.add(key)
    tokens = [new_key(request())[1] for _ in range(500)]
    tokens += [key.id + other.removeprefix(other[:16]) for other in tokens]  # wrong secrets
    before = await asked(own)
    began = time.monotonic()
    assert set(await asyncio.gather(*map(keyring.caller, tokens))) == {None}
    looks = 2 + (time.monotonic() - began) / 0.1
    assert await asked(own) - before <= looks
    assert await keyring.caller(token) is not None


async def asked(room: Room) -> int:
    stats = await room.client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("zrevrange", "get"))


async def test_a_damaged_key_is_not_accepted_and_hides_no_other(own):
    keyring = ring(own)
    pairs = [new_key(request()) for _ in range(2)]
    for key, _ in pairs:
        await keyring.add(key)
    name = DocumentKeys("key", own.prefix).document(pairs[0][0].id)
    await own.client.setrange(name, 40, b"\xff\xff")
    later = ring(own)
    assert await later.caller(pairs[0][1]) is None
    assert await later.caller(pairs[1][1]) is not None
    assert await later.revoke(pairs[0][0].id)


async def test_a_key_whose_times_cannot_be_written_in_utc_is_shown(own):
    keyring = ring(own)
    for expires_at in (253_402_387_139.0, -1e12, 1e300):  # earlier releases took the first
        key, _ = new_key(request())
        await keyring.add(
            msgspec.structs.replace(key, expires_at=expires_at, created_at=expires_at)
        )
    shown = [KeyView.of(key) for key in await keyring.all()]
    assert [(one.expires_at and one.expires_at.year, one.expired) for one in shown] == [
        (1, True), (9999, False), (9999, False),
    ]  # fmt: skip
    assert all(one.model_dump_json() for one in shown)


async def test_an_outage_locks_nobody_out_at_once_and_no_revoked_key_in(tmp_path):
    server = await EmbeddedServer.start(tmp_path / "store")
    try:
        async with connect(server.connect_url, timeout_s=0.3) as client:
            documents = RedisDocuments(client)
            keyring = Keyring(
                documents, RedisKeyUsage(client), RedisAudit(client), SECRET, unseen_s=1.5
            )
            key, token = new_key(request(rate_per_minute=1))
            await keyring.add(key)
            began = time.monotonic()
            await server.stop()
            assert await keyring.caller(token) is not None
            assert await keyring.count(key) is None  # nobody is kept out by what cannot count
            with pytest.raises(BudgetExceeded):  # and nobody spends
                await DailyBudget(keyring.usage, key.id, 1.0).claim(0.1)
            with pytest.raises(StoreUnavailable):  # it may have been made elsewhere just now
                await keyring.caller(new_key(request())[1])
            while time.monotonic() - began < 1.6:
                await asyncio.sleep(0.1)
            with pytest.raises(StoreUnavailable):
                await keyring.caller(token)
            assert await keyring.caller(SECRET.get_secret_value()) is ROOT
        server = await EmbeddedServer.start(tmp_path / "store")
        async with connect(server.connect_url) as client:
            keyring = Keyring(
                RedisDocuments(client), RedisKeyUsage(client), RedisAudit(client), SECRET
            )
            assert await keyring.caller(token) is not None
    finally:
        await server.stop()


async def test_a_crowd_passes_no_rate_because_it_is_a_crowd(embedded_url, open_room):
    """Over few connections, and with answers that take longer than anybody waits."""
    async with open_room(embedded_url) as room, connect(embedded_url, connections=2) as few:
        keyring = ring(room)
        keyring.usage = RedisKeyUsage(few, prefix=room.prefix)
        key, token = new_key(request(rate_per_minute=60))
        await keyring.add(key)
        answers = await asyncio.gather(*(keyring.count(key) for _ in range(2_000)))
        assert sum(one is not None and one.granted for one in answers) == 60
        assert None not in answers
        await room.client.client_pause(1_000)
        late = await keyring.count(key)
        assert late is not None
        assert not late.granted

        assert isinstance(few.connection_pool, Pool)

        few.connection_pool.wait_s = 0.7
        waits: list[asyncio.Task[Any]] = [
            asyncio.ensure_future(few.blpop([f"{room.prefix}:none"], 2)) for _ in range(2)
        ]
        assert await keyring.caller(token) is not None
        with pytest.raises(StoreBusy):
            await keyring.count(key)
        await asyncio.gather(*waits)


async def test_requests_are_counted_together_or_not_at_all(room):
    use = RedisKeyUsage(room.client, prefix=room.prefix)
    counted = [await use.count("ulr_000000000002", 10, requests) for requests in (8, 3, 2, 1)]
    assert [(one.granted, one.left) for one in counted] == [
        (True, 2), (False, 2), (True, 0), (False, 0),
    ]  # fmt: skip
    assert all(0 < one.reset_s <= 60 for one in counted)


async def test_others_acts_push_none_of_an_administrator_out_of_the_audit_log(room):
    audit = RedisAudit(room.client, prefix=room.prefix)
    await audit.record({"act": "create_key"}, by_admin=True)
    for start in range(0, 10_500, 500):
        acts = [{"act": f"import {start + at}"} for at in range(500)]
        await asyncio.gather(*(audit.record(act, by_admin=False) for act in acts))
    await audit.record({"act": "revoke_key"}, by_admin=True)
    seen, cursor = [], None
    while page := await audit.recorded(cursor, 997):
        seen += page
        cursor = page[-1].cursor
    places = [record.place for record in seen]
    assert places == sorted(set(places), reverse=True)
    assert (seen[0].entry, seen[-1].entry) == ({"act": "revoke_key"}, {"act": "create_key"})
    assert 10_000 <= len(seen) - 2 < 10_500


async def test_requests_together_do_not_overrun_the_money_of_a_day(room):
    use = RedisKeyUsage(room.client, prefix=room.prefix)
    budgets = [DailyBudget(use, "ulr_000000000000", 1.0) for _ in range(3)]

    async def call(at: int) -> bool:
        try:
            claim = await budgets[at % 3].claim(0.03)
        except BudgetExceeded:
            return False
        await asyncio.sleep(0)
        await claim.settle(0.01)
        return True

    claims = [await budgets[0].claim(0.3) for _ in range(3)]  # under way, and 0.1 is left
    assert sum(await asyncio.gather(*map(call, range(50)))) >= 3
    assert await use.spent("ulr_000000000000", today()) <= 1_000_000_000
    with pytest.raises(BudgetExceeded):
        await budgets[1].claim(0.3)
    await claims[0].settle(0.0)
    await (await budgets[1].claim(0.2)).settle(0.2)
    spent = await use.spent("ulr_000000000000", today())
    await asyncio.gather(*(claim.settle(0.3) for claim in claims[1:]))
    assert await use.spent("ulr_000000000000", today()) == spent
    free = DailyBudget(use, "ulr_000000000001", 0.0)
    with pytest.raises(BudgetExceeded):
        await free.claim(1e-9)
