"""`Boundary`: the outermost middleware, for every request and answer."""

import asyncio
import re
from urllib.parse import unquote_to_bytes

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.headers import SAFE_HEADERS
from app.api.problems import ApiError, FieldError, invalid, response
from tree.worker import Background

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Boundary:
    """Rejects paths that routes cannot tell apart, answers HEAD like GET without a body, and adds
    `SAFE_HEADERS` unless the answer sets them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if (refused := _refused(scope)) is not None:
            await response(refused)(scope, receive, safely)
        elif scope["method"] == "HEAD":
            await self._head({**scope, "method": "GET"}, receive, safely)
        else:
            await self._app(scope, receive, safely)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head of the answer, and cancel the rest: a stream may be endless."""
        answered, over = asyncio.Event(), asyncio.Event()

        async def head(message: Message) -> None:
            if not answered.is_set() and message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                answered.set()
                over.set()

        async def answer() -> None:
            await self._app(scope, receive, head)

        background = Background("an answer without its body", quiet=Exception)  # raised below
        work = background.start(answer())
        work.add_done_callback(lambda _: over.set())
        try:
            await over.wait()
        finally:
            await background.aclose()
        if not answered.is_set():
            work.result()


def _refused(scope: Scope) -> ApiError | None:
    """The error for a path with line breaks, which routes do not match, or without valid UTF-8.

    Invalid bytes all decode to the same character: two user ids would become one.
    """
    path: str = scope["path"]
    if _CONTROL.search(path):
        message = "must not contain line breaks or other control characters"
    elif "\ufffd" in path and not _is_text(scope.get("raw_path", b"")):
        message = "must be UTF-8, percent-encoded"
    else:
        return None
    return invalid([FieldError(source="path", pointer="/", message=message)])


def _is_text(raw_path: bytes) -> bool:
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return False
    return True
