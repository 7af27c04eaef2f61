"""`ItemColumns`: what a build keeps of items. Columns, not objects, and of the texts the titles."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tree.build import Members
from tree.item import Item
from tree.labels import TermRows
from tree.rows import Columns
from tree.terms import TermMatrix
from tree.vectors import Int8Matrix

CategoryPath = tuple[str, ...]
"""The domain of an item, and its categories."""


@dataclass(frozen=True, slots=True)
class PackedStrings:
    """Many strings in one array: each takes some 60 B less than in a list."""

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, strings: Iterable[str]) -> "PackedStrings":
        parts = [text.encode("utf-8", "surrogatepass") for text in strings]
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64))
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    @classmethod
    def joined(cls, batches: Sequence["PackedStrings"]) -> "PackedStrings":
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
class ItemColumns:
    """Some items, or a whole catalogue: entry i of every column belongs to item i."""

    ids: PackedStrings
    titles: PackedStrings  # empty for an item that is not shown
    paths: list[CategoryPath]  # distinct ones
    path: npt.NDArray[np.int32]  # per item, its position in `paths`
    popularity: npt.NDArray[np.float32]
    expires_at: npt.NDArray[np.float64]
    hidden: npt.NDArray[np.bool_]
    lines: npt.NDArray[np.uint8]
    vectors: Int8Matrix
    terms: TermRows  # of labels
    words: TermMatrix

    @classmethod
    def of(
        cls, items: Sequence[Item], vectors: Int8Matrix, terms: TermRows, words: TermMatrix
    ) -> "ItemColumns":
        """`vectors` and `words` have a row for each item, or no rows where none are wanted."""
        paths: dict[CategoryPath, int] = {}
        path = [paths.setdefault((item.domain, *item.categories), len(paths)) for item in items]
        expiry = [item.expires_at.timestamp() if item.expires_at else math.inf for item in items]
        return cls(
            PackedStrings.of(item.id for item in items),
            PackedStrings.of(item.title if item.is_shown() else "" for item in items),
            list(paths),
            np.array(path, np.int32),
            np.array([item.popularity or 0.0 for item in items], np.float32),
            np.array(expiry, np.float64),
            np.array([item.hidden for item in items], np.bool_),
            np.array([item.line_code for item in items], np.uint8),
            vectors,
            terms,
            words,
        )

    @property
    def size(self) -> int:
        return len(self.ids)

    def ordered(self, order: Members) -> Columns:
        """Some items as a tree holds them, in that order."""
        places = order.tolist()
        return Columns(
            [self.ids[at] for at in places],
            self.vectors[order],
            self.popularity[order],
            self.expires_at[order],
            self.hidden[order],
            [self.paths[path][0] for path in self.path[order].tolist()],
            self.lines[order],
            self.words[order],
        )


class ColumnBuilder:
    """Joins batches of items, in their order, to the columns of the whole catalogue."""

    def __init__(self, most: int, *, dimensions: int) -> None:
        """For at most so many items; with no `dimensions` for labels alone, without vectors."""
        self._batches: list[ItemColumns] = []
        self._paths: dict[CategoryPath, int] = {}
        self._path: list[npt.NDArray[np.int32]] = []
        self._vectors = np.empty((most if dimensions else 0, dimensions), np.int8)
        self._size = 0

    def add(self, batch: ItemColumns) -> None:
        """The next items."""
        codes = [self._paths.setdefault(path, len(self._paths)) for path in batch.paths]
        self._path.append(np.array(codes, np.int32)[batch.path])
        stop = self._size + len(batch.vectors)
        self._vectors[self._size : stop] = batch.vectors
        self._size = stop
        copied = replace(batch, paths=[], path=batch.path[:0], vectors=batch.vectors[:0].copy())
        self._batches.append(copied)

    def columns(self) -> ItemColumns | None:
        """All items that were added; None when there were none. The builder is empty then."""
        batches, self._batches = self._batches, []
        if not batches:
            return None
        return ItemColumns(
            PackedStrings.joined([batch.ids for batch in batches]),
            PackedStrings.joined([batch.titles for batch in batches]),
            list(self._paths),
            np.concatenate(self._path),
            np.concatenate([batch.popularity for batch in batches]),
            np.concatenate([batch.expires_at for batch in batches]),
            np.concatenate([batch.hidden for batch in batches]),
            np.concatenate([batch.lines for batch in batches]),
            self._vectors[: self._size],
            TermRows.joined([batch.terms for batch in batches]),
            np.concatenate([batch.words for batch in batches]),
        )
