"""`HttpConnection`: uvicorn's HTTP/1.1, with limits on sizes and times."""

import asyncio
import re
from collections.abc import Mapping
from http import HTTPStatus
from random import random
from typing import Any, ClassVar

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from app.api.headers import SAFE_HEADERS
from app.api.problems import PROBLEM_JSON, Problem

MAX_URL_BYTES = 16_384
MAX_HEADER_BYTES = 65_536  # request line and all headers; also the limit for a body's framing
MAX_HEADERS = 100
MAX_WAITING = 16  # pipelined requests that wait for their answers
_SPARE_CONNECTIONS = 100  # beyond the limit: they are answered with 503
_CLOSING_S = 5.0  # for the client to read an error
_SPREAD = 0.1  # deadlines of clients are up to this share later, by chance

_LENGTH = re.compile(rb"[0-9]{1,19}")
_AMBIGUOUS = frozenset({b"host", b"transfer-encoding", b"content-length"})


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol with limits: it has none for headers, nor for the time of a request.

    Its h11 variant limits headers, but takes three times the CPU time. A request that exceeds a
    limit is answered with a problem, unless its answer has begun, and the connection is closed.
    `limit_concurrency` of the configuration is the limit of connections per process.
    """

    header_s: ClassVar[float] = 10.0  # for the request line and all headers to arrive
    stall_s: ClassVar[float] = 30.0  # without a byte of a body
    unread_s: ClassVar[float] = 120.0  # without the client reading any of an answer

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._most_connections, self.limit_concurrency = self.limit_concurrency, None
        self._head_bytes = 0  # bytes of complete headers
        self._framing_bytes = 0  # bytes of the message, without its body
        self._body_bytes = 0
        self._in_head = True
        self._refusal: Problem | None = None
        self._deadline: float | None = None
        # For an answer that is not read: the deadline to read some of it, and the bytes left.
        self._unread: tuple[float, int] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._too_many(_SPARE_CONNECTIONS):
            transport.abort()
            return
        self._expect_within(self.header_s)
        self._check_deadlines()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._hang_up()
        if self._watch is not None:
            self._watch.cancel()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head and not self._framing_bytes:
            self._expect_within(self.header_s)
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > MAX_HEADER_BYTES + self._body_bytes:
            self._refuse(_too_large("the headers, or the framing of the body,"))

    # -- callbacks of the parser; an exception leads to `send_400_response`

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_WAITING:
            self._stop(_malformed(f"more than {MAX_WAITING} requests wait for their answers"))
        self._head_bytes = self._body_bytes = 0
        if not self._framing_bytes:  # it begins in the same data as the message before
            self._framing_bytes = 1
            self._expect_within(self.header_s)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            detail = f"the address is longer than {MAX_URL_BYTES:,} bytes"
            self._stop(_problem(HTTPStatus.REQUEST_URI_TOO_LONG, "address_too_long", detail))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEADER_BYTES:
            self._stop(_too_large("the headers"))
        if not self._in_head:
            return  # trailers after a body are ignored
        if len(self.headers) == MAX_HEADERS:
            self._stop(_too_large(f"more than {MAX_HEADERS} headers:", ""))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        version, upgrade = self.parser.get_http_version(), self.parser.should_upgrade()
        if ambiguity := _ambiguity(version, self.headers, upgrade):
            self._stop(_malformed(ambiguity))
        if self._too_many(0):
            detail = "too many connections are open: try again"
            self._stop(_problem(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", detail))
        super().on_headers_complete()
        self._expect_within(self.stall_s)

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        self._body_bytes += len(body)
        if not self.cycle.response_complete:  # else the rest is discarded, within the deadline
            self._expect_within(self.stall_s)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._framing_bytes = 0
        answered = self.cycle.response_complete
        self._expect_within(self.header_s if answered else None)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or _malformed(msg))

    def _unsupported_upgrade_warning(self) -> None:
        """Answer the request as if it had not asked for another protocol."""
        self.cycle.keep_alive = False  # the parser accepts no more data

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle  # uvicorn's `cycle` is the newest request
        super()._start_asgi_task(cycle, app)

    def _hang_up(self) -> None:
        """Tell running answers that the client is gone, so that they stop."""
        for cycle in (self._answering, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()

    # -- time

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = None

    def _expect_within(self, seconds: float | None) -> None:
        """The client has this time for its next step; None while it waits for us."""
        self._deadline = None if seconds is None else self.loop.time() + seconds

    def _await_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread = (self.loop.time() + self.unread_s, left)

    def _check_deadlines(self) -> None:
        """Check the deadlines; one timer per connection is cheaper than one per step."""
        now = self.loop.time()
        if self._unread is not None and now >= self._unread[0]:
            if self.transport.get_write_buffer_size() >= self._unread[1]:
                self.transport.abort()
                return
            self._await_reading()
        if self._deadline is not None and now >= self._deadline:
            if not self.flow.read_paused:  # else the client waits for us
                self._expired()
                return
            self._expect_within(self.stall_s)
        rest = self.header_s if self._deadline is None else self._deadline - now
        # Later by chance: closing 500 connections that were opened together takes 200 ms.
        later = 1 + _SPREAD * random()
        self._watch = self.loop.call_later(later * min(rest, self.header_s), self._check_deadlines)

    def _expired(self) -> None:
        if not self._framing_bytes:
            self.transport.close()
            return
        what = "headers" if self._in_head else "body"
        detail = f"the {what} did not arrive in time"
        self._refuse(_problem(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", detail))

    # -- refusals

    def _too_many(self, spare: int) -> bool:
        most = self._most_connections
        return most is not None and len(self.connections) > most + spare

    def _stop(self, refusal: Problem) -> None:
        """Abort the parser; it replaces the exception by its own."""
        self._refusal = refusal
        raise ValueError(refusal.detail)

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        before = self._answering
        answered = before is None or before.response_complete
        if answered or (before is self.cycle and not self._in_head and not before.response_started):
            self.transport.write(_written(problem, self.server_state.default_headers))
        self._hang_up()
        self.transport.close()
        self.loop.call_later(_CLOSING_S, self.transport.abort)


def _ambiguity(version: str, headers: list[tuple[bytes, bytes]], upgrade: bool) -> str | None:
    """Why two servers could read a request differently (RFC 9112), or None.

    The parser rejects other malformed requests.
    """
    if version not in ("1.0", "1.1"):
        return f"HTTP/{version} is not supported"
    hosts = 0
    for name, value in headers:
        if name not in _AMBIGUOUS:
            continue
        match name:
            case b"host":
                hosts += 1
            case b"transfer-encoding" if version == "1.0" or value.lower() != b"chunked":
                return "the only Transfer-Encoding is chunked, of HTTP/1.1"
            case b"content-length" if not _LENGTH.fullmatch(value):
                return "the Content-Length is not a number of at most 19 digits"
            case b"content-length" | b"transfer-encoding" if upgrade:
                return "only a request without a body may ask for another protocol"
    if hosts > 1 or (not hosts and version == "1.1"):
        return "there must be one Host"
    return None


def _malformed(detail: str) -> Problem:
    return _problem(HTTPStatus.BAD_REQUEST, "malformed_request", detail)


def _too_large(what: str, most: str = f" take more than {MAX_HEADER_BYTES:,} bytes") -> Problem:
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return _problem(status, "headers_too_large", f"{what}{most}: send less")


def _problem(status: HTTPStatus, code: str, detail: str) -> Problem:
    return Problem(title=status.phrase, status=status, code=code, detail=detail)


def _written(problem: Problem, headers: list[tuple[bytes, bytes]]) -> bytes:
    body = problem.model_dump_json(exclude_none=True).encode()
    own: Mapping[str, str] = {
        "Content-Type": PROBLEM_JSON,
        "Content-Length": str(len(body)),
        "HttpConnection": "close",
        **({"Retry-After": "1"} if problem.status == HTTPStatus.SERVICE_UNAVAILABLE else {}),
        **SAFE_HEADERS,
    }
    lines = [name + b": " + value for name, value in headers]
    lines += [f"{name}: {value}".encode() for name, value in own.items()]
    return b"".join([STATUS_LINE[problem.status], b"\r\n".join(lines), b"\r\n\r\n", body])
