"""`RedisVectors`: the vectors of the texts of one catalogue, as packed bytes by name."""

from collections.abc import Mapping, Sequence
from typing import cast

from redis.asyncio import Redis

from app.storage.keys import VectorKeys
from tree.redis.connection import translated
from tree.redis.keys import DEFAULT_PREFIX
from tree.redis.script import Script

_READ_AT_ONCE, _WRITTEN_AT_ONCE = 1_000, 200  # 1.6 kB each with a model of 1,536 dimensions

_PUT = Script(
    """
for i, vector in ipairs(vectors) do redis.call('SET', vector, contents[i], 'EX', ttl_s) end
""",
    keys=("head", "vectors*"),
    args=("ttl_s", "contents*"),
    refuses_deleted=True,
)

_ADD_REFUSED = Script(
    """
for _, item in ipairs(items) do redis.call('SADD', refused, item) end
redis.call('EXPIRE', refused, ttl_s)
""",
    keys=("refused", "head"),
    args=("ttl_s", "items*"),
    refuses_deleted=True,
)


class RedisVectors:
    """Bytes that expire, by name, and the items whose texts were refused.

    They are in no backup, and gone with their catalogue. The caller owns and closes `client`.
    Every method raises StoreUnavailable.
    """

    def __init__(self, client: Redis, catalog_id: str, *, prefix: str = DEFAULT_PREFIX) -> None:
        self._client = client
        self._keys = VectorKeys(catalog_id, prefix)
        self._put = _PUT.on(client)
        self._add_refused = _ADD_REFUSED.on(client)

    @translated()
    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """What is stored by these names, in order; None where nothing is."""
        found: list[bytes | None] = []
        for start in range(0, len(names), _READ_AT_ONCE):
            keys = [self._keys.vector(name) for name in names[start : start + _READ_AT_ONCE]]
            found += cast(list[bytes | None], await self._client.mget(keys))
        return found

    @translated()
    async def put(self, contents: Mapping[str, bytes], ttl_s: int) -> None:
        """Store these for so long. Raises CatalogDeleted."""
        names = list(contents)
        for start in range(0, len(names), _WRITTEN_AT_ONCE):
            some = names[start : start + _WRITTEN_AT_ONCE]
            await self._put(
                head=self._keys.head,
                vectors=[self._keys.vector(name) for name in some],
                ttl_s=ttl_s,
                contents=[contents[name] for name in some],
            )

    @translated()
    async def add_refused(self, ids: Sequence[str], ttl_s: int) -> None:
        """Remember items whose texts a model has refused, for so long. Raises CatalogDeleted."""
        for start in range(0, len(ids), _READ_AT_ONCE):
            await self._add_refused(
                refused=self._keys.refused,
                head=self._keys.head,
                ttl_s=ttl_s,
                items=ids[start : start + _READ_AT_ONCE],
            )

    @translated()
    async def refused(self) -> list[str]:
        """The ids of these items."""
        found = cast(set[bytes], await self._client.smembers(self._keys.refused))
        return sorted(item.decode() for item in found)

    @translated()
    async def remove_refused(self, ids: Sequence[str]) -> None:
        """Forget some of these items."""
        for start in range(0, len(ids), _READ_AT_ONCE):
            await self._client.srem(self._keys.refused, *ids[start : start + _READ_AT_ONCE])
