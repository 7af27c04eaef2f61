"""What a connection may send, and how long it may take: over real sockets."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from app.http_connection import MAX_WAITING, HttpConnection
from app.settings import Settings
from tests.app.api.support import served

HOST = b"Host: localhost\r\n"
GET = b"GET /livez HTTP/1.1\r\n" + HOST
POST = b"POST /v1/catalogs/default/recommend HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
_MOST = 20
_WAIT_S = 20


class Quick(HttpConnection):
    """The same with less patience."""

    header_s: ClassVar[float] = 0.6
    stall_s: ClassVar[float] = 0.6
    unread_s: ClassVar[float] = 0.6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("quick"), max_connections=_MOST)
    with served(settings, Quick) as url:
        yield address(url)


def address(url: str) -> tuple[str, int]:
    found = urlsplit(url)
    return str(found.hostname), int(found.port or 0)


@contextmanager
def connected(place: tuple[str, int]) -> Iterator[socket.socket]:
    with closing(socket.create_connection(place, timeout=_WAIT_S)) as one:
        yield one


def answered(place: tuple[str, int], *pieces: bytes) -> tuple[list[int], bytes]:
    """The statuses of all answers until the other side closes, and what they say."""
    with connected(place) as one:
        for piece in pieces:
            try:
                one.sendall(piece)
            except ConnectionError:
                break  # it has answered, and reads no more
        return statuses(one)


def statuses(one: socket.socket) -> tuple[list[int], bytes]:
    received = b""
    try:
        while data := one.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)], received


def problem(received: bytes) -> dict:
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"X-Content-Type-Options: nosniff" in head
    return json.loads(body)


# -- what two servers could read in two ways

MALFORMED = {
    "zeros": POST + b"Content-Length: " + b"0" * 5_000 + b"2\r\n\r\n{}",
    "digits": POST + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two unlike lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a sign": POST + b"Content-Length: +2\r\n\r\n{}",
    "a blank in a name": POST + b"Content-Length : 2\r\n\r\n{}",
    "length and chunks": POST + b"Content-Length: 2\r\n" + CHUNKED[len(POST) :] + b"0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunks in 1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n{}",
    "a hexadecimal chunk": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a huge chunk": CHUNKED + b"f" * 17 + b"\r\n{}",
    "a chunk with too much": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "chunks by line feeds": CHUNKED + b"2\n{}\n0\n\n",
    "line feeds": GET.replace(b"\r\n", b"\n") + b"\n",
    "a folded header": GET + b"X-A: a\r\n b\r\n\r\n",
    "a null byte": GET + b"X-A: a\0b\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two hosts": GET + HOST + b"\r\n",
    "another version": GET.replace(b"1.1", b"2.0") + b"\r\n",
    "a tunnel": b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "another protocol with a body": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_ambiguous_is_a_400_and_ends_the_connection(place, kind):
    found, received = answered(place, MALFORMED[kind], GET + b"\r\n")
    assert found == [400]
    assert problem(received)["code"] == "malformed_request"


def test_headers_after_a_body_are_read_by_nobody(place):
    trailers = b"2\r\n{}\r\n0\r\nContent-Encoding: br\r\nHost: elsewhere\r\n\r\n"
    last = GET + b"Connection: close\r\n\r\n"
    assert answered(place, CHUNKED + trailers, last)[0] == [200, 200]


def test_requests_may_follow_one_another_and_a_wrong_one_spoils_no_answer(place):
    found, _ = answered(place, GET + b"\r\n" + GET + b"Connection: close\r\n\r\n")
    assert found == [200, 200]
    found, _ = answered(place, GET + b"\r\n" + b"nonsense\r\n\r\n")
    assert found in ([], [200], [200, 400])
    assert answered(place, (GET + b"\r\n") * (3 * MAX_WAITING))[0].count(200) <= MAX_WAITING + 1


# -- how much

TOO_LARGE = {
    "one header": (431, GET + b"X-A: ", b"a" * 1_000_000),
    "a name": (431, GET, b"a" * 1_000_000),
    "headers at once": (431, GET + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n", b""),
    "many headers": (431, GET + b"X-A: a\r\n" * 200 + b"\r\n", b""),
    "an address": (414, b"GET /livez?" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", b""),
    "an endless address": (414, b"GET /livez?", b"a" * 1_000_000),
    "line breaks": (431, b"", b"\r\n" * 500_000),
    "a trailer": (431, CHUNKED + b"0\r\nX-A: ", b"a" * 1_000_000),
    "an extension of a chunk": (431, CHUNKED + b"2;", b"a" * 1_000_000),
    "tiny chunks": (431, CHUNKED, b"1\r\n \r\n" * 100_000),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_headers_and_framing_have_a_limit(place, kind):
    status, start, rest = TOO_LARGE[kind]
    found, received = answered(place, start, *([rest] * 20 if rest else []))
    assert found == [status]
    assert problem(received)["status"] == status


def test_the_service_as_it_is_started_has_these_limits(process_url):
    status, start, rest = TOO_LARGE["one header"]
    assert answered(address(process_url), start, *[rest] * 60)[0] == [status]
    assert answered(address(process_url), MALFORMED["zeros"])[0] == [400]


def test_more_connections_than_may_be_are_told_so(place):
    with ThreadPoolExecutor(1) as thread:
        held = [socket.create_connection(place, timeout=_WAIT_S) for _ in range(_MOST)]
        try:
            found, received = answered(place, GET + b"\r\n")
            assert (found, problem(received)["code"]) == ([503], "too_many_connections")
            assert b"Retry-After: 1" in received
        finally:
            list(thread.map(socket.socket.close, held))
    deadline = time.monotonic() + _WAIT_S
    while answered(place, GET + b"Connection: close\r\n\r\n")[0] != [200]:
        assert time.monotonic() < deadline


# -- how long

SLOW = {
    "nothing": (b"", []),
    "half a line": (b"GET /li", [408]),
    "half the headers": (GET, [408]),
    "half a body": (POST + b"Content-Length: 10\r\n\r\n{", [408]),
    "half a chunk": (CHUNKED + b"5\r\n{", [408]),
    "after an answer": (GET + b"\r\n" + GET, [200, 408]),
}


@pytest.mark.parametrize("kind", SLOW)
def test_what_does_not_come_in_time_ends_the_connection(place, kind):
    sent, expected = SLOW[kind]
    began = time.monotonic()
    found, received = answered(place, sent)
    assert found == expected
    assert time.monotonic() - began < 10
    if expected and expected[-1] == 408:
        assert b'"request_timeout"' in received


def test_headers_that_come_byte_by_byte_are_not_in_time(place):
    with connected(place) as one:
        one.sendall(GET)
        assert ended(one, b"a")


def test_a_body_that_nobody_reads_is_not_waited_for(place):
    with connected(place) as one:
        one.sendall(POST.replace(b"/default/", b"/unknown/") + b"Content-Length: 1000000\r\n\r\n")
        assert ended(one, b" ")


def test_a_body_that_comes_slowly_but_comes_is_taken(place):
    with connected(place) as one:
        one.sendall(POST + b"Connection: close\r\nContent-Length: 12\r\n\r\n")
        for byte in b'{"limit": 1}':
            time.sleep(0.1)  # twice as long in all as nothing may come
            one.sendall(bytes([byte]))
        assert statuses(one)[0] == [200]


def test_whoever_does_not_read_an_answer_is_let_go(place):
    with connected(place) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        assert ended(one, GET.replace(b"/livez", b"/openapi.json") + b"\r\n")


def test_whoever_reads_an_answer_slowly_gets_all_of_it(place):
    with connected(place) as one:
        page = GET.replace(b"/livez", b"/docs/swagger-ui-bundle.js")
        one.sendall((page + b"\r\n") * 8 + page + b"Connection: close\r\n\r\n")
        began, received = time.monotonic(), 0
        while data := one.recv(65_536):
            received += len(data)
            if time.monotonic() < began + 1.5:  # longer than nothing may be read
                time.sleep(0.02)
    assert received > 9 * 1_600_000


def ended(one: socket.socket, piece: bytes) -> bool:
    """Whether the other side ends a connection while it is sent piece by piece."""
    deadline = time.monotonic() + _WAIT_S
    one.settimeout(0.5)
    while time.monotonic() < deadline:
        try:
            one.sendall(piece)
        except TimeoutError:
            continue
        except ConnectionError:
            return True
        time.sleep(0.05)
    return False
