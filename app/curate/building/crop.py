"""What a build keeps of a catalogue: columns, not objects, and no text but titles."""

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tree.build import Members
from tree.item import Item
from tree.labels import TermRows
from tree.rows import Columns
from tree.store.wire import pack_item
from tree.vectors import DIMENSIONS, Int8Matrix

Path = tuple[str, ...]


class Source(Protocol):
    """A catalogue as a build reads it, as often as it likes."""

    @property
    def size(self) -> int:
        """How many items there are, or a few more."""
        ...

    def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
        """The records of every `step`-th item by id, in batches and always in the same order."""
        ...


class Listed:
    """A source of items that are at hand, of distinct ids."""

    def __init__(self, items: Iterable[Item], *, batch: int = 1_000) -> None:
        self._records = {item.id: pack_item(item) for item in items}
        self._batch = batch

    @property
    def size(self) -> int:
        """See Source."""
        return len(self._records)

    async def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
        """See Source."""
        records = list(self._records.items())[::step]
        for start in range(0, len(records), self._batch):
            yield dict(records[start : start + self._batch])


@dataclass(frozen=True, slots=True)
class Strings:
    """Many strings in one piece: a list of them takes some 60 B more for each."""

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, strings: Iterable[str]) -> "Strings":
        parts = [text.encode("utf-8", "surrogatepass") for text in strings]
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64))
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    @classmethod
    def joined(cls, batches: Sequence["Strings"]) -> "Strings":
        """The strings of all batches, in order; at least one batch."""
        before = np.cumsum([0, *(len(batch.data) for batch in batches)])
        ends = [batch.ends + start for batch, start in zip(batches, before[:-1], strict=True)]
        return cls(np.concatenate([batch.data for batch in batches]), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, at: int) -> str:
        start = int(self.ends[at - 1]) if at else 0
        return self.data[start : int(self.ends[at])].tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Reading:
    """What is kept of a batch of items: row i of every column is item i."""

    ids: Strings
    titles: Strings
    paths: list[Path]  # distinct ones: domain and categories
    path: npt.NDArray[np.int32]  # per item, its place in `paths`
    popularity: npt.NDArray[np.float32]
    expires_at: npt.NDArray[np.float64]
    hidden: npt.NDArray[np.bool_]
    vectors: Int8Matrix
    terms: TermRows

    @classmethod
    def of(cls, items: Sequence[Item], vectors: Int8Matrix, terms: TermRows) -> "Reading":
        """`vectors` has a row for each item, or no rows where none are wanted."""
        paths: dict[Path, int] = {}
        path = [paths.setdefault((item.domain, *item.categories), len(paths)) for item in items]
        expiry = [item.expires_at.timestamp() if item.expires_at else math.inf for item in items]
        return cls(
            Strings.of(item.id for item in items),
            Strings.of(item.title for item in items),
            list(paths),
            np.array(path, np.int32),
            np.array([item.popularity or 0.0 for item in items], np.float32),
            np.array(expiry, np.float64),
            np.array([item.hidden for item in items], np.bool_),
            vectors,
            terms,
        )


@dataclass(frozen=True, slots=True)
class Crop:
    """A whole catalogue, as `Reading` keeps it."""

    ids: Strings
    titles: Strings
    paths: list[Path]
    path: npt.NDArray[np.int32]
    popularity: npt.NDArray[np.float32]
    expires_at: npt.NDArray[np.float64]
    hidden: npt.NDArray[np.bool_]
    vectors: Int8Matrix
    terms: TermRows

    @property
    def size(self) -> int:
        return len(self.ids)

    def columns(self, order: Members) -> Columns:
        """Some items as a tree holds them, in that order."""
        places = order.tolist()
        return Columns(
            [self.ids[at] for at in places],
            self.vectors[order],
            self.popularity[order],
            self.expires_at[order],
            self.hidden[order],
            [self.paths[path][0] for path in self.path[order].tolist()],
        )


class Harvest:
    """Takes up readings, in the order of the items, until they make a crop."""

    def __init__(self, most: int, *, vectors: bool) -> None:
        """For at most so many items; without `vectors` for labels alone."""
        self._readings: list[Reading] = []
        self._paths: dict[Path, int] = {}
        self._path: list[npt.NDArray[np.int32]] = []
        self._vectors = np.empty((most if vectors else 0, DIMENSIONS), np.int8)
        self._size = 0

    def add(self, reading: Reading) -> None:
        """The next items."""
        codes = [self._paths.setdefault(path, len(self._paths)) for path in reading.paths]
        self._path.append(np.array(codes, np.int32)[reading.path])
        stop = self._size + len(reading.vectors)
        self._vectors[self._size : stop] = reading.vectors
        self._size = stop
        self._readings.append(_without_vectors(reading))

    def crop(self) -> Crop | None:
        """All that was taken up; None when it was nothing. The harvest is empty then."""
        readings, self._readings = self._readings, []
        if not readings:
            return None
        return Crop(
            Strings.joined([reading.ids for reading in readings]),
            Strings.joined([reading.titles for reading in readings]),
            list(self._paths),
            np.concatenate(self._path),
            np.concatenate([reading.popularity for reading in readings]),
            np.concatenate([reading.expires_at for reading in readings]),
            np.concatenate([reading.hidden for reading in readings]),
            self._vectors[: self._size],
            TermRows.joined([reading.terms for reading in readings]),
        )


def _without_vectors(reading: Reading) -> Reading:
    return Reading(
        reading.ids, reading.titles, [], reading.path[:0], reading.popularity, reading.expires_at,
        reading.hidden, reading.vectors[:0].copy(), reading.terms,
    )  # fmt: skip
