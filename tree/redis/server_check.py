"""Checks whether a server, or every primary of a cluster, can hold catalogues."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tree.errors import StoreUnavailable
from tree.redis.cluster import ClusterRedis
from tree.redis.connection import translated

_OLDEST_VERSION = (6, 2)
Persistence: TypeAlias = Literal["aof", "rdb", "none", "unknown"]
_PERSISTENCE: tuple[Persistence, ...] = ("aof", "rdb", "unknown", "none")  # best first


@dataclass(frozen=True, slots=True)
class ServerReport:
    """The state of a server; of a cluster, the worst and the sums of its primaries."""

    version: str
    maxmemory_policy: str
    persistence: Persistence  # "none": a restart loses every catalogue
    used_bytes: int
    limit_bytes: int  # 0 for none
    node: str = ""  # its address within a cluster
    nodes: tuple["ServerReport", ...] = ()  # none where there is one server


async def check_server(client: Redis) -> ServerReport:
    """The report of a server, or of every primary of a cluster, that can hold a catalogue.

    Raises StoreUnavailable when one is older than 6.2, may evict keys or does not answer.
    """
    if not isinstance(client, ClusterRedis):
        return await _checked(client)
    async with translated():
        primaries = await client.primaries()
    nodes = tuple([await _checked(node, address) for address, node in primaries])
    return ServerReport(
        version=" and ".join(sorted({node.version for node in nodes})),
        maxmemory_policy=nodes[0].maxmemory_policy,
        persistence=max((node.persistence for node in nodes), key=_PERSISTENCE.index),
        used_bytes=sum(node.used_bytes for node in nodes),
        limit_bytes=sum(node.limit_bytes for node in nodes),
        nodes=nodes,
    )


async def _checked(client: Redis, address: str = "") -> ServerReport:
    name = f"the store's node {address}" if address else "the store"
    async with translated():
        info = await client.info()
    version, policy = str(info["redis_version"]), str(info["maxmemory_policy"])
    if tuple(map(int, version.split(".")[:2])) < _OLDEST_VERSION:
        raise StoreUnavailable(f"{name} is Redis {version}: 6.2 or newer is needed, or Valkey")
    if policy != "noeviction":
        raise StoreUnavailable(
            f"{name} may evict items (maxmemory-policy is {policy}): "
            "set maxmemory-policy to noeviction on the server"
        )
    if info.get("cluster_enabled") and not address:
        raise StoreUnavailable(
            "the store is a node of a Redis Cluster: write redis+cluster:// in the store URL"
        )
    return ServerReport(
        version=str(info.get("valkey_version", version)),
        maxmemory_policy=policy,
        persistence="aof" if info["aof_enabled"] else await _snapshots(client),
        used_bytes=int(info["used_memory"]),
        limit_bytes=int(info["maxmemory"]),
        node=address,
    )


async def _snapshots(client: Redis) -> Persistence:
    async with translated():
        try:
            schedule = await client.config_get("save")
        except ResponseError:  # hosted servers forbid CONFIG
            return "unknown"
    return "rdb" if any(schedule.values()) else "none"
