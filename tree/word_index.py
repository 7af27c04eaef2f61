"""`WordIndex`: the terms of all rows, and which rows have a word.

The terms are a column like those of `Rows`. Beside it stand segments, each of which lists the rows
of a span word by word; the newest rows are in no segment yet and are read from the column. Rows are
only ever added, so a segment never changes: readers need no lock.

Memory per row: 48 B terms, 2 B a term in a segment, and 8 B for each word that a segment has.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tree.terms import (
    ROW_BYTES,
    Buckets,
    FloatArray,
    TermMatrix,
    WordShares,
    idf,
    read_terms,
)

_SPAN = 2**16  # rows of a segment at most: their numbers within it take 2 bytes
_JOINED = 2**14  # that small ones are joined to: sorting these takes some 10 ms
_UNINDEXED = 256  # rows that are read from the column
_COUNTED = 2**18  # rows of a tree up to which sums over all rows are faster than a sort

IntArray = npt.NDArray[np.int32]
_NOBODY = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class WordQuery:
    """Words that are looked for, and what each of them counts."""

    buckets: Buckets  # ascending, distinct
    values: FloatArray

    @classmethod
    def none(cls) -> "WordQuery":
        """No words."""
        return cls(np.zeros(0, np.uint32), np.zeros(0, np.float32))

    @property
    def is_empty(self) -> bool:
        return not len(self.buckets)

    def values_of(self, buckets: Buckets) -> FloatArray:
        """What each of some words counts; 0 for a word that is not looked for."""
        found = np.zeros(buckets.shape, np.float32)
        if self.is_empty:
            return found
        # A look-up in a small table leaves few words for the binary search, which takes longer.
        likely = np.zeros(_SPAN, np.bool_)
        likely[self.buckets % _SPAN] = True
        there = np.nonzero(likely[buckets % _SPAN])
        some = buckets[there]
        at = np.minimum(np.searchsorted(self.buckets, some), len(self.buckets) - 1)
        found[there] = np.where(self.buckets[at] == some, self.values[at], np.float32(0))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _IndexedSpan:
    """The rows from `start` to before `stop`, word by word."""

    start: int
    stop: int
    buckets: Buckets  # ascending, distinct
    ends: npt.NDArray[np.uint32]  # of the rows of each word, after a 0
    rows: npt.NDArray[np.uint16]  # counted from `start`

    @classmethod
    def of(cls, terms: TermMatrix, start: int, stop: int) -> "_IndexedSpan":
        buckets, weights = read_terms(terms[start:stop])
        row, place = np.nonzero(weights)
        pairs = np.sort(buckets[row, place].astype(np.uint64) << np.uint64(16) | row.astype("u8"))
        owners = (pairs >> np.uint64(16)).astype(np.uint32)
        starts = np.flatnonzero(np.diff(owners, prepend=np.uint32(2**32 - 1)))
        ends = np.append(starts, len(owners)).astype(np.uint32)
        return cls(start, stop, owners[starts], ends, pairs.astype(np.uint16))

    @property
    def size(self) -> int:
        return self.stop - self.start

    def bounds(self, buckets: Buckets) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where the rows of each word start and end in `rows`."""
        if not len(self.buckets):
            return np.zeros(len(buckets), np.int64), np.zeros(len(buckets), np.int64)
        at = np.minimum(np.searchsorted(self.buckets, buckets), len(self.buckets) - 1)
        there = self.buckets[at] == buckets
        starts = self.ends[at].astype(np.int64)
        return starts, np.where(there, self.ends[at + 1], starts).astype(np.int64)

    def listed(
        self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """The rows at these places, one run after the other, as rows of the tree."""
        shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return self.rows[shift + np.arange(len(shift))].astype(np.int64) + self.start


class WordIndex:
    """The terms of rows, one writer and any number of readers; see the module."""

    def __init__(self, capacity: int, common: WordShares | None = None) -> None:
        self.common = common or WordShares.none()
        self.terms: TermMatrix = np.zeros((capacity, ROW_BYTES), np.uint8)
        self._segments: tuple[_IndexedSpan, ...] = ()
        self._dead: Counter[int] = Counter()  # dead rows by word
        self._dead_rows = 0

    def put(self, start: int, stop: int, terms: TermMatrix | None) -> None:
        """The terms of new rows; None: they have none. `publish` must follow before a search."""
        if stop > len(self.terms):
            larger = np.zeros((stop + stop // 8 + 64, ROW_BYTES), np.uint8)
            larger[:start] = self.terms[:start]
            self.terms = larger
        self.terms[start:stop] = 0 if terms is None else terms

    def publish(self, size: int, gone: npt.NDArray[np.integer] = _NOBODY) -> None:
        """Put the rows up to `size` into segments; the rows `gone` are dead and no longer count.

        A small segment is joined with the one before when that is not larger, so that there are
        few, and a row is sorted a few times only.
        """
        buckets, weights = read_terms(self.terms[gone])
        self._dead.update(buckets[weights > 0].tolist())
        self._dead_rows += len(gone)
        segments = list(self._segments)
        start = segments[-1].stop if segments else 0
        if size - start < _UNINDEXED:
            return
        while start < size:
            stop = min(size, start + _SPAN)
            while segments and segments[-1].size <= stop - start <= _JOINED - segments[-1].size:
                start = segments.pop().start
            segments.append(_IndexedSpan.of(self.terms, start, stop))
            start = stop
        self._segments = tuple(segments)

    def idf(self, buckets: Buckets, size: int) -> FloatArray:
        """How telling words are among the live rows; see `tree.terms.idf`."""
        return idf(self.shares(buckets, size), size - self._dead_rows)

    def shares(self, buckets: Buckets, size: int) -> FloatArray:
        """The share of the live rows that have each word, of common words an estimate.

        Dead rows are left out, so that a process that has some answers like one that has none.
        """
        counts = -self._buried(buckets)
        segments = self._segments
        for segment in segments:
            starts, ends = segment.bounds(buckets)
            counts += ends - starts
        newest = np.sort(self._unindexed(segments, size)[0], axis=None)
        counts += np.searchsorted(newest, buckets, side="right")
        counts -= np.searchsorted(newest, buckets, side="left")
        shares = np.clip(counts / max(size - self._dead_rows, 1), 0, 1).astype(np.float32)
        return np.maximum(shares, self.common.of(buckets))

    def matches(self, query: WordQuery, size: int, most: int) -> tuple[IntArray, FloatArray]:
        """Rows below `size` with words of the query, ascending, and the sum of what these count.

        At most `most` pairs of word and row are read, rare words first, so that a query costs no
        more in a larger catalogue. Dead rows are among the result.
        """
        segments = self._segments
        bounds = [segment.bounds(query.buckets) for segment in segments]
        counts = -self._buried(query.buckets)
        for starts, ends in bounds:
            counts += ends - starts
        rows, sums = self._newest(query, segments, size)
        if segments:
            order = np.argsort(counts, kind="stable")
            chosen = order[np.cumsum(counts[order]) <= most]
            found = [(rows, sums)]
            for segment, (starts, ends) in zip(segments, bounds, strict=True):
                lengths = (ends - starts)[chosen]
                listed = segment.listed(starts[chosen], lengths)
                found.append((listed, np.repeat(query.values[chosen], lengths)))
            rows = np.concatenate([part for part, _ in found])
            sums = np.concatenate([part for _, part in found])
            rows, sums = rows[rows < size], sums[rows < size]
        return _totals(rows, sums, size)

    def _buried(self, buckets: Buckets) -> npt.NDArray[np.int64]:
        """How many dead rows have each word."""
        dead = self._dead
        return np.array([dead.get(one, 0) for one in buckets.tolist()], np.int64)

    def weighted(self, query: WordQuery, rows: npt.NDArray[np.integer]) -> FloatArray:
        """float32[rows]: the sum of what the words of each row count, times their weights."""
        buckets, weights = read_terms(self.terms[rows])
        return (query.values_of(buckets) * weights).sum(axis=1, dtype=np.float32)

    def covered(self, query: WordQuery, rows: npt.NDArray[np.integer]) -> FloatArray:
        """float32[rows]: the sum of what the words of each row count."""
        buckets, weights = read_terms(self.terms[rows])
        return (query.values_of(buckets) * (weights > 0)).sum(axis=1, dtype=np.float32)

    def _unindexed(self, segments: tuple[_IndexedSpan, ...], size: int) -> tuple[Buckets, int]:
        """The hashes of the rows that are in none of the segments, and the first of the rows."""
        start = segments[-1].stop if segments else 0
        buckets, weights = read_terms(self.terms[start:size])
        return np.where(weights > 0, buckets, np.uint32(2**32 - 1)), start

    def _newest(
        self, query: WordQuery, segments: tuple[_IndexedSpan, ...], size: int
    ) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Of the rows that are in no segment: those with a word of the query, and the sums."""
        buckets, start = self._unindexed(segments, size)
        sums = query.values_of(buckets).sum(axis=1, dtype=np.float32)
        there = np.flatnonzero(sums)
        return there + start, sums[there]


def _totals(
    rows: npt.NDArray[np.int64], values: FloatArray, size: int
) -> tuple[IntArray, FloatArray]:
    """The distinct rows, ascending, and the sum of the values of each."""
    if size <= _COUNTED:
        totals = np.bincount(rows, values).astype(np.float32)
        touched = np.flatnonzero(totals)
        return touched.astype(np.int32), totals[touched]
    order = np.argsort(rows, kind="stable")
    rows, values = rows[order], values[order]
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    if not len(first):
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    return rows[first].astype(np.int32), np.add.reduceat(values, first)
