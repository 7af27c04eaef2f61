"""A server of pictures that lies in every way."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.servers.loopback import Loopback

CERTIFICATE = Path(__file__).parent / "photos.test.pem"
"""Of the host photos.test, and its own authority; until 2120. Its key protects nothing."""

_BOUND_S = 30
_PIECE = 1_000_000

Answer: TypeAlias = Callable[[Request], Awaitable[Response]]


def picture(
    form: str = "JPEG", size: tuple[int, int] = (640, 480), mode: str = "RGB", colour: str = "teal"
) -> bytes:
    """A file with a picture of one colour."""
    written = io.BytesIO()
    Image.new(mode, size, colour).save(written, form)
    return written.getvalue()


class PictureServer:
    """Answers by path. `sent` counts the bytes of endless bodies, `asked` has every request."""

    def __init__(self, *, secure: bool = False) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        self._redirects: dict[str, str] = {}
        answers: Mapping[str, Answer] = {
            "/endless": self._endless,
            "/boast": self._boast,
            "/slow": self._slow,
            "/hang": self._hang,
            "/short": self._short,
            "/packed": self._packed,
        }
        routes = [Route(path, answer) for path, answer in answers.items()]
        app = Starlette(routes=[*routes, Route("/{path:path}", self._file)])
        self._loopback = Loopback(app, CERTIFICATE if secure else None)
        self.authority = self._loopback.authority
        self.port = int(self.authority.rpartition(":")[2])
        self.asked: list[tuple[str, str]] = []  # host and path
        self.headers: list[Mapping[str, str]] = []
        self.sent = 0
        self.together = 0
        self.most_together = 0

    def serve(self, path: str, content: bytes, kind: str = "image/jpeg") -> None:
        """Answer `path` with this."""
        self._files[path] = content, kind

    def redirect(self, path: str, to: str) -> None:
        """Answer `path` with another address."""
        self._redirects[path] = to

    def stop(self) -> None:
        self._loopback.stop()

    def _note(self, request: Request) -> None:
        self.asked.append((request.headers["host"], request.url.path))
        self.headers.append(request.headers)

    async def _file(self, request: Request) -> Response:
        self._note(request)
        path = request.url.path
        if path in self._redirects:
            return RedirectResponse(self._redirects[path])
        if path not in self._files:
            return Response("gone", 404)
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        await asyncio.sleep(0.01)  # others come in the meantime
        self.together -= 1
        content, kind = self._files[path]
        return Response(content, media_type=kind)

    async def _endless(self, request: Request) -> Response:
        """10 GB that begin as a picture."""
        self._note(request)

        async def body() -> AsyncIterator[bytes]:
            yield picture()
            for _ in range(10_000):
                self.sent += _PIECE
                yield b"\x00" * _PIECE

        return StreamingResponse(body(), media_type="image/jpeg")

    async def _boast(self, request: Request) -> Response:
        """The header of 10 GB."""

        async def body() -> AsyncIterator[bytes]:
            yield picture()
            await asyncio.sleep(_BOUND_S)

        headers = {"content-length": "10000000000"}
        return StreamingResponse(body(), media_type="image/jpeg", headers=headers)

    async def _slow(self, request: Request) -> Response:
        """A byte every 20 ms: every read comes in time."""

        async def body() -> AsyncIterator[bytes]:
            for byte in picture():
                yield bytes([byte])
                await asyncio.sleep(0.02)

        return StreamingResponse(body(), media_type="image/jpeg")

    async def _hang(self, request: Request) -> Response:
        """Until the client goes away."""
        self._note(request)
        async with asyncio.timeout(_BOUND_S):
            while (await request.receive())["type"] != "http.disconnect":
                pass
        return Response(b"")

    async def _short(self, request: Request) -> Response:
        """Less than the header says."""
        whole = picture()

        async def body() -> AsyncIterator[bytes]:
            yield whole[: len(whole) // 2]
            self._loopback.reset_connection(_peer(request))

        headers = {"content-length": str(len(whole))}
        return StreamingResponse(body(), media_type="image/jpeg", headers=headers)

    async def _packed(self, request: Request) -> Response:
        """Compressed though nobody asked for it: a few kB that would become 1 GB."""
        headers = {"content-encoding": "gzip"}
        return Response(gzip.compress(picture() + b"\x00" * 9_000_000), headers=headers)


def _peer(request: Request) -> tuple[str, int]:
    assert request.client is not None
    return request.client.host, request.client.port
