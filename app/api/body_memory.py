"""`BodyMemory`: limits the memory for JSON bodies of a process, and the time that one may take.

Bodies are in memory from their first byte until they are parsed. Without these limits, 200 clients
that never sent the last byte of 4 MB kept 900 MB in use by sending one byte every 20 s.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from app.api.problems import ApiError
from app.limits import SMALL_BYTES

LARGEST = 64  # a process has memory for this many bodies of the largest size
FIRST_S = 30.0  # a body must arrive in this time, plus a second for each:
BYTES_A_SECOND = 65_536


class BodyMemory:
    """The memory in use; the first 16 kB of each body are free, so small ones always fit."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0

    @contextmanager
    def share(self) -> Iterator["BodyShare"]:
        """The memory of one body, which is freed at the end of the block."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            self._held -= share.held

    def grow(self, count: int) -> bool:
        """Use `count` more bytes; False, without any effect, when there is no room."""
        fits = count <= 0 or self._held + count <= self._most
        self._held += count if fits else 0
        return fits


class BodyShare:
    """The memory that one body uses."""

    def __init__(self, bodies: BodyMemory) -> None:
        self._bodies = bodies
        self._received = 0
        self.held = 0
        self.refused = False

    def holds(self, piece: bytes) -> bool:
        """Whether there is room for one more piece; False for all pieces after a refusal."""
        self._received += len(piece)
        more = max(0, self._received - SMALL_BYTES) - self.held
        self.refused = self.refused or not self._bodies.grow(more)
        self.held += 0 if self.refused else more
        return not self.refused


async def in_time(pieces: AsyncIterator[bytes], first_s: float = FIRST_S) -> AsyncIterator[bytes]:
    """The pieces of a body as they arrive. Raises ApiError, 408, when they arrive too slowly."""
    deadline = asyncio.get_running_loop().time() + first_s
    try:
        while True:
            async with asyncio.timeout_at(deadline):
                piece = await anext(pieces, None)
            if piece is None:
                return
            deadline += len(piece) / BYTES_A_SECOND
            yield piece
    except TimeoutError as error:
        raise ApiError(
            HTTPStatus.REQUEST_TIMEOUT,
            "request_timeout",
            "the body did not come in time",
            headers={"Connection": "close"},
        ) from error


def too_much_held() -> ApiError:
    """503 for a body that arrives while there is no room for it."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too_many_bodies",
        "too many large bodies are being received: send this again in a moment",
        headers={"Retry-After": "5"},
    )
