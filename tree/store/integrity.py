"""Reads everything that the store holds of a catalogue, and names what is damaged."""

from collections.abc import AsyncIterator, Collection
from itertools import islice
from typing import cast

from redis.asyncio import Redis

from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.redis.connection import translated
from tree.store import encoding
from tree.store.head import Head, KeptVersion, read_head
from tree.store.keys import CatalogKeys
from tree.store.log import check_reach, read_entries
from tree.store.protocol import CheckedPart, WritableStore

_CHUNKS_AT_ONCE = 8
_READS = 5
_STAYS = -1


async def check_integrity(
    client: Redis, keys: CatalogKeys, store: WritableStore
) -> AsyncIterator[CheckedPart]:
    """See TreeStore.check_integrity. A flaw that a writer may have caused is checked again."""
    async for checked in _versions(client, keys):
        yield checked
    async for ids in store.staged_ids():
        yield CheckedPart("waiting", len(ids), tuple((await _staged_flaws(store, ids)).values()))
    async for checked in _strays(store):
        yield checked


async def _versions(client: Redis, keys: CatalogKeys) -> AsyncIterator[CheckedPart]:
    """Head, snapshot and log; again when the snapshot was replaced meanwhile."""
    for _ in range(_READS):
        found: list[CheckedPart] = []
        async with translated():
            try:
                head = await read_head(client, keys)
            except CorruptSnapshot as error:
                yield CheckedPart("head", 1, (str(error),))
                return
            found.append(await _check_head(client, keys, head))
            for kept in head.versions:
                found += [checked async for checked in _check_snapshot(client, keys, head, kept)]
            if head.token:
                found.append(await _check_log(client, keys, head))
            now = await read_head(client, keys)
        if now.generation == head.generation or not any(checked.flaws for checked in found):
            for checked in found:
                yield checked
            return
    raise StoreUnavailable(f"the snapshot was replaced {_READS} times while it was read: retry")


async def _check_head(client: Redis, keys: CatalogKeys, head: Head) -> CheckedPart:
    flaws: list[str] = []
    try:
        await check_reach(client, keys, head)
    except CorruptSnapshot as error:
        flaws.append(str(error))
    if head.token:
        named = {
            f"the {what} {name!r}": key
            for kept in head.versions
            for what, name, key in (
                ("snapshot", kept.generation, keys.snapshot(kept.generation)),
                ("state of the embedder", kept.space, keys.space(kept.space)),
            )
        }
        for name, key in named.items():
            ttl_s = await client.ttl(key)
            if ttl_s > _STAYS:
                flaws.append(f"{name} is in use, yet it expires in {ttl_s} s")
    return CheckedPart("head", 1, tuple(flaws))


async def _check_snapshot(
    client: Redis, keys: CatalogKeys, head: Head, kept: KeptVersion
) -> AsyncIterator[CheckedPart]:
    in_place = kept.generation == head.generation
    packed = await client.hget(keys.snapshot(kept.generation), "header")
    try:
        header = encoding.read_header(cast(bytes | None, packed))
    except CorruptSnapshot as error:
        which = "the tree" if in_place else f"version {kept.version}, which is kept"
        yield CheckedPart("snapshot", 1, (f"{error}, and with it every node of {which}",))
        return
    flaws: list[str] = []
    if header.fingerprint != kept.space or (in_place and header.version != head.snapshot):
        flaws.append(
            f"the head names snapshot {head.snapshot if in_place else kept.version} in the space "
            f"{kept.space!r}, but {header.version} in {header.fingerprint!r} is in its place"
        )
    try:
        state = await client.get(keys.space(header.fingerprint))
        encoding.read_space(header, cast(bytes | None, state))
    except CorruptSnapshot as error:
        flaws.append(str(error))
    yield CheckedPart("snapshot", 1, tuple(flaws))
    async for checked in _check_chunks(client, keys.snapshot(kept.generation), header):
        yield checked


async def _check_chunks(
    client: Redis, key: str, header: encoding.Header
) -> AsyncIterator[CheckedPart]:
    held = 0
    damaged = False
    numbers = iter(range(header.chunks))
    while batch := list(islice(numbers, _CHUNKS_AT_ONCE)):
        chunks = await client.hmget(key, list(map(str, batch)))
        flaws: list[str] = []
        for number, chunk in zip(batch, cast(list[bytes | None], chunks), strict=True):
            try:
                held += encoding.items_in_chunk(header, number, chunk)
            except CorruptSnapshot as error:
                flaws.append(str(error))
        damaged = damaged or bool(flaws)
        yield CheckedPart("snapshot", len(batch), tuple(flaws))
    if damaged:
        lost = f"the places of {header.items - held:,} of {header.items:,} items are missing"
        yield CheckedPart("snapshot", 0, (lost,))


async def _check_log(client: Redis, keys: CatalogKeys, head: Head) -> CheckedPart:
    """Every version from the snapshot's on must have an entry, and follow the one before it."""
    flaws: list[str] = []
    token = await client.hget(keys.snapshot(head.generation), "token")
    before = (cast(bytes | None, token) or b"").decode(errors="replace")
    version, count = head.snapshot, 0
    async for entry in read_entries(client, keys, after=head.snapshot, upto=head.version):
        count += 1
        if entry.version > version + 1:
            flaws.append(_gap(version + 1, entry.version - 1))
        elif entry.after != before:
            flaws.append(f"log entry {entry.version} does not follow version {version}")
        try:
            encoding.read_edits(entry.version, entry.edits)
        except CorruptSnapshot as error:
            flaws.append(str(error))
        version, before = entry.version, entry.token
    if version < head.version:
        flaws.append(_gap(version + 1, head.version))
    elif before != head.token:
        flaws.append(f"version {head.version} of the head is not the one that the log leads to")
    return CheckedPart("log", count, tuple(flaws))


def _gap(first: int, last: int) -> str:
    return (
        f"log entry {first} is missing"
        if first == last
        else f"log entries {first} to {last} are missing"
    )


async def _staged_flaws(store: WritableStore, ids: Collection[str]) -> dict[str, str]:
    """What is wrong with the records of staged items, which are read again."""
    flaws = await store.record_flaws(ids)
    if flaws:
        waiting = {
            item_id async for batch in store.staged_ids() for item_id in batch if item_id in flaws
        }
        flaws = await store.record_flaws(waiting)
    return {item_id: f"{flaw}; it waits for a place" for item_id, flaw in flaws.items()}


async def _strays(store: WritableStore) -> AsyncIterator[CheckedPart]:
    """Records of items that are neither in the tree nor staged: after a lost delete or put."""
    try:
        tree = await store.load()
    except CorruptSnapshot:
        return  # without a tree every record would seem to be one
    async for batch in store.record_ids():
        stray = {item_id for item_id in batch if item_id not in tree}
        if stray:
            async for ids in store.staged_ids():
                stray.difference_update(ids)
        if stray:
            tree = await store.load()
            stray = {item_id for item_id in stray if item_id not in tree}
        gone = await store.record_flaws(stray) if stray else {}
        flaws = [
            f"the record of item {item_id!r} belongs to no item of the tree"
            for item_id in sorted(stray)
            if "is missing" not in gone.get(item_id, "")
        ]
        yield CheckedPart("strays", len(batch), tuple(flaws))
