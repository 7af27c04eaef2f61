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


class RedisVectors:
    """Bytes that expire, by name. The caller owns and closes `client`.

    They are part of no backup, and gone with their catalogue. Every method raises StoreUnavailable.
    """

    def __init__(self, client: Redis, catalog_id: str, *, prefix: str = DEFAULT_PREFIX) -> None:
        self._client = client
        self._keys = VectorKeys(catalog_id, prefix)
        self._put = _PUT.on(client)

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
