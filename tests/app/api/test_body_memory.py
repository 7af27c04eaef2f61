"""How much of JSON bodies a process holds, and how long it waits for one."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import httpx2
import pytest

from app.api.body_memory import LARGEST, in_time
from app.api.problems import ApiError
from app.settings import Settings
from tests.app.api.support import assert_problem, served
from tests.tree.store.support import PATIENCE_S

BYTES = 131_072
PATH = "/v1/catalogs/default/recommend"
BODY = b'{"profile": "' + b" " * (BYTES - 15) + b'"}'
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("held"), max_body_bytes=BYTES)
    with served(settings) as url, httpx2.Client(base_url=url, timeout=60) as client:
        yield client


def test_bodies_that_miss_their_end_fill_no_more_than_there_is_room_for(client):
    place = urlsplit(str(client.base_url))
    with ExitStack() as stack:
        for _ in range(LARGEST + 20):  # 16 kB of each are not counted
            address = (str(place.hostname), int(place.port or 0))
            one = stack.enter_context(closing(socket.create_connection(address)))
            one.sendall(HEAD.encode() + f"Content-Length: {BYTES}\r\n\r\n".encode() + BODY[:-1])
        refused = until_status(client, 503)
        assert_problem(refused, 503, "too_many_bodies")
        assert int(refused.headers["retry-after"]) > 0
        assert client.post(PATH, json={"profile": "small"}).status_code == 200
    assert until_status(client, 422) is not None  # the profile is too long


def until_status(client: httpx2.Client, status: int) -> httpx2.Response:
    for _ in range(200):
        reply = client.post(PATH, content=BODY, headers=JSON)
        if reply.status_code == status:
            return reply
    raise AssertionError(f"no answer has the status {status}")


async def test_a_body_that_comes_too_slowly_is_given_up():
    began = asyncio.get_running_loop().time()
    with pytest.raises(ApiError) as refused:
        await received(trickle(b"x"))
    assert (refused.value.status, refused.value.code) == (408, "request_timeout")
    assert asyncio.get_running_loop().time() - began < 5


async def test_a_long_body_has_more_time():
    assert await received(trickle(b"x" * 65_536, 10)) == 10


async def received(pieces: AsyncIterator[bytes]) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return len([piece async for piece in in_time(pieces, first_s=0.3)])


async def trickle(piece: bytes, count: int = 10_000) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(0.1)
        yield piece
