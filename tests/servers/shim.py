"""A bad network: a TCP address before a server, whose connections pause, crawl and break."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_PIECE = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class _Hold:
    """Where a connection is to be stopped; `left` such pieces are still to come."""

    words: tuple[bytes, ...]
    left: int
    reached: asyncio.Event = field(default_factory=asyncio.Event)


class Shim:
    """Forwards to a Unix socket, as badly as it is told to."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._peers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.delay_s = 0.0  # before every piece, in both directions
        self.accepted = 0  # connections so far
        self.cuts = 0  # of connections that stood
        self._reply_bytes_left: int | None = None
        self._holds: list[_Hold] = []

    @classmethod
    @asynccontextmanager
    async def before(cls, target: Path) -> AsyncIterator["Shim"]:
        """A shim that listens until the block is left."""
        shim = cls(target)
        shim._server = await asyncio.start_server(shim._serve, "127.0.0.1", 0)
        try:
            yield shim
        finally:
            shim._server.close()
            shim.cut()
            for pump in shim._pumps:
                pump.cancel()
            await asyncio.gather(*shim._pumps, return_exceptions=True)

    @property
    def url(self) -> str:
        """For a client of the store."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def pause(self) -> None:
        """Accept connections and bytes, and forward nothing."""
        self._open.clear()

    def hold(self, *words: bytes, nth: int = 1) -> asyncio.Event:
        """Stop the connection before its `nth` piece of a request with all these words in it.

        The event tells when it has come. Other connections go on.
        """
        hold = _Hold(words, nth)
        self._holds.append(hold)
        return hold.reached

    async def forget(self) -> None:
        """Reset every connection, and return when what was held back on it is gone."""
        self.cut()
        while self._pumps:
            await asyncio.sleep(0.01)

    def heal(self) -> None:
        """Forward everything again, held back bytes included."""
        self.delay_s = 0.0
        self._reply_bytes_left = None
        self._open.set()

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        for peer in list(self._peers):
            self._reset(peer)

    def cut_replies_after(self, count: int) -> None:
        """Forward `count` more bytes of replies, then reset the connection that brings the next."""
        self._reply_bytes_left = count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        except OSError:  # the store is down: so is its address
            writer.transport.abort()
            return
        self._peers |= {writer, server_writer}
        both = [
            asyncio.create_task(self._pump(reader, server_writer, replies=False)),
            asyncio.create_task(self._pump(server_reader, writer, replies=True)),
        ]
        self._pumps |= set(both)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in both:
                pump.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._pumps -= set(both)
            for peer in (writer, server_writer):
                self._peers.discard(peer)
                peer.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(_PIECE):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if not replies:
                    await self._held(piece)
                await self._open.wait()
                if replies and self._reply_bytes_left is not None:
                    whole = len(piece) <= self._reply_bytes_left
                    piece = piece[: self._reply_bytes_left]
                    self._reply_bytes_left -= len(piece)
                    if not whole:
                        self._reply_bytes_left = None
                        sink.write(piece)
                        await sink.drain()
                        self._reset(sink)
                        return
                sink.write(piece)
                await sink.drain()

    async def _held(self, request: bytes) -> None:
        for hold in self._holds:
            if not hold.reached.is_set() and all(word in request for word in hold.words):
                hold.left -= 1
                if not hold.left:
                    hold.reached.set()
                    await asyncio.Event().wait()  # until the connection is reset

    def _reset(self, peer: asyncio.StreamWriter) -> None:
        connection = peer.get_extra_info("socket")
        if connection is not None and connection.family == socket.AF_INET:
            with suppress(OSError):  # closed by the other side in this moment
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                self.cuts += 1
        peer.transport.abort()
