"""The head of a catalogue and its log, as they are read."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from tree.errors import CorruptSnapshot
from tree.store.keys import CatalogKeys

_ENTRIES_AT_ONCE = 50
_FIELDS = ["version", "token", "generation", "space", "snapshot"]


@dataclass(frozen=True, slots=True)
class Head:
    """What the catalogue says of itself; all empty when it was never written."""

    version: int = 0
    token: str = ""
    generation: str = ""
    space: str = ""
    snapshot: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What led to a version; a damaged entry may lack its edits, or name other tokens."""

    version: int
    edits: bytes | None
    token: str
    after: str


async def read_head(client: Redis, keys: CatalogKeys) -> Head:
    """Raises CorruptSnapshot when its fields are not even of the right kind."""
    values = cast(list[bytes | None], await client.hmget(keys.head, _FIELDS))
    try:
        version, token, generation, space, snapshot = [(one or b"").decode() for one in values]
        head = Head(int(version or 0), token, generation, space, int(snapshot or 0))
        if not token and head != Head():
            raise ValueError("it lacks its token")
        return head
    except ValueError as error:
        raise CorruptSnapshot(f"the head of the catalogue is damaged: {error}") from error


async def read_entries(
    client: Redis, keys: CatalogKeys, *, after: int, upto: int
) -> AsyncIterator[Entry]:
    """The entries after a version that are there, oldest first."""
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
    """A head that lost its newest fields would pass off an older version as the newest.

    Raises CorruptSnapshot.
    """
    newest = await client.xrevrange(keys.log, count=1)
    for number, _ in cast(list[tuple[bytes, dict[bytes, bytes]]], newest):
        logged = int(number.partition(b"-")[0])
        if logged > head.version and await read_head(client, keys) == head:
            raise CorruptSnapshot(
                f"the log reaches version {logged}, but the head names version {head.version}"
            )
