"""`JoiningRedis`: a client that sends the commands of many tasks as one message.

Most of what a short command costs a client is the message, not the command: of lists in batches, a
third of the processor time went into eight messages for each (2026-12).
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tree.worker import Background

# Short ones. One that waits or takes long would hold up those that are sent with it.
_JOINED = frozenset({"EVALSHA", "GET", "MGET", "ZSCORE", "HGET", "HGETALL", "ZRANGE"})
_AT_ONCE = 32

_joining: ContextVar[bool] = ContextVar("joining", default=False)


@contextmanager
def joined_commands() -> Iterator[None]:
    """Within it, commands that tasks send in the same step of the event loop are one message."""
    token = _joining.set(True)
    try:
        yield
    finally:
        _joining.reset(token)


def is_joining() -> bool:
    """Whether this is within `joined_commands`."""
    return _joining.get()


class _NotAnswered(Exception):
    """The message or its reply was lost: the command is sent alone."""


@dataclass(frozen=True, slots=True, eq=False)
class _Command:
    args: tuple[object, ...]
    options: dict[str, object]
    reply: asyncio.Future[object]


class JoiningRedis(Redis):
    """A client of one server. See `joined_commands`; outside of it, it is redis-py's client.

    What goes wrong with a message is left to redis-py: it sends each command again, alone.
    """

    @cached_property
    def _waiting(self) -> list[_Command]:
        return []

    @cached_property
    def _messages(self) -> Background:
        return Background("joined commands")

    async def execute_command(self, *args: object, **options: object) -> object:
        """The reply to a command."""
        if args[0] not in _JOINED or not _joining.get():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        loop = asyncio.get_running_loop()
        mine = _Command(args, options, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(mine)
        try:
            return await mine.reply
        except _NotAnswered:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """See Redis."""
        await self._messages.aclose()
        await super().aclose(close_connection_pool)

    def _send(self) -> None:
        some = [one for one in self._waiting if not one.reply.done()]  # others were cancelled
        self._waiting.clear()
        for start in range(0, len(some), _AT_ONCE):
            self._messages.start(self._exchange(some[start : start + _AT_ONCE]))

    async def _exchange(self, some: Sequence[_Command]) -> None:
        try:
            await self._answered(some)
        except Exception:  # noqa: BLE001 - redis-py meets it again, with its retries
            pass
        finally:
            for one in some:
                if not one.reply.done():
                    one.reply.set_exception(_NotAnswered())

    async def _answered(self, some: Sequence[_Command]) -> None:
        connection = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        is_whole = False
        try:
            packed = [piece for one in some for piece in connection.pack_command(*one.args)]
            await connection.send_packed_command(packed)
            for one in some:
                await self._answer(connection, one)
            is_whole = True
        finally:
            if not is_whole:  # replies may still come
                await connection.disconnect(nowait=True)
            await self.connection_pool.release(connection)

    async def _answer(self, connection: object, one: _Command) -> None:
        reply: object
        try:
            reply = await self.parse_response(connection, cast(str, one.args[0]), **one.options)  # type: ignore[arg-type]
        except ResponseError as error:
            if not one.reply.done():
                one.reply.set_exception(error)
        else:
            if not one.reply.done():
                one.reply.set_result(reply)
