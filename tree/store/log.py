"""Reads the log of a catalogue."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from tree.errors import CorruptSnapshot
from tree.store.head import Head, read_head
from tree.store.keys import CatalogKeys

_ENTRIES_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """The edits that led to a version; a damaged entry may lack them, or have wrong tokens."""

    version: int
    edits: bytes | None
    token: str
    after: str


async def read_entries(
    client: Redis, keys: CatalogKeys, *, after: int, upto: int
) -> AsyncIterator[Entry]:
    """The entries after a version, oldest first; missing ones are left out."""
    while after < upto:
        span = f"{after + 1}-0", f"{upto}-0"
        page = await client.xrange(keys.log, *span, count=_ENTRIES_AT_ONCE)
        for number, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], page):
            after = int(number.partition(b"-")[0])
            token, before = [
                fields.get(name, b"").decode(errors="replace") for name in (b"token", b"after")
            ]
            yield Entry(after, fields.get(b"edits"), token, before)
        if not page:
            return


async def check_reach(client: Redis, keys: CatalogKeys, head: Head) -> None:
    """Raises CorruptSnapshot when the log has newer versions than the head: the head is damaged."""
    newest = await client.xrevrange(keys.log, count=1)
    for number, _ in cast(list[tuple[bytes, dict[bytes, bytes]]], newest):
        logged = int(number.partition(b"-")[0])
        if logged > head.version and (await read_head(client, keys)).token == head.token:
            raise CorruptSnapshot(
                f"the log reaches version {logged}, but the head names version {head.version}"
            )
