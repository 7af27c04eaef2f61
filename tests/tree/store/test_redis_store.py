"""What only a store on a server can get into: damage, races, compaction."""

import asyncio
import time
from contextlib import suppress

import pytest

from tests.tree.store.support import SETTINGS, large, put, same, until
from tree.edits import DropItem
from tree.errors import CorruptSnapshot, StaleVersion
from tree.item import Item
from tree.node import Space
from tree.snapshot import SemanticTree
from tree.store.redis_store import RedisTreeStore

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


async def test_a_damaged_record_is_left_out_told_once_and_named(room, keys, open_store, caplog):
    store = open_store()
    await store.commit([put("a"), put("b"), put("c")], base=0)
    whole = await room.client.get(keys.item("a"))
    damage = {
        "damaged": whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:],
        "that of 'b'": await room.client.get(keys.item("b")),
        "damaged ": b"",
    }
    for said, record in damage.items():
        await room.client.set(keys.item("a"), record)
        for _ in range(2):
            assert (await store.items(["a", "b"])).keys() == {"b"}
        assert said.strip() in (await store.record_flaws(["a", "b"]))["a"]
    await room.client.unlink(keys.item("c"))
    assert (await store.record_flaws(["b", "c"])) == {"c": "the record of item 'c' is missing"}
    assert [line for line in caplog.messages if "record of item 'a' is damaged" in line] == [
        "the record of item 'a' is damaged: it is left out; put the item again, or delete it"
    ]
    await store.commit([put("a")], base=1)
    assert await store.record_flaws(["a", "b"]) == {}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("version", "4", "names version 4, but the log ends in 3"),
        ("version", "2", "log reaches version 3, but the head names version 2"),
        ("version", "3x", "head of the catalogue is damaged"),
        ("version", b"\xb3", "head of the catalogue is damaged"),
        ("token", "0123456789abcdef", "log from 1 to 3 has gaps"),
        ("token", None, "the head of the catalogue is damaged: it lacks its token"),
        ("generation", "0123456789abcdef", "does not begin with the one in place"),
        ("space", "fitter", "does not begin with the one in place"),
        ("versions", None, "lacks its list of versions"),
        ("versions", "[{", "head of the catalogue is damaged"),
        ("snapshot", "1", "the head names snapshot 1"),
    ],
)
async def test_a_damaged_head_is_not_served(room, keys, open_store, field, value, said):
    store = open_store()
    for version in range(3):
        await store.commit([put(f"item {version}")], base=version)
    if value is None:
        await room.client.hdel(keys.head, field)
    else:
        await room.client.hset(keys.head, field, value)
    with pytest.raises(CorruptSnapshot, match=said):
        await open_store().load()
    flaws = [flaw async for looked in open_store().check_integrity() for flaw in looked.flaws]
    assert flaws
    await store.drop()


async def test_a_lost_head_is_not_an_empty_catalogue(room, keys, open_store):
    await open_store().commit([put("a")], base=0)
    await room.client.unlink(keys.head)
    with pytest.raises(CorruptSnapshot, match="log reaches version 1, but the head names version"):
        await open_store().load()
    await open_store().drop()


async def test_a_damaged_log_entry_is_named_not_served(room, keys, open_store):
    store = open_store()
    for version in range(3):
        await store.commit([put(f"item {version}")], base=version)
    ((number, fields),) = await room.client.xrange(keys.log, "2-0", "2-0")
    entries = await room.client.xrange(keys.log, "3-0", "3-0")
    damaged = {**fields, b"edits": fields[b"edits"].replace(b"item 1", b"item 7")}
    (first,) = await room.client.xrange(keys.log, "1-0", "1-0")
    await room.client.unlink(keys.log)
    for at, entry in [first, (number, damaged), *entries]:
        await room.client.xadd(keys.log, entry, id=at)
    reader = open_store()
    flaws = [flaw async for looked in reader.check_integrity() for flaw in looked.flaws]
    assert "log entry 2 is damaged" in flaws
    await room.client.xdel(keys.log, "1-0")
    with pytest.raises(CorruptSnapshot):
        await reader.load()


