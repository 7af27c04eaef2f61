"""`Dataset`: a catalogue and the events of its users, in one form for all file formats."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.data_files.files import DataError, Skipped
from tree.item import Item

__all__ = ["DataError", "Dataset", "DatasetUser", "Impression", "Skipped"]


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


@dataclass(frozen=True, slots=True)
class Dataset:
    """Items and users. Events of items that the catalogue lacks are left out and counted."""

    name: str
    items: Sequence[Item]
    users: Sequence[DatasetUser]
    skipped: Skipped
    checksums: dict[str, str]  # SHA-256 of each file that was read, by name
