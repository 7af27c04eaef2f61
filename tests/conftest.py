"""Real servers for every test that touches a store, and a check that no key is left behind."""

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import settings
from redis.asyncio import Redis
from redis.crc import key_slot

from app.storage.keys import classify
from tests.servers import llama
from tests.servers.cluster import LoopbackCluster
from tests.servers.cluster import start as start_cluster
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.redis.keys import Lifetime
from tree.store.keys import CatalogKeys

if TYPE_CHECKING:  # they import openai, which takes 0.8 s
    from tests.servers.batches import BatchServer
    from tests.servers.decisions import DecisionsServer
    from tests.servers.hostile import HostileServer

_NO_TTL = -1

os.environ["COLUMNS"] = "300"  # of what commands print: no test looks at where lines break

settings.register_profile("any duration", settings(), deadline=None)
settings.load_profile("any duration")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--today",
        action="store_true",
        help="run a part of the long test whose day of the week it is, beside the others",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: a third of the time, a test waits for something."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Without garbage collection, which took a twelfth of the time and found nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)  # after the markers have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `-m long`, the long tests are left out, all or all but a part of today's.

    A part runs once in as many weeks as its test has parts. The longest files come first: each is
    one worker's, and the others would wait for it at the end.
    """
    items.sort(key=lambda item: "faults" not in item.path.parts)
    long = [item for item in items if item.get_closest_marker("long")]
    if not long or "long" in config.option.markexpr:
        return
    now = datetime.now(UTC)
    todays = [item for item in long if _day(item) == f"{now:%A}"] if config.option.today else []
    part = todays[now.timetuple().tm_yday // 7 % len(todays)] if todays else None
    left = [item for item in long if item is not part]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def _day(item: pytest.Item) -> str:
    marker = item.get_closest_marker("long")
    assert marker is not None
    (day,) = marker.args
    return str(day)


@dataclass(frozen=True)
class Room:
    """A connection, and a key prefix that nobody else uses."""

    client: Redis
    prefix: str


OpenRoom: TypeAlias = Callable[[str], AbstractAsyncContextManager[Room]]


@pytest.fixture(scope="session")
def embedded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded server, as the service runs it."""
    server = asyncio.run(EmbeddedServer.start(tmp_path_factory.mktemp("store")))
    yield server.connect_url
    asyncio.run(server.stop())


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that a test may spoil."""
    server = await EmbeddedServer.start(tmp_path)
    yield server
    with suppress(ProcessLookupError):
        await server.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackCluster]:
    """A Redis Cluster of three nodes; a test that kills one brings it back."""
    running = start_cluster(tmp_path_factory.mktemp("cluster"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def tcp_url(request: pytest.FixtureRequest) -> str:
    """A store over TCP: UNILLMREC_TEST_REDIS_URL, or the cluster.

    The cluster refuses every command whose keys do not share a slot.
    """
    given = os.environ.get("UNILLMREC_TEST_REDIS_URL")
    return given or str(request.getfixturevalue("cluster").url)


@pytest.fixture(params=["embedded_url", "tcp_url"])
def server_url(request: pytest.FixtureRequest) -> str:
    """Each kind of server in turn."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def open_room() -> OpenRoom:
    """Rooms on any server. When one is left, every key in it must be declared and may stay."""
    return _open_room


@pytest.fixture
async def room(server_url: str) -> AsyncIterator[Room]:
    """A room on each kind of server in turn."""
    async with _open_room(server_url) as room:
        yield room


@asynccontextmanager
async def _open_room(url: str) -> AsyncIterator[Room]:
    async with connect(url) as client:
        room = Room(client, f"test-{token_hex(6)}")
        yield room
        keys = [key async for key in client.scan_iter(match=f"{room.prefix}:*", count=1_000)]
        leaked = [key for key in map(bytes.decode, keys) if not await _may_stay(room, key)]
        for some in _of_one_slot(keys):
            await client.unlink(*some)
    assert leaked == []


def _of_one_slot(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The keys, as many at once as one command may touch on a cluster."""
    for _, same in groupby(sorted(keys, key=key_slot), key_slot):
        while some := list(islice(same, 1_000)):
            yield some


async def _may_stay(room: Room, key: str) -> bool:
    tag, lifetime = classify(key, room.prefix)
    if lifetime is Lifetime.PERMANENT or await room.client.ttl(key) != _NO_TTL:
        return True
    if lifetime is Lifetime.EXPIRING:
        return False
    keys = CatalogKeys(tag, room.prefix)
    versions = await room.client.hget(keys.head, "versions")
    assert isinstance(versions, bytes), f"{key} stays without a catalogue"
    kept = json.loads(versions)
    names = {keys.snapshot(one["generation"]) for one in kept}
    return key in names | {keys.space(one["space"]) for one in kept}


@pytest.fixture(scope="session")
def llama_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of llama.cpp with a model of random weights."""
    with llama.serve(tmp_path_factory.mktemp("llama")) as url:
        yield url


@pytest.fixture(scope="session")
def llama_embeddings_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same, which answers with embeddings."""
    with llama.serve(tmp_path_factory.mktemp("llama-embeddings"), "embeddings") as url:
        yield url


@pytest.fixture
def decisions_server(_decisions_server: "DecisionsServer") -> Iterator["DecisionsServer"]:
    """A server for /v1/decisions, as new for each test."""
    yield _decisions_server
    _decisions_server.reset()


@pytest.fixture
def hostile_server(_hostile_server: "HostileServer") -> Iterator["HostileServer"]:
    """A server of chats and embeddings that fails as it is told to, as new for each test."""
    yield _hostile_server
    _hostile_server.reset()


@pytest.fixture
def batch_server(_batch_server: "BatchServer") -> "BatchServer":
    """A server with the batch API, as new for each test."""
    _batch_server.reset()
    return _batch_server


@pytest.fixture(scope="session")
def _batch_server() -> Iterator["BatchServer"]:
    from tests.servers.batches import BatchServer

    server = BatchServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _decisions_server() -> Iterator["DecisionsServer"]:
    from tests.servers.decisions import DecisionsServer

    server = DecisionsServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _hostile_server() -> Iterator["HostileServer"]:
    from tests.servers.hostile import HostileServer

    server = HostileServer()
    yield server
    server.stop()
