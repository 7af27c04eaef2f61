"""`Dataset`: a catalogue and what its readers did, whatever files it came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tree.item import Item


class DataError(Exception):
    """A file cannot be evaluated. The message names file, line and what was expected."""


@dataclass(frozen=True, slots=True)
class Impression:
    """What a reader was shown at once, and what of it they chose."""

    shown: tuple[str, ...]
    chosen: frozenset[str]
    seen_before: int  # how many events of the reader came before


@dataclass(frozen=True, slots=True)
class Reader:
    """What one reader did, oldest first, each item once: at its last event."""

    id: str
    history: tuple[str, ...]
    times: tuple[float, ...] = ()  # seconds since the epoch, one per event; or none at all
    profile: str = ""  # a sentence about them, where the data has one
    impressions: tuple[Impression, ...] = ()
    candidates: tuple[str, ...] = ()  # that the data set itself gives to rank, if it does


@dataclass(slots=True)
class Skipped:
    """Rows that were left out: how many for each reason, and where the first of them stood."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count one; `where` is `file:line`."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)


@dataclass(frozen=True, slots=True)
class Dataset:
    """All that is evaluated on. Events of items that the catalogue lacks are left out, counted."""

    name: str
    items: Sequence[Item]
    readers: Sequence[Reader]
    skipped: Skipped
    checksums: dict[str, str]  # SHA-256 of every file that was read, by its name
