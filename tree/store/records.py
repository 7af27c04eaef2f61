"""`RedisRecords`: the item records of one catalogue, and the area where items wait for a place."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from itertools import islice
from typing import TypeVar, cast

from redis.asyncio import Redis

from tree.errors import StaleVersion
from tree.item import Item
from tree.store import wire
from tree.store.connection import translated
from tree.store.keys import CatalogKeys
from tree.store.protocol import Mark
from tree.store.scripts import SETTLE, STAGE
from tree.store.survey import recorded

RECORDS_AT_ONCE = 500
_MARK_TTL_S = 604_800

_T = TypeVar("_T")


class RedisRecords:
    """The part of TreeStore that holds text. See TreeStore for what each method does.

    Every staged id has a stamp: who places what was staged settles it by the stamp that was the
    newest when it was read, so that what was staged again meanwhile keeps waiting.
    """

    def __init__(self, client: Redis, keys: CatalogKeys) -> None:
        self._client = client
        self._keys = keys
        self._stage = client.register_script(STAGE)
        self._settle = client.register_script(SETTLE)
        self._reader = wire.RecordReader()

    @translated()
    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        found: dict[str, Item] = {}
        async for records in self._records(ids):
            found |= self._reader.items(records)
        return found

    @translated()
    async def records(self, ids: Collection[str]) -> dict[str, bytes]:
        """See TreeStore."""
        found: dict[str, bytes] = {}
        async for records in self._records(ids):
            found |= self._reader.sound(records)
        return found

    @translated()
    async def flaws(self, ids: Collection[str]) -> dict[str, str]:
        """See TreeStore."""
        found: dict[str, str] = {}
        async for records in self._records(ids):
            found |= wire.record_flaws(records)
        return found

    @translated()
    async def known(self, ids: Collection[str]) -> set[str]:
        """See TreeStore."""
        asked = list(ids)
        if not asked:
            return set()
        stamps = cast(list[bytes | None], await self._client.hmget(self._keys.staged, asked))
        found = {item_id for item_id, at in zip(asked, stamps, strict=True) if at is not None}
        async for records in self._records([item_id for item_id in asked if item_id not in found]):
            found.update(item_id for item_id, record in records.items() if record is not None)
        return found

    def recorded(self) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        return recorded(self._client, self._keys)

    async def _records(self, ids: Collection[str]) -> AsyncIterator[dict[str, bytes | None]]:
        for batch in batched(iter(ids), RECORDS_AT_ONCE):
            records = await self._client.mget([self._keys.item(item_id) for item_id in batch])
            yield dict(zip(batch, cast(list[bytes | None], records), strict=True))

    @translated()
    async def stage(self, items: Sequence[Item], mark: Mark | None = None) -> None:
        """See TreeStore."""
        for batch in batched(iter(items), RECORDS_AT_ONCE):
            content = mark.content if mark and batch[-1] is items[-1] else b""
            written = await self._stage(
                keys=[
                    self._keys.head, self._keys.staged, self._keys.mark(mark.name if mark else ""),
                    *(self._keys.item(item.id) for item in batch),
                ],
                args=[
                    1 if mark else 0, mark.before if mark else b"", content, _MARK_TTL_S,
                    *(wire.pack_item(item) for item in batch), *(item.id for item in batch),
                ],
            )  # fmt: skip
            if not written:
                raise StaleVersion("somebody else goes on with what is staged here")

    @translated()
    async def stamp(self) -> int:
        """See TreeStore."""
        return int(cast(bytes | None, await self._client.hget(self._keys.head, "staged")) or 0)

    @translated()
    async def mark(self, name: str) -> bytes | None:
        """See TreeStore."""
        return cast(bytes | None, await self._client.get(self._keys.mark(name)))

    @translated()
    async def waiting(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        asked = list(ids)
        if not asked:
            return {}
        stamps = cast(list[bytes | None], await self._client.hmget(self._keys.staged, asked))
        return await self.items([i for i, at in zip(asked, stamps, strict=True) if at is not None])

    async def staged(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        cursor = 0
        while True:
            async with translated():
                cursor, page = await self._client.hscan(self._keys.staged, cursor, count=batch)
            for ids in batched(iter(page), batch):
                yield [cast(bytes, item_id).decode(errors="replace") for item_id in ids]
            if not cursor:
                return

    async def settle(self, ids: Collection[str], stamp: int) -> None:
        """These ids have a place now: they leave, unless they were staged again after `stamp`."""
        await self._settle(keys=[self._keys.staged], args=[stamp, *ids])


def batched(values: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while batch := list(islice(values, size)):
        yield batch
