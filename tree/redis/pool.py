"""`Pool`: connections to one server. While all are in use, requests wait for one in order."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError
from redis.typing import EncodableT

CONNECTIONS = 100


class PoolFull(RedisError):
    """All connections stayed in use, so that the server was not asked.

    Not a ConnectionError, after which the client of a cluster looks for another server.
    """


class Pool(ConnectionPool):
    """redis-py's pool refuses at once when all connections are in use; here requests wait.

    redis-py's BlockingConnectionPool (8.1.0) reports the end of a wait as a lost connection, after
    which the client of a cluster would read the layout again.
    """

    wait_s: float = 5.0

    @cached_property
    def _free(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(self.max_connections)

    @cached_property
    def _lent(self) -> set[AbstractConnection]:
        return set()

    def make_connection(self) -> AbstractConnection:
        """A new connection, which packs commands in C: redis-py does so without asyncio only.

        A hundred keys take 10 µs in place of 75 µs.
        """
        connection: AbstractConnection = super().make_connection()  # type: ignore[no-untyped-call]
        connection.pack_command = _packed  # type: ignore[method-assign]
        return connection

    async def get_connection(
        self,
        command_name: object = None,  # noqa: ARG002 - redis-py's signature
        *keys: object,  # noqa: ARG002
        **options: object,  # noqa: ARG002
    ) -> AbstractConnection:
        """A connection that is open, in the order of the requests. Raises PoolFull."""
        opened: Callable[[], Awaitable[AbstractConnection]] = super().get_connection
        await self._wait()
        try:
            connection = await opened()
        except BaseException:
            self._free.release()
            raise
        self._lent.add(connection)
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Give a connection back."""
        try:
            await super().release(connection)
        finally:
            if connection in self._lent:  # else `get_connection` has released it
                self._lent.remove(connection)
                self._free.release()

    async def _wait(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self.wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            most = self.max_connections
            raise PoolFull(f"{most} connections were in use for {self.wait_s:g} s") from error


def _packed(*args: EncodableT) -> list[bytes]:
    """A command in the protocol of Redis; its name may have several words."""
    name, *rest = args
    words = name.split() if isinstance(name, str | bytes) else [name]
    return [hiredis.pack_command((*words, *rest))]
