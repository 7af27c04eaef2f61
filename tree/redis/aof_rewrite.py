"""Rewrites the append-only file of a server from what it holds."""

import asyncio

from redis.asyncio import Redis

from tree.errors import StoreUnavailable
from tree.redis.cluster import ClusterRedis
from tree.redis.connection import translated

_POLL_S = 0.05


async def rewrite_aof(client: Redis) -> None:
    """Return when the disk holds nothing that was deleted before the call.

    In a cluster every primary rewrites its file, one after another. Raises StoreUnavailable, also
    where a server keeps no such file.
    """
    if not isinstance(client, ClusterRedis):
        return await _rewritten(client)
    async with translated():
        primaries = await client.primaries()
    for _, node in primaries:
        await _rewritten(node)
    return None


async def _rewritten(client: Redis) -> None:
    async with translated():
        before = await client.info("persistence")
        if not before["aof_enabled"]:
            raise StoreUnavailable("the store keeps no append-only file: there is nothing to do")
        # A rewrite under way began before the call, and may contain what was deleted since.
        await _idle(client)
        await client.bgrewriteaof()
        after = await _idle(client)
        if after["aof_last_bgrewrite_status"] != "ok":
            raise StoreUnavailable(
                "the store could not rewrite its file: see its log, and whether its disk has "
                "room for a second copy of the data"
            )


async def _idle(client: Redis) -> dict[str, object]:
    while True:
        found: dict[str, object] = await client.info("persistence")
        if not (found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"]):
            return found
        await asyncio.sleep(_POLL_S)
