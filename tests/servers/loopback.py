"""An ASGI app on a port of its own, in a thread of the test process."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

_PATIENCE_S = 10
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Loopback:
    """Serves from its construction until `stop`; over https with a file of certificate and key."""

    def __init__(self, app: ASGIApp, certificate: Path | None = None) -> None:
        # Of this protocol by name: asyncio turns off Nagle's algorithm for no other, and without
        # that each answer waits 40 ms for an acknowledgement.
        self._listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(128)
        host, port = self._listening.getsockname()
        self.authority = f"{host}:{port}"
        self.base_url = f"http://{self.authority}/v1"
        config = uvicorn.Config(
            app,
            log_config=None,
            loop="asyncio",
            lifespan="off",
            ws="none",
            ssl_certfile=certificate,
        )
        self._server = uvicorn.Server(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _PATIENCE_S
        while not self._server.started:
            assert self._thread.is_alive(), "uvicorn did not start"
            assert time.monotonic() < deadline, "uvicorn takes too long to start"
            time.sleep(0.005)

    def drop_connections(self) -> None:
        """Close every connection: to what is still answering, the client went away."""
        self._within(lambda: self._abort(reset=False))

    def reset_connection(self, peer: tuple[str, int]) -> None:
        """Close the connection of this client with a TCP reset. Called by the app itself."""
        self._abort(peer, reset=True)

    def stop(self) -> None:
        """Stop at once, whatever is still answering."""
        self.drop_connections()
        self._server.should_exit = True
        self._thread.join(_PATIENCE_S)
        assert not self._thread.is_alive(), "a request outlived its client"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[self._listening]))

    def _within(self, act: Callable[[], None]) -> None:
        async def run() -> None:
            act()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(_PATIENCE_S)

    def _abort(self, peer: tuple[str, int] | None = None, *, reset: bool) -> None:
        for connection in list(self._server.server_state.connections):
            transport = connection.transport
            if peer in (None, transport.get_extra_info("peername")):
                if reset:
                    raw = transport.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                transport.abort()
