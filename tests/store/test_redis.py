"""What only a store on a server can get into: damage, races, compaction."""

import asyncio
import os

import pytest
from redis.asyncio import RedisCluster

from tests.store.support import SETTINGS, SPACE, large, put, same, until
from tree.edits import DropItem
from tree.errors import CorruptSnapshot, StaleVersion
from tree.item import Item
from tree.node import Space
from tree.snapshot import SemanticTree
from tree.store.documents import RedisDocuments
from tree.store.redis import RedisTreeStore

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
