"""`Dataset`: a catalogue and the events of its users, in one form for all file formats."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tree.item import Item


class DataError(Exception):
    """A file cannot be used. The message names the file, the line and what was expected."""


@dataclass(frozen=True, slots=True)
class Impression:
    """Items that were shown to a user together, and those the user chose."""

    shown: tuple[str, ...]
    chosen: frozenset[str]
    seen_before: int  # number of earlier events of the user


@dataclass(frozen=True, slots=True)
class DatasetUser:
    """The events of one user, oldest first. Each item occurs once, at its last event."""

    id: str
    history: tuple[str, ...]
    times: tuple[float, ...] = ()  # seconds since the epoch, one per event; or empty
    profile: str = ""  # a sentence about the user, if the data have one
    impressions: tuple[Impression, ...] = ()
    candidates: tuple[str, ...] = ()  # items to rank, if the data set states them


@dataclass(slots=True)
class Skipped:
    """Rows that were left out: their number for each reason, and the place of the first."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count one; `where` is `file:line`."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def include(self, other: "Skipped") -> None:
        """Add the rows of another file."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.first.setdefault(reason, other.first[reason])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Items and users. Events of items that the catalogue lacks are left out and counted."""

    name: str
    items: Sequence[Item]
    users: Sequence[DatasetUser]
    skipped: Skipped
    checksums: dict[str, str]  # SHA-256 of each file that was read, by name
