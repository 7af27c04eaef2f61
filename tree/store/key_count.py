"""How many keys the store holds of each catalogue."""

from collections import Counter, defaultdict
from typing import cast

from redis.asyncio import Redis

from tree.redis.connection import translated
from tree.redis.keys import DEFAULT_PREFIX
from tree.store.keys import CatalogKeys, tag_of

_KEYS_AT_ONCE = 500
_STAYS = -1


async def count_keys(
    client: Redis, prefix: str = DEFAULT_PREFIX, name: str | None = None
) -> dict[str, int]:
    """How many keys without a TTL the store holds by catalogue id, of all catalogues or one name.

    The tombstone of a deleted catalogue has a TTL. Takes a SCAN over the whole store. Raises
    StoreUnavailable.
    """
    found: Counter[str] = Counter()
    batches: dict[str, list[bytes]] = defaultdict(list)

    async def count(tag: str) -> None:
        pipeline = client.pipeline(transaction=False)  # of one tag: a cluster's node has them all
        for key in batches.pop(tag):
            pipeline.ttl(key)
        found[tag] += (await pipeline.execute()).count(_STAYS)

    async with translated():
        for pattern in CatalogKeys.patterns(name, prefix):
            async for key in client.scan_iter(match=pattern, count=_KEYS_AT_ONCE):
                tag = tag_of(cast(bytes, key).decode(errors="replace"), prefix)
                if tag is not None:
                    batches[tag].append(key)
                    if len(batches[tag]) == _KEYS_AT_ONCE:
                        await count(tag)
        for tag in list(batches):
            await count(tag)
    return {tag: keys for tag, keys in found.items() if keys}
