"""Catalogues over three nodes: spread, moved under their writers, and a node that dies."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from secrets import token_hex

import pytest
from redis.exceptions import RedisClusterException

from app.storage.feedback import Event
from app.storage.keys import FeedbackKeys
from app.storage.redis_documents import RedisDocuments
from app.storage.redis_feedback import RedisFeedback
from tests.conftest import OpenRoom, Room
from tests.contracts.support import counts
from tests.servers.cluster import LoopbackCluster, start
from tree.edits import PutItem
from tree.errors import StaleVersion, StoreUnavailable
from tree.item import Item
from tree.node import ROOT, Space, TreeSettings
from tree.redis.connection import connect, translated
from tree.redis.server_check import check_server
from tree.store.keys import CatalogKeys, tag_of
from tree.store.redis_store import RedisTreeStore
from tree.vectors import DIMENSIONS

NAMES = ["poems", "plays", "books"]  # on the first, the second and the third node
SPACE = Space("lexical", "fitted", b"state" * 100)
SETTINGS = TreeSettings(leaf_capacity=50, fan_out=1_000)


@pytest.fixture
async def room(cluster: LoopbackCluster, open_room: OpenRoom) -> AsyncIterator[Room]:
    async with open_room(cluster.url) as room:
        yield room


def opened(room: Room, catalog: str) -> RedisTreeStore:
    return RedisTreeStore(room.client, catalog, space=SPACE, settings=SETTINGS, prefix=room.prefix)


def put(item_id: str) -> PutItem:
    record = Item(id=item_id, title="Title").record()
    return PutItem(item_id, ROOT, bytes(DIMENSIONS), record=record)


async def test_catalogues_are_on_different_nodes_and_go_without_a_trace(room, cluster):
    owners = [cluster.owner(CatalogKeys(name, room.prefix).head) for name in NAMES]
    assert owners == cluster.nodes
    for name in NAMES:
        store = opened(room, name)
        await store.stage([Item(id="a", title="A"), Item(id="b", title="B")])
        tree = await store.commit([put("a")], base=0)
        await store.replace(tree, base=1)
        await store.compact()
    for name in NAMES:
        other = opened(room, name)
        assert set((await other.load()).item_ids()) == {"a"}
        assert (await other.items(["a", "b"])).keys() == {"a", "b"}
        assert [ids async for ids in other.staged_ids()] == [["b"]]
    await opened(room, "plays").drop()
    left = [key async for key in room.client.scan_iter(f"{room.prefix}:*")]
    assert {tag_of(key.decode(), room.prefix) for key in left} == {*NAMES}
    tombstone = CatalogKeys("plays", room.prefix).head.encode()
    assert [key for key in left if b"{plays}" in key] == [tombstone]


async def test_documents_of_every_kind_have_a_node(room):
    documents = RedisDocuments(room.client, prefix=room.prefix)
    for kind in ("job", "trace", "profile", "reply", "mode"):
        assert await documents.put_new(kind, "1", b"data", 60)
        assert [entry async for entry in documents.list(kind)] == [("1", b"data")]
        assert await documents.delete(kind, "1")


async def test_a_slot_that_moves_under_its_writers_loses_nothing(room, cluster):
    """Two writers, on clients of their own, while the slot goes to every node in turn."""
    head = CatalogKeys("books", room.prefix).head
    await opened(room, "books").commit([put("first")], base=0)
    acknowledged = {"first"}
    done = asyncio.Event()

    async def write(writer: int) -> None:
        async with connect(cluster.url) as client:
            store = opened(Room(client, room.prefix), "books")
            number = 0
            while not done.is_set():
                with suppress(StaleVersion, StoreUnavailable):
                    item_id = f"{writer}/{number}"
                    tree = await store.load()
                    if item_id not in tree:  # a lost answer may have hidden that it is there
                        await store.commit([put(item_id)], base=tree.version)
                    acknowledged.add(item_id)
                    number += 1

    async def written(more: int) -> None:
        goal = len(acknowledged) + more
        async with asyncio.timeout(20):
            while len(acknowledged) < goal:
                await asyncio.sleep(0.01)

    async def move() -> None:
        home = cluster.owner(head)
        others = [node for node in cluster.nodes if node is not home]
        for target in (*others, home):
            await written(5)
            with cluster.moving(head, target):
                await asyncio.sleep(0)
            assert cluster.owner(head) is target
        await written(5)
        done.set()

    async with asyncio.TaskGroup() as tasks:
        for writer in range(2):
            tasks.create_task(write(writer))
        tasks.create_task(move())
    tree = await opened(room, "books").load()
    assert set(tree.item_ids()) == acknowledged
    assert tree.version == len(acknowledged)


async def test_while_a_slot_moves_what_arrived_is_read_and_the_rest_is_asked_to_wait(room, cluster):
    store, head = opened(room, "books"), CatalogKeys("books", room.prefix).head
    await store.commit([put("a")], base=0)
    home = cluster.owner(head)
    target = next(node for node in cluster.nodes if node is not home)
    async with connect(cluster.url) as busy:
        many = asyncio.gather(*(busy.get(head + str(number)) for number in range(20)))
        assert set(await many) == {None}  # several connections to each node: ASKING needs its own
        with cluster.moving(head, target):
            assert await busy.get(head + "missing") is None
            set_all = asyncio.gather(*(busy.set(head + "new", b"1", ex=60) for _ in range(20)))
            assert set(await set_all) == {True}
            with pytest.raises(StoreUnavailable, match=r"moving these keys.*try again"):
                await store.commit([put("b")], base=1)
        assert await busy.get(head + "new") == b"1"
        await busy.unlink(head + "new")
    assert (await store.commit([put("b")], base=1)).version == 2
    with cluster.moving(head, home):
        pass
    assert set((await opened(room, "books").load()).item_ids()) == {"a", "b"}


async def test_while_a_slot_moves_events_wait_and_change_nothing_until_they_count(room, cluster):
    keys = FeedbackKeys("books", room.prefix)
    feedback = RedisFeedback(room.client, "books", prefix=room.prefix)
    await feedback.record([Event("1", "u", "x", 1), Event("2", "u", "y", 2)])
    yesterday = keys.event_ids(int(time.time() // 86_400) - 1)
    await room.client.sadd(yesterday, "0")
    await room.client.expire(yesterday, 600)
    batch = [Event("3", "u", "z", 3), Event("4", "new", "x", 4), Event("5", "new", "z", 5)]
    home = cluster.owner(keys.counts)
    target = next(node for node in cluster.nodes if node is not home)
    some = [
        key for key in home.client.keys(f"{room.prefix}:*") if b":count" in key or b":ev" in key
    ]
    assert len(some) == 3
    with cluster.moving(keys.counts, target):
        with pytest.raises(StoreUnavailable):
            await feedback.record(batch)
        home.client.execute_command(
            "MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *some
        )
        with pytest.raises(StoreUnavailable):
            await feedback.record(batch)
    user = await feedback.user("u")
    assert user is not None
    assert [visit.item_id for visit in user.history] == ["x", "y"]
    assert await feedback.user("new") is None
    assert await feedback.record(batch) == ["counted"] * 3
    assert await counts(feedback) == {"x": 2, "y": 1, "z": 2}
    with cluster.moving(keys.counts, home):
        pass
    assert await feedback.record(batch) == ["duplicate"] * 3


async def test_a_dead_node_takes_its_catalogues_along_and_brings_them_back(room, cluster):
    stores = {name: opened(room, name) for name in NAMES}
    for store in stores.values():
        await store.commit([put("a")], base=0)
    victim = cluster.owner(CatalogKeys("plays", room.prefix).head)
    with cluster.without(victim):
        asked = asyncio.gather(*(stores["plays"].load() for _ in range(5)), return_exceptions=True)
        for base in range(1, 50):  # meanwhile
            for name in ("poems", "books"):
                await stores[name].commit([put(str(base))], base=base)
        assert all(isinstance(answer, StoreUnavailable) for answer in await asked)
        async with connect(cluster.url) as client:  # a client that never saw the node
            assert len(await opened(Room(client, room.prefix), "books").load()) == 50
    assert len(await stores["plays"].load()) == 1
    assert (await stores["plays"].commit([put("b")], base=1)).version == 2


async def test_a_node_that_lost_its_scripts_gets_them_while_another_is_dead(room, cluster):
    store = opened(room, "poems")
    await store.commit([put("a")], base=0)
    cluster.owner(CatalogKeys("poems", room.prefix).head).client.script_flush()
    with cluster.without(cluster.nodes[2]):
        assert (await store.commit([put("b")], base=1)).version == 2


async def test_pipelines_find_their_node(room):
    async with room.client.pipeline(transaction=True) as pipeline:
        for name in NAMES:
            key = CatalogKeys(name, room.prefix).item("a")
            pipeline.set(key, name, ex=60)
            pipeline.get(key)
            assert await pipeline.execute() == [True, name.encode()]
        assert await pipeline.execute() == []


async def test_the_report_is_of_every_node(room, cluster):
    report = await check_server(room.client)
    ports = {int(node.node.rpartition(":")[2]) for node in report.nodes}
    assert ports == {node.port for node in cluster.nodes}
    assert report.used_bytes == sum(node.used_bytes for node in report.nodes)
    one = cluster.nodes[1].client
    try:
        one.config_set("appendonly", "no")
        report = await check_server(room.client)
        assert report.persistence == "none"
        assert [node.persistence for node in report.nodes].count("aof") == 2
        one.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreUnavailable, match=rf"node \S+:{cluster.nodes[1].port} may evict"):
            await check_server(room.client)
    finally:
        one.config_set("maxmemory-policy", "noeviction")
        one.config_set("appendonly", "yes")


async def test_a_url_of_the_wrong_kind_is_told(cluster, embedded_url, open_room):
    async with connect(f"redis://127.0.0.1:{cluster.nodes[0].port}") as client:
        with pytest.raises(StoreUnavailable, match=r"write redis\+cluster://"):
            await check_server(client)
    for bad in ("unix+cluster:///path", "redis+cluster://", "redis+cluster://a,:1"):
        with pytest.raises(ValueError, match=r"redis\+cluster://host:port,host:port"):
            connect(bad)
    with pytest.raises(ValueError, match="ort"):
        connect("redis+cluster://host:port")
    nobody = f"redis+cluster://u:{token_hex(4)}@127.0.0.1:1,[::1]:1/0?health_check_interval=30"
    async with connect(nobody) as client:
        with pytest.raises(StoreUnavailable, match="check that the server runs"):
            await check_server(client)


async def test_a_seed_that_is_dead_is_passed_over(cluster):
    async with connect(f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[2].port}") as client:
        assert await client.get("nothing") is None
        with pytest.raises(RedisClusterException, match="ask it of `primaries`"):
            await client.info()
        with pytest.raises(StoreUnavailable):
            async with translated():
                await client.execute_command("ECHO")


async def test_a_replica_takes_the_place_of_its_primary(tmp_path):
    cluster = await asyncio.to_thread(start, tmp_path, dead_ms=600)
    try:
        primary = cluster.nodes[0]
        replica = await asyncio.to_thread(cluster.add_replica, primary, tmp_path)
        async with connect(cluster.url) as client:
            store = opened(Room(client, "test"), "poems")
            assert cluster.owner(CatalogKeys("poems", "test").head) is primary
            await store.commit([put("a")], base=0)
            async with asyncio.timeout(20):
                while replica.client.dbsize() < primary.client.dbsize():
                    await asyncio.sleep(0.01)
            primary.kill()
            async with asyncio.timeout(20):
                while True:
                    with suppress(StoreUnavailable):
                        await store.commit([put("b")], base=1)
                        break
            assert set((await store.load()).item_ids()) == {"a", "b"}
    finally:
        await asyncio.to_thread(cluster.stop)
