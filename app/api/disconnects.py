"""Requests that end before they are answered: the client hangs up, or the service stops."""

import asyncio
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import ApiError, response
from tree.worker import Background, Work

_T = TypeVar("_T")


class CutShort(Exception):
    """An answer fails after its status is sent: the connection breaks off without its end."""


_ENDING = ApiError(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "ending",
    "the service stops: send this again in a moment",
    headers={"Retry-After": "5", "Connection": "close"},
)


async def unless_gone(request: Request, work: Work[_T]) -> _T:
    """What `work` returns. The body of the request must have been read.

    Cancels `work` and raises ClientDisconnect when the client hangs up.
    """
    background = Background("an answer", quiet=Exception)  # raised here
    try:
        answer, gone = background.start(work), background.start(_gone(request))
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        await background.aclose()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


class EndingNotice:
    """Middleware that answers 503 when the service stops before a request is answered.

    An answer that has begun breaks off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:  # only the server cancels, at the end of its grace period
            if scope["type"] != "http":
                raise
            if not begun:
                await response(_ENDING)(scope, receive, send)
