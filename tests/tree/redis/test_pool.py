"""Requests in line for a connection to the store."""

import asyncio
from typing import Any

import pytest

from tests.tree.store.support import PATIENCE_S, until
from tree.errors import StoreBusy, StoreUnreachable
from tree.redis.connection import connect, translated
from tree.redis.pool import Pool

MOST = 3


async def test_a_crowd_is_served_over_few_connections(server_url, room):
    async with connect(server_url, connections=MOST) as client, asyncio.timeout(PATIENCE_S):
        names = [f"{room.prefix}:crowd:{number}" for number in range(400)]
        assert await asyncio.gather(*map(client.get, names)) == [None] * len(names)
        assert await asyncio.gather(*(ask_twice(client, name) for name in names))


async def ask_twice(client, name):
    """Over a pipeline, which takes a connection in a way of its own."""
    async with client.pipeline(transaction=False) as pipeline:
        return await pipeline.get(name).get(name).execute()


async def test_a_full_pool_says_so_and_blames_no_server(server):
    async with (
        connect(server.connect_url, connections=MOST) as client,
        connect(server.connect_url) as other,
    ):
        assert isinstance(client.connection_pool, Pool)
        client.connection_pool.wait_s = 0.2
        waits: list[asyncio.Task[Any]] = [
            asyncio.ensure_future(client.blpop(["nothing"], 0)) for _ in range(MOST)
        ]
        await until(lambda: blocked(other, MOST))
        with pytest.raises(StoreBusy) as refused:
            async with translated():
                await client.get("a")
        assert isinstance(refused.value, StoreUnreachable)  # jobs go on later, as in an outage
        assert "3 connections" in str(refused.value)
        assert "check" not in str(refused.value)
        await other.rpush("nothing", *range(MOST))
        await asyncio.gather(*waits)
        assert await client.get("a") is None


async def blocked(other, count):
    return (await other.info("clients"))["blocked_clients"] == count


async def test_requests_that_are_cancelled_take_no_connection_with_them(server):
    async with (
        connect(server.connect_url, connections=MOST) as client,
        connect(server.connect_url) as other,
    ):
        for steps in range(40):
            tasks: list[asyncio.Task[Any]] = [
                asyncio.ensure_future(client.get("a")) for _ in range(4 * MOST)
            ]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        waits: list[asyncio.Task[Any]] = [
            asyncio.ensure_future(client.blpop(["nothing"], 0)) for _ in range(MOST)
        ]
        await until(lambda: blocked(other, MOST))
        await other.rpush("nothing", *range(MOST))
        await asyncio.gather(*waits)


async def test_a_connection_that_cannot_be_made_gives_its_turn_back(tmp_path):
    async with connect(f"unix://{tmp_path}/none", connections=1) as client:
        assert isinstance(client.connection_pool, Pool)
        client.connection_pool.wait_s = 0.2
        for _ in range(3):
            with pytest.raises(StoreUnreachable) as refused:
                async with translated():
                    await client.get("a")
            assert not isinstance(refused.value, StoreBusy)
