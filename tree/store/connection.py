"""Connections to a Redis-protocol server, and its refusals in our words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TimeoutError,
)

from tree.errors import StoreUnavailable

_ADVICE: tuple[tuple[type[Exception] | str, str], ...] = (
    (BusyLoadingError, "the store is still loading its data: try again in a moment"),
    (AuthenticationError, "the store refuses the user or the password: check the store URL"),
    ("NOAUTH", "the store wants a password: put it into the store URL"),
    ("NOPERM", "the store's ACL forbids a command: allow this user all commands on its prefix"),
    (OutOfMemoryError, "the store is full: raise its maxmemory, or remove items or catalogues"),
    ("OOM ", "the store is full: raise its maxmemory, or remove items or catalogues"),
    (ReadOnlyError, "the store is a read-only replica: point the store URL at the primary"),
    ("READONLY", "the store is a read-only replica: point the store URL at the primary"),
    ("MISCONF", "the store cannot write to its disk: free disk space on the server"),
    ("NOREPLICAS", "the store has too few replicas to accept writes: bring them back"),
    (TimeoutError, "the store did not answer in time: check its load and the network"),
    (ConnectionError, "the store cannot be reached: check that the server runs and the store URL"),
)


def connect(url: str, *, timeout_s: float = 5.0) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; no connection is made yet.

    A lost connection is tried again for about a second (every script of the store may be sent
    twice). The caller closes the client.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.05), retries=3),
    )


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raises StoreUnavailable, with advice, for whatever the server or the network refuses."""
    try:
        yield
    except (
        ConnectionError, TimeoutError, ResponseError, ClusterError, RedisClusterException
    ) as error:  # fmt: skip
        raise StoreUnavailable(f"{_advice(error)} ({error})") from error


def _advice(error: Exception) -> str:
    for sign, advice in _ADVICE:
        if sign in str(error) if isinstance(sign, str) else isinstance(error, sign):
            return advice
    return "the store refused the command: check its version and settings"
