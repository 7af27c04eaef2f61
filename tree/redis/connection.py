"""Connections to a server of the Redis protocol, and the translation of its errors."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from tree.errors import CatalogDeleted, StoreBusy, StoreFull, StoreUnavailable, StoreUnreachable
from tree.redis.cluster import Address, ClusterRedis
from tree.redis.joined import JoiningRedis
from tree.redis.pool import CONNECTIONS, Pool, PoolFull
from tree.redis.script import DELETED

Client: TypeAlias = Redis  # for modules that do not import redis

_PORT = 6379
_UNREADABLE = (
    "write redis://user:password@host:port/0, rediss://… for TLS, unix:///path or "
    "redis+cluster://host:port,host:port; percent-encode what is not a letter or a digit in user "
    "and password"
)
_ELSE = "the store's cluster is not whole: check the state of its nodes"
_BUSY = "this process asks the store more than it can at once: try again in a moment"

_REFUSALS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.InvalidResponse,
    exceptions.ResponseError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
)

# uvloop, asked to write to a connection that was just reset, raises a RuntimeError of its own.
_RESET = "the handler is closed"

_SILENCE = (exceptions.ConnectionError, exceptions.TimeoutError)

# By class, or by a word of the message: Redis 6.2 wraps what goes wrong within a script.
_ADVICE: tuple[tuple[type[Exception] | None, str, str], ...] = (
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
        exceptions.InvalidResponse,
        "WRONG_VERSION_NUMBER",
        "what answers is no Redis or Valkey server, or only one of the two speaks TLS: check host "
        "and port of the store URL, and whether it must begin with redis:// or rediss://",
    ),
    (
        None,
        "CERTIFICATE_VERIFY_FAILED",
        "the store's certificate is not trusted here: install the one that signed it, or name it "
        "in the store URL with ?ssl_ca_certs=/its/path.pem",
    ),
    (
        None,
        "DB index is out of range",
        "the store has no database of this number: change the number at the end of the store URL",
    ),
    (
        None,
        "Timeout connecting",
        "the store did not answer in time: check host and port of the store URL, the network, and "
        "whether the server speaks TLS where the URL begins with rediss://",
    ),
    (
        exceptions.TimeoutError,
        "timed out",
        "the store did not answer in time: check its load and the network",
    ),
    (
        None,
        "onnection closed by server",
        "the store closed the connection: check that the server runs, that the store URL leads to "
        "it, and whether it wants TLS (rediss://)",
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
        "ERR",
        "the store refused the command: see the message and the log of the server",
    ),
)

# Looked up first: the server has no room for new data. MISCONF: it could not write its file.
_FULL: tuple[tuple[type[Exception] | None, str, str], ...] = (
    (
        exceptions.OutOfMemoryError,
        "OOM command not allowed",
        "the store is full: raise its maxmemory, or remove items or catalogues",
    ),
    (
        None,
        "MISCONF",
        "the store is full: it cannot write to its disk; make room there, or see its log",
    ),
)


def connect(url: str, *, timeout_s: float = 5.0, connections: int = CONNECTIONS) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; no connection is made yet.

    `redis+cluster://a:6379,b:6379` and `rediss+cluster://…` are for a Redis Cluster; one of its
    nodes is enough, more of them help while that one is down. A lost connection is tried again
    for up to a second, a timeout is not. At most so many `connections` are open to a server;
    while all are in use, others wait in line. The caller closes the client.

    Raises ValueError on a URL that cannot be read; its text holds nothing of the URL, in which a
    password may stand.
    """
    try:
        return _client(url, timeout_s, connections)
    except (ValueError, TypeError):
        raise ValueError(_UNREADABLE) from None


def _client(url: str, timeout_s: float, connections: int) -> Redis:
    scheme, cluster, rest = url.partition("+cluster://")
    if not cluster:
        return _one_server(url, timeout_s, connections)
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    user, at, hosts = authority.rpartition("@")
    seeds = [urlsplit(f"//{host}") for host in hosts.split(",")]
    if scheme not in ("redis", "rediss") or not all(seed.hostname for seed in seeds):
        raise ValueError(_UNREADABLE)

    def node(address: Address) -> Redis:
        host, port = address
        bracketed = f"[{host}]" if ":" in host else host
        return _one_server(f"{scheme}://{user}{at}{bracketed}:{port}{path}", timeout_s, connections)

    return ClusterRedis([(seed.hostname or "", seed.port or _PORT) for seed in seeds], node)


def _one_server(url: str, timeout_s: float, connections: int) -> Redis:
    pool = Pool.from_url(
        url,
        max_connections=connections,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(
            ExponentialWithJitterBackoff(cap=0.5, base=0.05),
            retries=3,
            supported_errors=(exceptions.ConnectionError, RuntimeError),  # type: ignore[arg-type]  # see _RESET
        ),
    )
    pool.make_connection()  # an unknown parameter is found out
    return JoiningRedis.from_pool(pool)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raises StoreUnavailable, with advice, for errors of the server or the network.

    StoreUnreachable when no server answers, StoreBusy when no connection was free, and
    CatalogDeleted when a script refuses because its catalogue was deleted.

    A cancellation that comes while the client sends is lost in Python 3.11's `asyncio.wait_for`
    when the send is done in the same step: it is raised here once the operation has ended.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        yield
    except PoolFull as error:
        raise StoreBusy(_BUSY, error) from error
    except _REFUSALS as error:
        if DELETED in str(error):
            raise CatalogDeleted("the catalogue was deleted") from error
        raise _refused(error) from error
    except RuntimeError as error:
        if _RESET not in str(error):
            raise
        raise _refused(exceptions.ConnectionError(str(error))) from error
    if task and task.cancelling() > cancelled:
        raise asyncio.CancelledError


def _refused(error: Exception) -> StoreUnavailable:
    if advice := _advice(error, _FULL):
        return StoreFull(advice, error)
    kind = StoreUnreachable if isinstance(error, _SILENCE) else StoreUnavailable
    return kind(_advice(error, _ADVICE) or _ELSE, error)


def _advice(error: Exception, table: Sequence[tuple[type[Exception] | None, str, str]]) -> str:
    for kind, word, advice in table:
        if (kind and isinstance(error, kind)) or word in str(error):
            return advice
    return ""
