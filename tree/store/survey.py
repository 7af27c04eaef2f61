"""A look at everything that the store holds of one catalogue, to name what is damaged."""

from collections.abc import AsyncIterator, Collection
from itertools import islice
from typing import Protocol, cast

from redis.asyncio import Redis

from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.connection import translated
from tree.store.head import Head, Kept, read_head
from tree.store.keys import CatalogKeys
from tree.store.log import check_reach, read_entries
from tree.store.protocol import Looked

_CHUNKS_AT_ONCE = 8
_RECORDS_AT_ONCE = 500
_READS = 5
_STAYS = -1


class Surveyed(Protocol):
    """What a survey asks of the store of the catalogue."""

    async def load(self) -> SemanticTree: ...
    async def flaws(self, ids: Collection[str]) -> dict[str, str]: ...
    def staged(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]: ...


async def survey(client: Redis, keys: CatalogKeys, store: Surveyed) -> AsyncIterator[Looked]:
    """See TreeStore.survey. Flaws that a writer has caused meanwhile are looked at again."""
    async for looked in _versions(client, keys):
        yield looked
    async for ids in store.staged():
        yield Looked("waiting", len(ids), tuple((await _waiting_flaws(store, ids)).values()))
    async for looked in _strays(client, keys, store):
        yield looked


async def recorded(client: Redis, keys: CatalogKeys) -> AsyncIterator[list[str]]:
    """See TreeStore.recorded."""
    stem = keys.item("")
    pages = client.scan_iter(match=f"{stem}*", count=_RECORDS_AT_ONCE)
    while True:
        batch: list[str] = []
        async with translated():
            async for key in pages:
                batch.append(cast(bytes, key).decode(errors="replace").removeprefix(stem))
                if len(batch) == _RECORDS_AT_ONCE:
                    break
        if not batch:
            return
        yield batch


async def _versions(client: Redis, keys: CatalogKeys) -> AsyncIterator[Looked]:
    """Head, snapshot and log; once more when the snapshot was replaced meanwhile."""
    for _ in range(_READS):
        found: list[Looked] = []
        async with translated():
            try:
                head = await read_head(client, keys)
            except CorruptSnapshot as error:
                yield Looked("head", 1, (str(error),))
                return
            found.append(await _look_at_head(client, keys, head))
            for kept in head.versions:
                found += [looked async for looked in _look_at_snapshot(client, keys, head, kept)]
            if head.token:
                found.append(await _look_at_log(client, keys, head))
            now = await read_head(client, keys)
        if now.generation == head.generation or not any(looked.flaws for looked in found):
            for looked in found:
                yield looked
            return
    raise StoreUnavailable(f"the snapshot was replaced {_READS} times while it was read: retry")


async def _look_at_head(client: Redis, keys: CatalogKeys, head: Head) -> Looked:
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
                flaws.append(f"{name} is in use, yet it will vanish in {ttl_s} s")
    return Looked("head", 1, tuple(flaws))


async def _look_at_snapshot(
    client: Redis, keys: CatalogKeys, head: Head, kept: Kept
) -> AsyncIterator[Looked]:
    in_place = kept.generation == head.generation
    packed = await client.hget(keys.snapshot(kept.generation), "header")
    try:
        header = wire.read_header(cast(bytes | None, packed))
    except CorruptSnapshot as error:
        which = "the tree" if in_place else f"version {kept.version}, which is kept"
        yield Looked("snapshot", 1, (f"{error}, and with it every node of {which}",))
        return
    flaws: list[str] = []
    if header.fingerprint != kept.space or (in_place and header.version != head.snapshot):
        flaws.append(
            f"the head names snapshot {head.snapshot if in_place else kept.version} in the space "
            f"{kept.space!r}, but {header.version} in {header.fingerprint!r} is in its place"
        )
    try:
        state = await client.get(keys.space(header.fingerprint))
        wire.read_space(header, cast(bytes | None, state))
    except CorruptSnapshot as error:
        flaws.append(str(error))
    yield Looked("snapshot", 1, tuple(flaws))
    async for looked in _look_at_chunks(client, keys.snapshot(kept.generation), header):
        yield looked


async def _look_at_chunks(client: Redis, key: str, header: wire.Header) -> AsyncIterator[Looked]:
    held = 0
    damaged = False
    numbers = iter(range(header.chunks))
    while batch := list(islice(numbers, _CHUNKS_AT_ONCE)):
        chunks = await client.hmget(key, list(map(str, batch)))
        flaws: list[str] = []
        for number, chunk in zip(batch, cast(list[bytes | None], chunks), strict=True):
            try:
                held += wire.items_in_chunk(header, number, chunk)
            except CorruptSnapshot as error:
                flaws.append(str(error))
        damaged = damaged or bool(flaws)
        yield Looked("snapshot", len(batch), tuple(flaws))
    if damaged:
        lost = f"the places of {header.items - held:,} of {header.items:,} items are missing"
        yield Looked("snapshot", 0, (lost,))


async def _look_at_log(client: Redis, keys: CatalogKeys, head: Head) -> Looked:
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
            wire.read_edits(entry.version, entry.edits)
        except CorruptSnapshot as error:
            flaws.append(str(error))
        version, before = entry.version, entry.token
    if version < head.version:
        flaws.append(_gap(version + 1, head.version))
    elif before != head.token:
        flaws.append(f"version {head.version} of the head is not the one that the log leads to")
    return Looked("log", count, tuple(flaws))


def _gap(first: int, last: int) -> str:
    return (
        f"log entry {first} is missing"
        if first == last
        else f"log entries {first} to {last} are missing"
    )


async def _waiting_flaws(store: Surveyed, ids: Collection[str]) -> dict[str, str]:
    """What is wrong with the records of staged items, after a second look at the few."""
    flaws = await store.flaws(ids)
    if flaws:
        waiting = {
            item_id async for batch in store.staged() for item_id in batch if item_id in flaws
        }
        flaws = await store.flaws(waiting)
    return {item_id: f"{flaw}; it waits for a place" for item_id, flaw in flaws.items()}


async def _strays(client: Redis, keys: CatalogKeys, store: Surveyed) -> AsyncIterator[Looked]:
    """Records of items that are neither in the tree nor waiting: a lost delete, or a lost put."""
    try:
        tree = await store.load()
    except CorruptSnapshot:
        return  # without a tree every record would seem to be one
    async for batch in recorded(client, keys):
        stray = {item_id for item_id in batch if item_id not in tree}
        if stray:
            async for ids in store.staged():
                stray.difference_update(ids)
        if stray:
            tree = await store.load()
            stray = {item_id for item_id in stray if item_id not in tree}
        gone = await store.flaws(stray) if stray else {}
        flaws = [
            f"the record of item {item_id!r} belongs to no item of the tree"
            for item_id in sorted(stray)
            if "is missing" not in gone.get(item_id, "")
        ]
        yield Looked("strays", len(batch), tuple(flaws))
