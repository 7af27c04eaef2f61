"""What a store URL that leads elsewhere, and a store without room, say of themselves."""

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.tree.store.support import SPACE, put
from tree.errors import StoreFull, StoreUnavailable
from tree.redis.connection import connect
from tree.redis.embedded_server import valkey_binary
from tree.redis.server_check import check_server
from tree.store.redis_store import RedisTreeStore

SECRET = "se-cret"
HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
OTHER_SERVER = "no Redis or Valkey server, or only one of the two speaks TLS"
CLOSED = r"check that the server runs"


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """The port of a server that answers everything with the same and hangs up."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("scheme", "answer", "said"),
    [
        ("redis", HTTP, OTHER_SERVER),
        ("redis+cluster", HTTP, OTHER_SERVER),
        ("rediss", HTTP, OTHER_SERVER),
        ("redis", b"SSH-2.0-OpenSSH_9.2\r\n", OTHER_SERVER),
        ("redis", b"\x15\x03\x03\x00\x02\x02\x46", OTHER_SERVER),  # how TLS refuses plain text
        ("redis", b"", CLOSED),
        ("redis", b"-WRONGPASS invalid username-password pair\r\n" * 9, "user or the password"),
        ("redis", b"-ERR DB index is out of range\r\n" * 9, "no database of this number"),
    ],
)
async def test_a_url_that_leads_elsewhere_is_one_sentence_without_the_password(
    scheme, answer, said
):
    async with (
        answering(answer) as port,
        connect(f"{scheme}://me:{SECRET}@127.0.0.1:{port}", timeout_s=2) as client,
    ):
        with pytest.raises(StoreUnavailable, match=said) as raised:
            await check_server(client)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}/x@host:6379",
        f"http://:{SECRET}@host",
        f"redis://host:{SECRET}",
        f"redis://host?{SECRET}=1",
        f"redis+cluster://:{SECRET}@host:x",
        "redis://[::1",
        "redis+cluster://",
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url):
    with pytest.raises(ValueError, match="write redis://user:password@host") as raised:
        connect(url)
    assert SECRET not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.fixture
def limited(tmp_path) -> Iterator[subprocess.Popen[bytes]]:
    """A Valkey that is told of a file that cannot grow, instead of being killed for it."""
    if sys.platform != "linux":
        pytest.skip("sets the limits of another process")
    options = {"unixsocket": tmp_path / "s", "port": 0, "dir": tmp_path, "appendonly": "yes"}
    options |= {"appendfsync": "no"}  # as the embedded store has it
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    command = [str(valkey_binary()), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, restore_signals=False) as process:
        yield process
        process.terminate()


async def test_a_full_disk_is_a_full_store_until_there_is_room(limited, tmp_path):
    async with connect(f"unix://{tmp_path}/s") as client:
        await _answers(tmp_path / "s")
        store = RedisTreeStore(client, "books", space=SPACE)
        await store.commit([put("a")], base=0)
        size = max(file.stat().st_size for file in (tmp_path / "appendonlydir").iterdir())
        resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        await store.commit([put("b")], base=1)  # told of before the file is written
        with pytest.raises(StoreFull, match="cannot write to its disk; make room"):
            await store.commit([put("c")], base=2)
        assert list((await store.load()).item_ids()) == ["a", "b"]
        forever = resource.RLIM_INFINITY
        resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (forever, forever))
        async with asyncio.timeout(10):
            while True:
                try:
                    await store.commit([put("c")], base=2)
                    break
                except StoreFull:
                    await asyncio.sleep(0.05)


async def _answers(path: Path) -> None:
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.01)
