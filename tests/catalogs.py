"""Where the keys of a catalogue lie that a service has created."""

from redis.asyncio import Redis

from app.registry import Registry
from app.storage.redis_documents import RedisDocuments
from tree.redis.keys import DEFAULT_PREFIX
from tree.store.key_count import count_keys
from tree.store.keys import CatalogKeys


def registry_of(client: Redis, prefix: str = DEFAULT_PREFIX) -> Registry:
    """The registry as a service has it."""

    async def held(name: str | None) -> dict[str, int]:
        return await count_keys(client, prefix, name)

    return Registry(RedisDocuments(client, prefix=prefix), held)


async def id_of(client: Redis, name: str = "default", prefix: str = DEFAULT_PREFIX) -> str:
    """The id of the catalogue that has this name now."""
    entry = await registry_of(client, prefix).look(name)
    assert entry is not None, f"there is no catalogue {name}"
    return entry.id


async def keys_of(
    client: Redis, name: str = "default", prefix: str = DEFAULT_PREFIX
) -> CatalogKeys:
    """Its keys."""
    return CatalogKeys(await id_of(client, name, prefix), prefix)
