"""The embedded server: its life, its folder and its end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from tree.errors import StoreUnavailable
from tree.redis.aof_truncation import torn_files
from tree.redis.connection import connect
from tree.redis.data_folder import running_url
from tree.redis.embedded_server import EmbeddedServer, Fsync
from tree.redis.server_check import check_server

OWNER = """
import asyncio, sys
from pathlib import Path
from tree.redis.embedded_server import EmbeddedServer, Fsync

server = asyncio.run(EmbeddedServer.start(Path(sys.argv[1])))
print(server.pid, flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[EmbeddedServer, Redis]]:
    server = await EmbeddedServer.start(folder)
    try:
        async with connect(server.connect_url) as client:
            yield server, client
    finally:
        await server.stop()


async def test_what_was_written_is_there_after_a_restart(tmp_path):
    async with running(tmp_path / "data") as (server, client):
        await client.set("key", b"value")
        assert running_url(tmp_path / "data") == server.connect_url
    assert running_url(tmp_path / "data") is None
    async with running(tmp_path / "data") as (_, client):
        assert await client.get("key") == b"value"


async def test_a_folder_has_one_owner(tmp_path):
    async with running(tmp_path) as (server, client):
        with pytest.raises(StoreUnavailable, match=f"process {os.getpid()}.*another folder"):
            await EmbeddedServer.start(tmp_path)
        assert await client.ping()
        assert running_url(tmp_path) == server.connect_url


async def test_a_folder_that_nobody_used_has_no_server(tmp_path):
    assert running_url(tmp_path) is None
    assert running_url(tmp_path / "missing") is None