async def test_a_survey_finds_nothing_in_a_whole_catalogue(open_store):
    store = open_store()
    await store.replace(large(), base=0)
    await store.commit([put("new", 1), DropItem("item 7")], base=1)
    await store.stage([Item(id="waiting", title="Title")])
    looked = [looked async for looked in open_store().check_integrity()]
    assert [flaw for one in looked for flaw in one.flaws] == []
    counts = {part: sum(one.count for one in looked if one.part == part) for part in (
        "head", "snapshot", "log", "waiting", "strays",
    )}  # fmt: skip
    assert counts == {"head": 1, "snapshot": 6, "log": 1, "waiting": 1, "strays": 2}


async def test_a_survey_names_every_flaw(room, keys, open_store):
    store = open_store()
    await store.replace(large(), base=0)
    for version in range(1, 5):
        await store.commit([put(f"new {version}", version)], base=version)
    await store.stage([Item(id="waiting", title="Title")])
    await room.client.unlink(keys.item("waiting"))
    await room.client.set(keys.item("stray"), b"")
    await room.client.xdel(keys.log, "3-0", "4-0")
    generation = (await room.client.hget(keys.head, "generation")).decode()
    await room.client.expire(keys.space("fitted"), 100)

    flaws = {flaw async for looked in open_store().check_integrity() for flaw in looked.flaws}
    assert "log entries 3 to 4 are missing" in flaws
    assert "the record of item 'waiting' is missing; it waits for a place" in flaws
    assert "the state of the embedder 'fitted' is in use, yet it expires in 100 s" in flaws

    await room.client.hdel(keys.snapshot(generation), "3")
    chunk = await room.client.hget(keys.snapshot(generation), "4")
    await room.client.hset(keys.snapshot(generation), "4", chunk[:-1])
    flaws = {flaw async for looked in open_store().check_integrity() for flaw in looked.flaws}
    assert "chunk 3 of 5 of snapshot version 1 is missing" in flaws
    assert "chunk 4 of 5 of snapshot version 1 is damaged" in flaws
    assert "the places of 2,000 of 5,000 items are missing" in flaws
    await room.client.unlink(keys.snapshot(generation))
    flaws = {flaw async for looked in open_store().check_integrity() for flaw in looked.flaws}
    assert "the header of the snapshot is missing, and with it every node of the tree" in flaws


async def test_a_survey_names_strays(room, keys, open_store):
    store = open_store()
    await store.commit([put("a")], base=0)
    await room.client.set(keys.item("stray"), b"")
    flaws = [flaw async for looked in store.check_integrity() for flaw in looked.flaws]
    assert flaws == ["the record of item 'stray' belongs to no item of the tree"]


async def test_a_replace_that_is_cut_short_changes_and_leaks_nothing(room, keys, open_store):
    store = open_store()
    await store.commit([put("a")], base=0)

    async def uploads() -> int:
        pattern = keys.snapshot("*")
        return len([key async for key in room.client.scan_iter(match=pattern, count=1_000)])

    async def started() -> bool:
        return await uploads() > 1

    # Another process has the commit lock, so that nothing is published before it is cut short.
    lock = {"hold": "other", "held_until": int(time.time()) + 60}
    await room.client.hset(keys.head, mapping=lock)
    task = asyncio.create_task(store.replace(large(), base=1))
    await until(started)
    while not task.done():  # one of many cancellations is lost in a read of the client library
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
    assert task.cancelled()
    await room.client.hdel(keys.head, *lock)
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
        assert 30 < await room.client.ttl(key) <= 61
    await published(large())
    assert 30 < await room.client.ttl(second) <= 61
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


# -- large log entries


async def behind(open_store, edits: int) -> RedisTreeStore:
    """A replica that has to apply a large entry before it knows of "b"."""
    store, replica = open_store(), open_store()
    await store.commit([put("a")], base=0)
    nobody = [DropItem(str(number)) for number in range(edits)]
    commit = asyncio.create_task(store.commit([put("b"), *nobody], base=1))
    while not commit.done():
        assert (await replica.recent()).version == 1
    return replica


async def test_a_reader_does_not_wait_for_a_large_entry_but_a_writer_does(open_store):
    replica = await behind(open_store, 40_000)
    before = await replica.recent()
    assert (before.version, "a" in before, "b" in before) == (1, True, False)
    assert "b" in await replica.load()
    assert "b" in await replica.recent()


async def test_a_load_that_is_given_up_leaves_no_entry_half_applied(open_store):
    replica = await behind(open_store, 50_000)
    for _ in range(3):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await replica.load()
    await replica.commit([put("c")], base=(await replica.load()).version)
    assert set((await replica.load()).item_ids()) == {"a", "b", "c"}
    assert same(await replica.load(), await open_store().load())


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
