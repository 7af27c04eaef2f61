"""What a store makes of lost answers, cancellations and servers that fail."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.tree.store.support import SPACE, large, put, until
from tree.edits import DropItem
from tree.errors import StaleVersion, StoreUnavailable
from tree.item import Item
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.snapshot import SemanticTree
from tree.store.redis_store import RedisTreeStore

# -- answers that are lost


@asynccontextmanager
async def wire_cutter(server: EmbeddedServer, path: str) -> AsyncIterator[asyncio.Event]:
    """A proxy in front of `server`; while the event is set it loses one answer to a script."""
    cut = asyncio.Event()
    target = server.connect_url.removeprefix("unix://")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        upstream, downstream = await asyncio.open_unix_connection(target)
        try:
            while request := await reader.read(1 << 20):
                downstream.write(request)
                answer = await upstream.read(1 << 20)
                if cut.is_set() and b"EVALSHA" in request and b"NOSCRIPT" not in answer:
                    cut.clear()
                    return
                writer.write(answer)
        finally:
            writer.close()
            downstream.close()

    proxy = await asyncio.start_unix_server(serve, path)
    async with proxy:
        yield cut
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_commit_whose_answer_is_lost_is_sent_again_and_counts_once(server, tmp_path):
    async with (
        wire_cutter(server, f"{tmp_path}/cut.sock") as cut,
        connect(f"unix://{tmp_path}/cut.sock") as client,
    ):
        store = RedisTreeStore(client, "books", space=SPACE)
        await store.commit([put("a")], base=0)
        cut.set()
        assert (await store.commit([put("b")], base=1)).version == 2
        assert not cut.is_set()
        cut.set()
        assert (await store.replace(await store.load(), base=2)).version == 3
        assert not cut.is_set()
        assert set((await store.load()).item_ids()) == {"a", "b"}


async def test_after_an_unknown_outcome_load_finds_out(server, tmp_path):
    async with wire_cutter(server, f"{tmp_path}/cut.sock") as cut:
        client = Redis(unix_socket_path=f"{tmp_path}/cut.sock", retry=Retry(NoBackoff(), 0))
        async with client:
            store = RedisTreeStore(client, "books", space=SPACE)
            await store.commit([put("a")], base=0)
            cut.set()
            with pytest.raises(StoreUnavailable):
                await store.commit([put("b")], base=1)
            tree = await store.load()
            assert (tree.version, set(tree.item_ids())) == (2, {"a", "b"})
            assert (await store.commit([put("c")], base=2)).version == 3


async def test_no_cancellation_is_lost(server):
    """Python 3.11's wait_for, within the client, swallows those that come while it sends."""
    async with connect(server.connect_url) as client:
        store = RedisTreeStore(client, "books", space=SPACE)
        await store.commit([put("a")], base=0)
        for steps in range(60):
            asked = 0

            async def ask_on() -> None:
                nonlocal asked
                while asked < 10_000:
                    await store.items(["a"])
                    asked += 1

            task = asyncio.create_task(ask_on())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asked < 1_000


async def test_a_cancelled_commit_leaves_the_store_usable(server):
    async with connect(server.connect_url) as client, connect(server.connect_url) as other:
        store = RedisTreeStore(client, "books", space=SPACE)
        before = await store.commit([put("a")], base=0)
        await other.client_pause(60_000, all=False)
        task = asyncio.create_task(store.commit([put("b")], base=1))

        async def waiting() -> bool:
            return any("b" in one["flags"] for one in await other.client_list())  # blocked

        await until(waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await other.client_unpause()
        tree = await store.load()
        assert list(before.item_ids()) == ["a"]
        assert "a" in tree
        newer = await store.commit([put("c")], base=tree.version)
        fresh = await RedisTreeStore(other, "books", space=SPACE).load()
        assert set(fresh.item_ids()) == set(newer.item_ids())


async def test_versions_that_a_server_lost_are_not_taken_for_their_successors(
    room, keys, open_store
):
    store, other = open_store(), open_store()
    await store.commit([put("a")], base=0)
    names = (keys.head, keys.log)
    saved = [await room.client.dump(name) for name in names]
    await store.commit([put("lost")], base=1)
    for name, value in zip(names, saved, strict=True):
        await room.client.restore(name, 0, value, replace=True)

    assert list((await store.load()).item_ids()) == ["a"]
    await store.commit([put("lost again")], base=1)
    for name, value in zip(names, saved, strict=True):
        await room.client.restore(name, 0, value, replace=True)
    await other.commit([put("b")], base=1)
    await other.commit([put("c")], base=2)
    with pytest.raises(StaleVersion):
        await store.commit([put("d")], base=2)
    assert set((await store.load()).item_ids()) == {"a", "b", "c"}


# -- outages


def calls(store: RedisTreeStore, tree: SemanticTree) -> Iterator:
    yield store.load()
    yield store.commit([put("x")], base=tree.version)
    yield store.replace(tree, base=tree.version)
    yield store.changes(since=0)
    yield store.items(["a"])
    yield store.stage([Item(id="x", title="Title")])
    yield anext(store.staged_ids())
    yield store.compact()
    yield store.drop()


async def test_an_outage_is_reported_by_every_method_and_survived(tmp_path):
    server = await EmbeddedServer.start(tmp_path)
    async with connect(server.connect_url) as client:
        store = RedisTreeStore(client, "books", space=SPACE)
        tree = await store.commit([put("a")], base=0)
        await server.stop()
        for outcome in await asyncio.gather(*calls(store, tree), return_exceptions=True):
            assert isinstance(outcome, StoreUnavailable)
            assert "cannot be reached: check that" in str(outcome)
        server = await EmbeddedServer.start(tmp_path)
        assert list((await store.load()).item_ids()) == ["a"]
        assert (await store.commit([put("b")], base=1)).version == 2
    await server.stop()


async def test_a_full_server_refuses_whole_commits_and_still_reads(server):
    async with connect(server.connect_url) as client:
        store = RedisTreeStore(client, "books", space=SPACE)
        await store.commit([put("a")], base=0)
        await store.stage([Item(id="a", title="New title"), Item(id="b", title="Title")])
        await client.config_set("maxmemory", "1mb")
        for call in (
            store.commit([put("b"), DropItem("a")], base=1),
            store.replace(large(), base=1),
            store.stage([Item(id="c", title="Title")]),
        ):
            with pytest.raises(StoreUnavailable, match="store is full: raise its maxmemory"):
                await call
        assert list((await store.load()).item_ids()) == ["a"]
        assert (await store.items(["a", "b", "c"])).keys() == {"a", "b"}
        assert sorted([item_id async for ids in store.staged_ids() for item_id in ids]) == [
            "a",
            "b",
        ]
        await client.config_set("maxmemory", "0")
        assert (await store.commit([put("b")], base=1)).version == 2


async def test_a_read_only_replica_is_named(server):
    async with connect(server.connect_url) as client:
        store = RedisTreeStore(client, "books", space=SPACE)
        await store.commit([put("a")], base=0)
        await client.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="read-only replica: point the store URL"):
            await store.commit([put("b")], base=1)
        assert list((await store.load()).item_ids()) == ["a"]


async def test_scripts_that_a_server_forgot_are_sent_again(server):
    async with connect(server.connect_url) as client:
        store = RedisTreeStore(client, "books", space=SPACE)
        await store.commit([put("a")], base=0)
        await client.script_flush()
        assert (await store.commit([put("b")], base=1)).version == 2