@pytest.fixture
def owner(tmp_path):
    """Another process that runs a server over `tmp_path` and prints the server's process id."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=where) as process:
        yield process
        process.kill()


async def test_a_killed_owner_takes_its_server_along_and_blocks_nobody(tmp_path, owner):
    server_pid = int(owner.stdout.readline())
    url = running_url(tmp_path)
    assert url is not None
    async with connect(url) as client:
        await client.set("key", b"value")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 10
    while _alive(server_pid):
        assert time.monotonic() < deadline, "the server outlives its owner"
        await asyncio.sleep(0.01)
    async with running(tmp_path) as (_, client):
        assert await client.get("key") == b"value"


async def test_a_killed_server_starts_again(tmp_path):
    server = await EmbeddedServer.start(tmp_path, fsync="always")
    async with connect(server.connect_url) as client:
        await client.set("key", b"value")
    os.kill(server.pid, signal.SIGKILL)
    await server.stop()
    async with running(tmp_path) as (_, client):
        assert await client.get("key") == b"value"


async def test_a_server_that_is_killed_comes_back_on_its_socket(tmp_path, caplog):
    async with running(tmp_path) as (server, client):
        for number in range(3):
            await client.set(f"key {number}", b"value")
            before = server.pid
            os.kill(before, signal.SIGKILL)
            await until_answered(client)
            assert server.pid != before
        assert await client.dbsize() == 3
        assert running_url(tmp_path) == server.connect_url
    assert not _alive(server.pid)
    assert "was ended by SIGKILL; it is started again" in caplog.text


async def test_a_server_that_does_not_stay_up_is_given_up(tmp_path):
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell() -> None:
        loop.call_soon_threadsafe(told.set)

    server = await EmbeddedServer.start(tmp_path, lost=tell, pauses_s=(0.0, 0.01))
    async with connect(server.connect_url) as client:
        for _ in range(3):
            assert server.lost is None
            await until_answered(client)
            os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await told.wait()
    assert "does not stay up" in str(server.lost)
    await server.stop()
    async with running(tmp_path):  # the folder is free again
        pass


async def test_a_server_whose_files_are_spoilt_is_given_up_at_once(tmp_path):
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell() -> None:
        loop.call_soon_threadsafe(told.set)

    server = await EmbeddedServer.start(tmp_path, lost=tell)
    async with connect(server.connect_url) as client:
        await client.set("key", b"value")
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(log.read_bytes().replace(b"*3", b"#3"))
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await told.wait()
    assert "Bad file format" in str(server.lost)
    await server.stop()


async def test_a_copied_folder_leads_nowhere_and_spoils_nothing(tmp_path):
    """Also where both sockets lie in folders of their own."""
    for name in ("short", "deep" * 30):
        folder, copy = tmp_path / name / "data", tmp_path / name / "copy"
        async with running(folder) as (server, client):
            await client.set("key", b"value")
            await asyncio.to_thread(subprocess.run, ["cp", "-a", folder, copy], check=True)
            assert running_url(copy) is None
            async with running(copy) as (second, own):
                assert running_url(copy) == second.connect_url != server.connect_url
                await own.set("key", b"of the copy")
                assert await client.get("key") == b"value"
            async with connect(server.connect_url) as fresh:  # its socket is still there
                assert await fresh.get("key") == b"value"
            assert running_url(folder) == server.connect_url
            assert running_url(copy) is None


async def test_a_folder_that_was_moved_is_not_taken_for_the_one_in_its_old_place(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    async with running(old):
        pass
    old.rename(new)
    async with running(old) as (_, client):
        assert running_url(new) is None
        async with running(new):
            pass
        await client.ping()
        async with connect(running_url(old) or "") as fresh:
            assert await fresh.ping()


async def test_a_long_path_gets_its_socket_elsewhere(tmp_path):
    folder = tmp_path / ("deep" * 30) / "with space, ünïcode % and #"
    async with running(folder) as (server, client):
        assert await client.ping()
        assert running_url(folder) == server.connect_url
        path = Path(server.connect_url.removeprefix("unix://"))
        assert path.exists()
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


async def test_a_length_that_swallows_the_rest_of_the_file_is_told_with_what_it_costs(
    tmp_path, caplog
):
    async with running(tmp_path) as (_, client):
        for number in range(10):
            async with client.pipeline(transaction=True) as pipeline:
                pipeline.set(f"a{number}", b"value")
                pipeline.set(f"b{number}", b"value")
                await pipeline.execute()
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"$2\r\na4", b"$90000\r\na4"))
    async with running(tmp_path) as (_, client):
        assert await client.dbsize() == 8
    assert "with 6 whole transactions, are left out and kept in" in caplog.text
    (torn,) = torn_files(tmp_path)
    assert torn.read_bytes().endswith(whole[-100:])
    assert list(tmp_path.glob("*.copy")) == []


async def test_the_file_reaches_the_disk_as_often_as_asked(tmp_path):
    kinds: tuple[tuple[Fsync, str], ...] = (("everysec", "no"), ("always", "always"))
    for fsync, by_itself in kinds:
        server = await EmbeddedServer.start(tmp_path, fsync=fsync)
        async with connect(server.connect_url) as client:
            assert await client.config_get("appendfsync") == {"appendfsync": by_itself}
            await client.set("key", b"value")
            written = time.monotonic()
            await _until(lambda server=server, at=written: server.flushed_at > at, "no flush")
        await server.stop()


async def _until(ready: Callable[..., bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def test_a_cut_file_loses_its_end_and_a_damaged_one_says_what_to_do(tmp_path, caplog):
    async with running(tmp_path) as (_, client):
        for number in range(100):
            await client.set(f"key {number}", b"value" * 20)
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    whole = log.read_bytes()
    os.truncate(log, log.stat().st_size - 7)
    with caplog.at_level("WARNING", "tree.redis.aof_truncation"):
        async with running(tmp_path) as (_, client):
            assert await client.dbsize() == 99
    (torn,) = torn_files(tmp_path)
    assert log.read_bytes() + torn.read_bytes() == whole[:-7]
    (said,) = caplog.messages
    assert f"its last {torn.stat().st_size} bytes, with 0 whole transactions" in said
    assert str(torn) in said

    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"*3", b"#3"))
    with pytest.raises(
        StoreUnavailable, match=r"(?s)appendonlydir away .*restore a backup.*Bad file format"
    ):
        await EmbeddedServer.start(tmp_path)
    assert running_url(tmp_path) is None
    log.write_bytes(whole)
    async with running(tmp_path) as (_, client):
        assert await client.dbsize() == 99


async def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match=r"file/data cannot be written .*choose another"):
        await EmbeddedServer.start(tmp_path / "file" / "data")


async def test_the_report_tells_what_is_persisted(tmp_path):
    async with running(tmp_path) as (_, client):
        report = await check_server(client)
        assert (report.maxmemory_policy, report.persistence, report.limit_bytes) == (
            "noeviction", "aof", 0,
        )  # fmt: skip
        assert report.used_bytes > 0
        await client.config_set("appendonly", "no")
        assert (await check_server(client)).persistence == "none"
        await client.config_set("save", "3600 1")
        assert (await check_server(client)).persistence == "rdb"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_is_refused(tmp_path, policy):
    async with running(tmp_path) as (_, client):
        await client.config_set("maxmemory-policy", policy)
        with pytest.raises(StoreUnavailable, match=rf"{policy}.*set maxmemory-policy to noevict"):
            await check_server(client)


async def test_a_server_that_is_not_there_is_reported(tmp_path):
    async with connect(f"unix://{tmp_path}/none.sock") as client:
        with pytest.raises(StoreUnavailable, match="check that the server runs"):
            await check_server(client)


async def until_answered(client: Redis) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            await client.ping()
        except ConnectionError:
            assert time.monotonic() < deadline, "the server does not come back"
            await asyncio.sleep(0.01)
        else:
            return


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
