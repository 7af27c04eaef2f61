"""`Head`: what a catalogue says of itself, in one hash that every change of it rewrites."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

FIELDS = ("version", "token", "generation", "space", "snapshot", "at", "versions")


class Kept(msgspec.Struct, frozen=True):
    """A version that was published whole, and the snapshot from which it can be had back."""

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
    versions: tuple[Kept, ...]  # the newest first; the snapshot in place is that of the first

    def compacted(self, generation: str) -> tuple[Kept, ...]:
        """The versions, with another snapshot for the one in place."""
        first, *others = self.versions
        return (msgspec.structs.replace(first, generation=generation), *others)


NOTHING = Head(0, "", "", "", 0, 0.0, ())

_decoder = msgspec.json.Decoder(list[Kept])


def read_head(values: Sequence[bytes | None]) -> Head:
    """The head from the values of FIELDS."""
    *texts, kept = [value or b"" for value in values]
    version, token, generation, space, snapshot, at = map(bytes.decode, texts)
    return Head(
        int(version or 0),
        token,
        generation,
        space,
        int(snapshot or 0),
        int(at or 0) / 1e6,
        tuple(_decoder.decode(kept)) if kept else (),
    )


def pack_versions(versions: Sequence[Kept]) -> bytes:
    return msgspec.json.encode(versions)


def generations(versions: Iterable[Kept]) -> set[str]:
    return {kept.generation for kept in versions}


def spaces(versions: Iterable[Kept]) -> set[str]:
    return {kept.space for kept in versions}
