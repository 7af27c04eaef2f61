"""`Head`: the newest version of a catalogue and where it is stored, in one hash."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import msgspec
from redis.asyncio import Redis

from tree.errors import CatalogDeleted, CorruptSnapshot
from tree.redis.script import TOMBSTONE
from tree.store.keys import CatalogKeys

_FIELDS = ("version", "token", "generation", "space", "snapshot", "at", "versions")


class KeptVersion(msgspec.Struct, frozen=True):
    """A version that was published whole, and its snapshot."""

    version: int
    items: int
    built_at: float
    note: str
    generation: str
    space: str


@dataclass(frozen=True, slots=True)
class Head:
    """All empty for a catalogue that was never written."""

    version: int
    token: str
    generation: str  # of the snapshot in place
    space: str
    snapshot: int  # the version of that snapshot
    committed_at: float  # seconds since the epoch, by the clock of the store
    versions: tuple[
        KeptVersion, ...
    ]  # the newest first; the snapshot in place is that of the first

    def compacted(self, generation: str) -> tuple[KeptVersion, ...]:
        """The versions, with another snapshot for the one in place."""
        first, *others = self.versions
        return (msgspec.structs.replace(first, generation=generation), *others)


NEVER_WRITTEN = Head(0, "", "", "", 0, 0.0, ())

_decoder = msgspec.json.Decoder(list[KeptVersion])


async def read_head(client: Redis, keys: CatalogKeys) -> Head:
    """Raises CorruptSnapshot when its fields contradict each other, or are of the wrong kind.

    Raises CatalogDeleted.
    """
    fields = await client.hmget(keys.head, [*_FIELDS, TOMBSTONE])
    *texts, kept, deleted = [value or b"" for value in cast(list[bytes | None], fields)]
    if deleted:
        raise CatalogDeleted("the catalogue was deleted")
    try:
        version, token, generation, space, snapshot, at = map(bytes.decode, texts)
        head = Head(
            int(version or 0),
            token,
            generation,
            space,
            int(snapshot or 0),
            int(at or 0) / 1e6,
            tuple(_decoder.decode(kept)) if kept else (),
        )
        _check(head)
    except (ValueError, msgspec.DecodeError) as error:
        raise CorruptSnapshot(f"the head of the catalogue is damaged: {error}") from error
    return head


def _check(head: Head) -> None:
    if not head.token:
        if head != NEVER_WRITTEN:
            raise ValueError("it lacks its token")
    elif not head.versions:
        raise ValueError("it lacks its list of versions")
    elif (head.versions[0].generation, head.versions[0].space) != (head.generation, head.space):
        raise ValueError("its list of versions does not begin with the one in place")


def pack_versions(versions: Sequence[KeptVersion]) -> bytes:
    return msgspec.json.encode(versions)


def generations(versions: Iterable[KeptVersion]) -> set[str]:
    return {kept.generation for kept in versions}


def spaces(versions: Iterable[KeptVersion]) -> set[str]:
    return {kept.space for kept in versions}
