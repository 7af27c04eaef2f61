"""Connections to a Redis-protocol server, and its refusals in our words."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from tree.errors import StoreUnavailable, StoreUnreachable
from tree.store.cluster import Address, ClusterRedis

_PORT = 6379

_REFUSALS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ResponseError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
)

# uvloop, asked to write to a connection that was just reset, raises a RuntimeError of its own.
_RESET = "the handler is closed"

_SILENCE = (exceptions.ConnectionError, exceptions.TimeoutError)

# By class, or by a word of the message: Redis 6.2 wraps what goes wrong within a script.
_ADVICE: tuple[tuple[type[Exception], str, str], ...] = (
    (
        exceptions.BusyLoadingError,
        "LOADING",
        "the store is still reading its data: try again in a moment",
    ),
    (
        exceptions.AuthenticationError,
        "NOAUTH",
        "the store refuses the user or the password: check the store URL",
    ),
    (
        exceptions.NoPermissionError,
        "NOPERM",
        "the store's ACL forbids a command: allow this user all commands on its key prefix",
    ),
    (
        exceptions.OutOfMemoryError,
        "OOM command not allowed",
        "the store is full: raise its maxmemory, or remove items or catalogues",
    ),
    (
        exceptions.ReadOnlyError,
        "READONLY",
        "the store is a read-only replica: point the store URL at the primary",
    ),
    (
        exceptions.MovedError,
        "MOVED",
        "the store is a node of a Redis Cluster: write redis+cluster:// in the store URL",
    ),
    (
        exceptions.TryAgainError,
        "TRYAGAIN",
        "the store is moving these keys to another node: try again in a moment",
    ),
    (
        exceptions.ClusterDownError,
        "CLUSTERDOWN",
        "the store's cluster is not whole: check the state of its nodes",
    ),
    (
        exceptions.TimeoutError,
        "timed out",
        "the store did not answer in time: check its load and the network",
    ),
    (
        exceptions.ConnectionError,
        "Connection",
        "the store cannot be reached: check that the server runs and the store URL",
    ),
    (
        exceptions.SlotNotCoveredError,
        "cluster support disabled",
        "the store is not a whole cluster: check its nodes, or write redis:// in the store URL",
    ),
    (
        exceptions.ResponseError,
        "MISCONF",
        "the store refused the command: see the message and the log of the server",
    ),
)


def connect(url: str, *, timeout_s: float = 5.0) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; no connection is made yet.

    `redis+cluster://a:6379,b:6379` and `rediss+cluster://…` are for a Redis Cluster; one of its
    nodes is enough, more of them help while that one is down. A lost connection is tried again
    for up to a second, a timeout is not. The caller closes the client.

    Raises ValueError on a URL that cannot be read.
    """
    scheme, cluster, rest = url.partition("+cluster://")
    if not cluster:
        return _one_server(url, timeout_s)
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    user, at, hosts = authority.rpartition("@")
    seeds = [urlsplit(f"//{host}") for host in hosts.split(",")]
    if scheme not in ("redis", "rediss") or not all(seed.hostname for seed in seeds):
        raise ValueError("a cluster is redis+cluster://host:port,… or rediss+cluster://host:port,…")

    def node(address: Address) -> Redis:
        host, port = address
        bracketed = f"[{host}]" if ":" in host else host
        return _one_server(f"{scheme}://{user}{at}{bracketed}:{port}{path}", timeout_s)

    return ClusterRedis([(seed.hostname or "", seed.port or _PORT) for seed in seeds], node)


def _one_server(url: str, timeout_s: float) -> Redis:
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(
            ExponentialWithJitterBackoff(cap=0.5, base=0.05),
            retries=3,
            supported_errors=(exceptions.ConnectionError, RuntimeError),  # type: ignore[arg-type]  # see _RESET
        ),
    )


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raises StoreUnavailable, with advice, for whatever the server or the network refuses.

    That is StoreUnreachable when nobody answers.

    A cancellation that comes while the client sends is lost in Python 3.11's `asyncio.wait_for`
    when the send is done in the same step: it is raised here once the operation has ended.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        yield
    except _REFUSALS as error:
        kind = StoreUnreachable if isinstance(error, _SILENCE) else StoreUnavailable
        raise kind(f"{_advice(error)} ({error})") from error
    except RuntimeError as error:
        if _RESET not in str(error):
            raise
        raise StoreUnreachable(f"{_advice(exceptions.ConnectionError())} ({error})") from error
    if task and task.cancelling() > cancelled:
        raise asyncio.CancelledError


def _advice(error: Exception) -> str:
    for kind, word, advice in _ADVICE:
        if isinstance(error, kind) or word in str(error):
            return advice
    return "the store's cluster is not whole: check the state of its nodes"
