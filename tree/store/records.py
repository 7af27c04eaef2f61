"""`RedisRecords`: the item records of one catalogue, and the area where items wait for a place."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar, cast

from redis.asyncio import Redis

from tree.errors import CatalogDeleted, Overtaken, StaleVersion
from tree.item import Item
from tree.redis.connection import translated
from tree.redis.script import TOMBSTONE
from tree.snapshot import SemanticTree
from tree.store import encoding
from tree.store.keys import CatalogKeys
from tree.store.protocol import Checkpoint
from tree.store.scripts import STAGE, UNSTAGE

RECORDS_AT_ONCE = 500
_BYTES_AT_ONCE = 262_144  # are read as items within some 5 ms
# A record has a kilobyte as a rule, and 1.2 MB at most: how many are read next depends on the last.
_FIRST_AT_ONCE, _BYTES_READ = 100, 8_388_608
_CHECKPOINT_TTL_S = 604_800

_T = TypeVar("_T")


class RedisRecords:
    """See ItemRecords and StagingArea.

    Every staged id has a staging number. A commit that places it names the newest number that was
    read before, so that an item that was staged again meanwhile keeps waiting.
    """

    def __init__(self, client: Redis, keys: CatalogKeys) -> None:
        self._client = client
        self._keys = keys
        self._stage = STAGE.on(client)
        self._unstage = UNSTAGE.on(client)
        self._reader = encoding.RecordReader()

    @translated()
    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        found: dict[str, Item] = {}
        async for records in self._records(ids):
            async for some in _slices(records):
                found |= self._reader.items(some)
        await self._check_there(ids, found)
        return found

    @translated()
    async def records(self, ids: Collection[str]) -> dict[str, bytes]:
        """See TreeStore."""
        found: dict[str, bytes] = {}
        async for records in self._records(ids):
            found |= self._reader.sound(records)
        await self._check_there(ids, found)
        return found

    async def _check_there(self, ids: Collection[str], found: Collection[str]) -> None:
        """Raises CatalogDeleted where records are missing because the catalogue was deleted."""
        if len(found) < len(ids) and await self._client.hexists(self._keys.head, TOMBSTONE):
            raise CatalogDeleted("the catalogue was deleted")

    @translated()
    async def record_flaws(self, ids: Collection[str]) -> dict[str, str]:
        """See TreeStore."""
        found: dict[str, str] = {}
        async for records in self._records(ids):
            found |= encoding.record_flaws(records)
        return found

    @translated()
    async def existing(self, ids: Collection[str]) -> set[str]:
        """See TreeStore."""
        asked = list(ids)
        if not asked:
            return set()
        numbers = cast(list[bytes | None], await self._client.hmget(self._keys.staged, asked))
        found = {item_id for item_id, at in zip(asked, numbers, strict=True) if at is not None}
        async for records in self._records([item_id for item_id in asked if item_id not in found]):
            found.update(item_id for item_id, record in records.items() if record is not None)
        return found

    async def record_ids(self) -> AsyncIterator[list[str]]:
        """See TreeStore. By a SCAN over the keys of the catalogue."""
        stem = self._keys.item("")
        pages = self._client.scan_iter(match=f"{stem}*", count=RECORDS_AT_ONCE)
        while True:
            batch: list[str] = []
            async with translated():
                async for key in pages:
                    batch.append(cast(bytes, key).decode(errors="replace").removeprefix(stem))
                    if len(batch) == RECORDS_AT_ONCE:
                        break
            if not batch:
                return
            yield batch

    async def _records(self, ids: Collection[str]) -> AsyncIterator[dict[str, bytes | None]]:
        """The records in batches of a few megabytes."""
        waiting, at_once = iter(ids), _FIRST_AT_ONCE
        while batch := list(islice(waiting, at_once)):
            found = await self._client.mget([self._keys.item(item_id) for item_id in batch])
            records = cast(list[bytes | None], found)
            yield dict(zip(batch, records, strict=True))
            mean = 1 + sum(len(record or b"") for record in records) // len(batch)
            at_once = max(1, min(RECORDS_AT_ONCE, _BYTES_READ // mean))

    @translated()
    async def stage(
        self,
        items: Sequence[Item],
        checkpoint: Checkpoint | None = None,
        *,
        lines_of: SemanticTree | None = None,
    ) -> None:
        """See TreeStore."""
        for batch in batched(iter(items), RECORDS_AT_ONCE):
            name, content, before = checkpoint or ("", b"", b"")
            last = batch[-1] is items[-1]
            written = await self._stage(
                head=self._keys.head,
                staged=self._keys.staged,
                checkpoint=self._keys.checkpoint(name),
                written=[self._keys.item(item.id) for item in batch],
                expects=1 if checkpoint else 0,
                expected=before,
                content=content if last else b"",
                checkpoint_s=_CHECKPOINT_TTL_S,
                lines_of="" if lines_of is None else lines_of.version,
                have_lines=1 if lines_of is not None and lines_of.rows.have_lines else 0,
                records=[encoding.pack_item(item) for item in batch],
                ids=[item.id for item in batch],
            )
            if written == -1:
                raise Overtaken("lines of items were set meanwhile")
            if not written:
                raise StaleVersion("another process continues this import")

    @translated()
    async def staging_seq(self) -> int:
        """See TreeStore."""
        return int(cast(bytes | None, await self._client.hget(self._keys.head, "staged")) or 0)

    @translated()
    async def checkpoint(self, name: str) -> bytes | None:
        """See TreeStore."""
        return cast(bytes | None, await self._client.get(self._keys.checkpoint(name)))

    @translated()
    async def staged_items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        asked = list(ids)
        if not asked:
            return {}
        numbers = cast(list[bytes | None], await self._client.hmget(self._keys.staged, asked))
        return await self.items([i for i, at in zip(asked, numbers, strict=True) if at is not None])

    async def staged_ids(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        cursor = 0
        while True:
            async with translated():
                cursor, page = await self._client.hscan(self._keys.staged, cursor, count=batch)
            for ids in batched(iter(page), batch):
                yield [cast(bytes, item_id).decode(errors="replace") for item_id in ids]
            if not cursor:
                return

    async def unstage(self, ids: Collection[str], staging_seq: int) -> None:
        """Remove ids that have a place now from the staging area, unless staged again since."""
        await self._unstage(staged=self._keys.staged, staging_seq=staging_seq, ids=list(ids))


async def _slices(
    records: Mapping[str, bytes | None],
) -> AsyncIterator[Mapping[str, bytes | None]]:
    """The records, few at a time where they are long, so that other requests are served."""
    if sum(len(record or b"") for record in records.values()) <= _BYTES_AT_ONCE:
        yield records
        return
    some: dict[str, bytes | None] = {}
    size = 0
    for item_id, record in records.items():
        some[item_id] = record
        size += len(record or b"")
        if size > _BYTES_AT_ONCE:
            yield some
            await asyncio.sleep(0)
            some, size = {}, 0
    yield some


def batched(values: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while batch := list(islice(values, size)):
        yield batch
