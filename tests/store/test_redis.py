"""What only a store on a server can get into: damage, races, lost answers, outages."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tree.edits import DropItem, NodeSpec, PutItem
from tree.errors import CorruptSnapshot, StaleVersion, StoreUnavailable
from tree.item import Item
from tree.node import ROOT, Space, TreeSettings
from tree.rows import Columns
from tree.snapshot import SemanticTree
from tree.store.connection import connect
from tree.store.documents import RedisDocuments
from tree.store.keys import CatalogKeys
from tree.store.redis import RedisTreeStore
from tree.store.server import EmbeddedServer
from tree.vectors import DIMENSIONS

SPACE = Space("lexical", "fitted", bytes(range(256)) * 20)
SETTINGS = TreeSettings(leaf_capacity=50, fan_out=1_000)
PATIENCE_S = 20


def large(items: int = 5_000) -> SemanticTree:
    """A tree of several chunks: a root over leaves of 25 items."""
    leaves = range(1, items // 25 + 1)
    columns = Columns(
        [f"item {number}" for number in range(items)],
        np.random.default_rng(0).integers(-127, 128, (items, DIMENSIONS), dtype=np.int8),
        np.arange(items, dtype=np.float32),
        np.full(items, np.inf),
        np.zeros(items, np.bool_),
        [f"domain {number % 3}" for number in range(items)],
    )
    return SemanticTree.assemble(
        [
            NodeSpec(ROOT, "All", children=tuple(leaves)),
            *(NodeSpec(n, f"leaf {n}") for n in leaves),
        ],
        columns,
        [25] * len(leaves),
        version=0,
        settings=SETTINGS,
        space=SPACE,
        next_node=len(leaves) + 1,
    )


def put(item_id: str, leaf: int = ROOT) -> PutItem:
    record = Item(id=item_id, title="Title").record()
    return PutItem(item_id, leaf, bytes(DIMENSIONS), record=record)


def same(one: SemanticTree, other: SemanticTree) -> bool:
    """Whether two trees hold the same items in the same leaves with the same facts."""
    (specs, columns, sizes, compass), theirs = one.parts(), other.parts()
    return (
        (one.version, one.space, one.settings, one.next_node, specs, sizes)
        == (other.version, other.space, other.settings, other.next_node, theirs[0], theirs[2])
        and (columns.ids, columns.domains) == (theirs[1].ids, theirs[1].domains)
        and np.array_equal(columns.vectors, theirs[1].vectors)
        and np.array_equal(columns.popularity, theirs[1].popularity)
        and np.array_equal(columns.expires_at, theirs[1].expires_at)
        and np.array_equal(columns.hidden, theirs[1].hidden)
        and np.array_equal(compass, theirs[3])
    )


async def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.002)


@pytest.fixture
async def open_store(room) -> AsyncIterator:
    opened: list[RedisTreeStore] = []

    def opener(client: Redis = room.client) -> RedisTreeStore:
        store = RedisTreeStore(client, "books", space=SPACE, settings=SETTINGS, prefix=room.prefix)
        opened.append(store)
        return store

    yield opener
    for store in opened:
        await store.aclose()


@pytest.fixture
def keys(room) -> CatalogKeys:
    return CatalogKeys("books", room.prefix)


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[EmbeddedServer]:
    """A server that a test may spoil."""
    server = await EmbeddedServer.start(tmp_path)
    yield server
    with suppress(ProcessLookupError):
        await server.stop()


# -- snapshots


async def test_a_large_tree_comes_back_as_it_was(open_store):
    written = await open_store().replace(large(), base=0)
    assert same(written, await open_store().load())


@pytest.mark.parametrize(
    ("field", "message"),
    [("header", "header"), ("0", "chunk 0 of 5"), ("4", "chunk 4 of 5 of snapshot version 1")],
)
async def test_a_damaged_snapshot_is_named_not_served(room, keys, open_store, field, message):
    await open_store().replace(large(), base=0)
    generation = (await room.client.hget(keys.head, "generation")).decode()
    key = keys.snapshot(generation)
    chunk = await room.client.hget(key, field)

    await room.client.hset(key, field, chunk[:-1] + bytes([chunk[-1] ^ 1]))
    with pytest.raises(CorruptSnapshot, match=f"{message}.* is damaged"):
        await open_store().load()
    await room.client.hdel(key, field)
    with pytest.raises(CorruptSnapshot, match=f"{message}.* is missing"):
        await open_store().load()
    await room.client.hset(key, field, chunk)
    assert len(await open_store().load()) == 5_000


async def test_chunks_in_the_wrong_order_are_noticed(room, keys, open_store):
    await open_store().replace(large(), base=0)
    key = keys.snapshot((await room.client.hget(keys.head, "generation")).decode())
    await room.client.hset(key, "2", await room.client.hget(key, "3"))
    with pytest.raises(CorruptSnapshot, match=r"chunk 2 of 5 .*it is chunk 3"):
        await open_store().load()


async def test_a_lost_space_is_named(room, keys, open_store):
    await open_store().replace(large(), base=0)
    await room.client.unlink(keys.space("fitted"))
    with pytest.raises(CorruptSnapshot, match=r"embedder lexical \(fitted\) is missing"):
        await open_store().load()


async def test_a_lost_log_entry_is_noticed(room, keys, open_store):
    store = open_store()
    await store.commit([put("a")], base=0)
    behind = open_store()
    await behind.load()
    for version in (1, 2, 3):
        await store.commit([put(f"item {version}")], base=version)
    await room.client.xdel(keys.log, "3-0")
    for reader in (behind, open_store()):
        with pytest.raises(CorruptSnapshot, match="log from 1 to 4 has gaps"):
            await reader.load()


async def test_an_unreadable_record_is_named(room, keys, open_store):
    store = open_store()
    await store.commit([put("a")], base=0)
    await room.client.set(keys.item("a"), b'{"id": "a"}')
    with pytest.raises(CorruptSnapshot, match="record of item 'a'"):
        await store.items(["a"])


async def test_a_replace_that_is_cut_short_changes_and_leaks_nothing(room, keys, open_store):
    store = open_store()
    await store.commit([put("a")], base=0)

    async def uploads() -> int:
        pattern = keys.snapshot("*")
        return len([key async for key in room.client.scan_iter(match=pattern, count=1_000)])

    async def started() -> bool:
        return await uploads() > 1

    task = asyncio.create_task(store.replace(large(20_000), base=1))
    await until(started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await uploads() > 1
    for reader in (store, open_store()):
        assert list((await reader.load()).item_ids()) == ["a"]
    assert len(await store.replace(large(), base=1)) == 5_000


async def test_old_snapshots_and_spaces_stay_as_long_as_somebody_needs_them(room, keys, open_store):
    async def published(tree: SemanticTree) -> str:
        await store.replace(tree, base=(await store.load()).version)
        return keys.snapshot((await room.client.hget(keys.head, "generation")).decode())

    store = open_store()
    other = SemanticTree.empty(Space("openai", "other"), SETTINGS).apply([put("a")])
    first = await published(large())
    second = await published(other)
    for key in (first, second, keys.space("fitted"), keys.space("other")):
        assert await room.client.ttl(key) == -1
    third = await published(other)
    for key in (first, keys.space("fitted")):  # for those who read them at this moment
        assert 500 < await room.client.ttl(key) <= 600
    await published(large())
    assert 500 < await room.client.ttl(second) <= 600
    for key in (third, keys.space("fitted"), keys.space("other")):
        assert await room.client.ttl(key) == -1
    assert same(await open_store().load(), await store.load())


async def test_a_rebuild_that_was_overtaken_takes_its_upload_back(room, keys, open_store):
    store, other = open_store(), open_store()
    await store.commit([put("a")], base=0)
    replacing = asyncio.create_task(store.replace(large(20_000), base=1))
    await other.commit([put("b")], base=1)
    with pytest.raises(StaleVersion):
        await replacing
    found = [key async for key in room.client.scan_iter(match=keys.snapshot("*"), count=1_000)]
    assert len(found) == 1
    assert set((await open_store().load()).item_ids()) == {"a", "b"}


async def test_readers_commits_and_snapshots_do_not_disturb_each_other(open_store):
    await open_store().replace(large(), base=0)
    done = asyncio.Event()

    async def read() -> int:
        loads = 0
        while not done.is_set():
            tree = await open_store().load()
            assert len(tree) == 5_000
            loads += 1
        return loads

    async def snapshots(store: RedisTreeStore) -> None:
        while (await store.load()).version < 40:
            await store.compact()

    async def write(store: RedisTreeStore) -> None:
        for number in range(40):
            tree = await store.load()
            await store.commit([put(f"item {number}", 1 + number // 25)], base=tree.version)

    readers = asyncio.gather(read(), read())
    writer = open_store()
    await asyncio.gather(write(writer), snapshots(writer), snapshots(open_store()))
    done.set()
    assert min(await readers) > 0
    assert (await open_store().load()).version == 41


@pytest.mark.skipif("UNILLMREC_TEST_REDIS_URL" in os.environ, reason="that may be no cluster")
async def test_a_cluster_client_serves_as_well(tcp_url, open_room):
    async with open_room(tcp_url) as room, RedisCluster.from_url(tcp_url) as client:
        store, other = (
            RedisTreeStore(client, "books", space=SPACE, settings=SETTINGS, prefix=room.prefix)
            for _ in range(2)
        )
        await store.stage([Item(id="a", title="Title"), Item(id="b", title="Title")])
        tree = await store.commit([put("a")], base=0)
        assert [list(ids) async for ids in other.staged()] == [["b"]]
        await store.compact()
        await store.replace(tree, base=1)
        assert list((await other.load()).item_ids()) == ["a"]
        assert (await other.items(["a", "b"])).keys() == {"a", "b"}
        await store.drop()
        assert (await other.load()).version == 0

        documents = RedisDocuments(client, prefix=room.prefix)
        assert await documents.put_new("job", "1", b"data", 60)
        assert [entry async for entry in documents.list("job")] == [("1", b"data")]
        assert await documents.delete("job", "1")


# -- compaction by itself


async def test_a_long_log_is_compacted_behind_the_commits(room, keys, open_store):
    store, follower = open_store(), open_store()
    await store.commit([put("a")], base=0)
    await follower.load()
    await store.commit([DropItem(str(number)) for number in range(2_001)], base=1)
    await store.commit([put("b")], base=2)
    await store.aclose()

    snapshot, version = await room.client.hmget(keys.head, ["snapshot", "version"])
    assert int(snapshot) >= 2
    assert int(version) == 3
    assert await room.client.exists(keys.compacting) == 0
    assert same(await open_store().load(), await follower.load())
    assert (await open_store().changes(since=2))[0].id == "b"


async def test_many_commits_are_compacted_too(room, keys, open_store):
    store = open_store()
    for number in range(2_050):
        await store.commit([DropItem("nobody")], base=number)
    await store.aclose()
    await store.compact()
    await store.commit([put("a")], base=2_050)
    await store.compact()
    assert await room.client.xlen(keys.log) == 1
    assert list((await open_store().load()).item_ids()) == ["a"]


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
    yield anext(store.staged())
    yield store.compact()
    yield store.drop()


async def test_an_outage_is_reported_by_every_method_and_survived(tmp_path):
    server = await EmbeddedServer.start(tmp_path)
    async with connect(server.connect_url) as client:
        store = RedisTreeStore(client, "books", space=SPACE)
        tree = await store.commit([put("a")], base=0)
        await server.stop()
        for call in calls(store, tree):
            with pytest.raises(StoreUnavailable, match="cannot be reached: check that"):
                await call
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
        assert sorted([item_id async for ids in store.staged() for item_id in ids]) == ["a", "b"]
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
