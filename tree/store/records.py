"""`RedisRecords`: the item records of one catalogue, and the area where items wait for a place."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from itertools import islice
from typing import TypeVar, cast

from redis.asyncio import Redis

from tree.item import Item
from tree.store import wire
from tree.store.connection import translated
from tree.store.keys import CatalogKeys
from tree.store.protocol import Mark
from tree.store.scripts import SETTLE, STAGE

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

    @translated()
    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        records = await self.records(ids)
        return {item_id: wire.read_item(item_id, record) for item_id, record in records.items()}

    @translated()
    async def records(self, ids: Collection[str]) -> dict[str, bytes]:
        """See TreeStore."""
        found: dict[str, bytes] = {}
        for batch in batched(iter(ids), RECORDS_AT_ONCE):
            records = await self._client.mget([self._keys.item(item_id) for item_id in batch])
            for item_id, record in zip(batch, records, strict=True):
                if record is not None:
                    found[item_id] = cast(bytes, record)
        return found

    @translated()
    async def stage(self, items: Sequence[Item], mark: Mark | None = None) -> None:
        """See TreeStore."""
        for batch in batched(iter(items), RECORDS_AT_ONCE):
            last = batch[-1] is items[-1]
            name, content = mark if mark and last else ("", b"")
            await self._stage(
                keys=[
                    self._keys.head, self._keys.staged, self._keys.mark(name),
                    *(self._keys.item(item.id) for item in batch),
                ],
                args=[
                    content, _MARK_TTL_S,
                    *(item.record() for item in batch), *(item.id for item in batch),
                ],
            )  # fmt: skip

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
                yield [cast(bytes, item_id).decode() for item_id in ids]
            if not cursor:
                return

    async def settle(self, ids: Collection[str], stamp: int) -> None:
        """These ids have a place now: they leave, unless they were staged again after `stamp`."""
        await self._settle(keys=[self._keys.staged], args=[stamp, *ids])


def batched(values: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while batch := list(islice(values, size)):
        yield batch
