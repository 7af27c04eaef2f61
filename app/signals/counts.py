"""`Counts`: how many users had each item, kept in memory and faded to the present."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from app.signals import evidence
from app.storage.feedback import Count, Feedback
from tree.errors import StoreUnavailable
from tree.rows import NOWHERE, IntArray, Rows
from tree.scan import off_loop
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray
from tree.worker import SingleFlight, result_of

SMALL = 2_000  # counts that are read again after every change: a millisecond
_PAUSE = 20  # times as long as reading more of them took, until they are read again
_LEAST_PAUSE_S = 1.0
_STEPS = 64  # columns are this part of a half-life old at most: they are 1 % too high at most

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _KnownCounts:
    """The counts as they were read from the store."""

    counts: Mapping[str, Count]

    @cached_property
    def ids(self) -> Sequence[str]:
        return list(self.counts)

    @cached_property
    def users(self) -> _Floats:
        return np.array([count.users for count in self.counts.values()], np.float64)

    @cached_property
    def at(self) -> _Floats:
        return np.array([count.at for count in self.counts.values()], np.float64)

    @cached_property
    def all_time(self) -> _Floats:
        return np.array([count.all_time for count in self.counts.values()], np.float64)


@dataclass(frozen=True, slots=True)
class CountColumns:
    """The counts by row, float32[at least tree.size], as of a moment.

    `all_time` are the users who ever had an item, `faded` those that still count, and `popular`
    what these count for its popularity, and `rising` for what rises now; see `evidence`.
    """

    rows: Rows
    all_time: FloatArray
    faded: FloatArray
    popular: FloatArray
    rising: FloatArray
    as_of: float

    @classmethod
    def of(
        cls, rows: Rows, all_time: FloatArray, faded: FloatArray, as_of: float
    ) -> "CountColumns":
        """The columns for these counts."""
        popular, rising = evidence.of_counts(faded), evidence.of_rising(faded, all_time)
        return cls(rows, all_time, faded, popular, rising, as_of)


class Counts:
    """The counts of one catalogue; they may be some seconds old.

    Up to `newest` of them are always the newest. They fade with `half_life_s`, by the `clock`
    (seconds since the epoch), also while nothing changes.
    """

    def __init__(
        self, feedback: Feedback, newest: int = SMALL, clock: Callable[[], float] = time.time
    ) -> None:
        self._feedback = feedback
        self._newest = newest
        self._clock = clock
        self._half_life_s: float | None = None
        self._known = _KnownCounts({})
        self._changes: int | None = None  # the number of changes when the counts were read
        self._read_again_at = 0.0
        self._reading = SingleFlight("counts of events", self._read)
        self._asked_at = 0  # the number of changes for which the counts are read
        self._columns: CountColumns | None = None
        self._flight: SingleFlight[CountColumns] | None = None
        self._flight_for: tuple[Rows, _KnownCounts, float | None] | None = None

    def __bool__(self) -> bool:
        return bool(self._known.counts)

    def fade(self, half_life_s: float | None) -> None:
        """Let the counts fade with another half-life; None: not at all."""
        if half_life_s != self._half_life_s:
            self._half_life_s, self._columns = half_life_s, None

    def all_time(self, item: str) -> float:
        """The users who ever had an item; 0 where none is known."""
        count = self._known.counts.get(item)
        return 0.0 if count is None else count.all_time

    async def follow(self, changes: int) -> None:
        """Bring the counts up to date: at once when there are few, else in the background.

        Raises StoreUnavailable.
        """
        if changes == self._changes:
            return
        small = len(self._known.counts) <= self._newest
        if not small and time.monotonic() < self._read_again_at:
            return
        self._asked_at = changes
        reading = self._reading.begin()
        if small:
            await result_of(reading)

    async def columns(self, tree: SemanticTree) -> CountColumns:
        """The counts by row; new rows are added, all others stay the same.

        Columns that are only old are served while newer ones are computed.
        """
        now, known = self._clock(), self._columns
        if known is not None and known.rows is tree.rows:
            if len(known.faded) < tree.size:
                known = self._columns = self._extended(known, tree)
            if not self._is_old(known, now):
                return known
            if len(self._known.counts) > self._newest:
                self._begin(tree)
                return known
        if len(self._known.counts) <= self._newest:
            self._columns = _columns_of(tree, self._known, self._half_life_s, now)
            return self._columns
        return await result_of(self._begin(tree))

    async def aclose(self) -> None:
        """Stop what goes on in the background."""
        await self._reading.aclose()
        if self._flight is not None:
            await self._flight.aclose()

    def _is_old(self, columns: CountColumns, now: float) -> bool:
        age, half_life_s = abs(now - columns.as_of), self._half_life_s
        return half_life_s is not None and age > half_life_s / _STEPS

    def _begin(self, tree: SemanticTree) -> asyncio.Task[CountColumns]:
        """Concurrent requests share one computation."""
        wanted = tree.rows, self._known, self._half_life_s
        if self._flight is None or self._flight_for != wanted:
            self._flight_for = wanted
            self._flight = SingleFlight("counts by row", partial(self._computed, tree, *wanted[1:]))
        return self._flight.begin()

    async def _computed(
        self, tree: SemanticTree, known: _KnownCounts, half_life_s: float | None
    ) -> CountColumns:
        work = partial(_columns_of, tree, known, half_life_s, self._clock())
        columns = await off_loop(len(known.counts), work, inline=0)
        if self._known is known and self._half_life_s == half_life_s:
            self._columns = columns
        return columns

    def _extended(self, columns: CountColumns, tree: SemanticTree) -> CountColumns:
        """The columns with the rows that are new."""
        new = [tree.rows.id(row) for row in range(len(columns.faded), tree.size)]
        counts = {item: self._known.counts.get(item, Count(0.0)) for item in new}
        added = _KnownCounts(counts)
        faded = _faded(added, self._half_life_s, columns.as_of)
        return CountColumns.of(
            columns.rows,
            np.concatenate([columns.all_time, added.all_time.astype(np.float32)]),
            np.concatenate([columns.faded, faded.astype(np.float32)]),
            columns.as_of,
        )

    async def _read(self) -> None:
        changes, began = self._asked_at, time.monotonic()
        counts: dict[str, Count] = {}
        try:
            async for page in self._feedback.counts():
                counts.update(page)
        except StoreUnavailable:
            if self._changes is None:
                raise
            return  # older counts will do
        self._known, self._changes, self._columns = _KnownCounts(counts), changes, None
        took = time.monotonic() - began
        self._read_again_at = time.monotonic() + max(_LEAST_PAUSE_S, _PAUSE * took)


def _columns_of(
    tree: SemanticTree, known: _KnownCounts, half_life_s: float | None, now: float
) -> CountColumns:
    rows: IntArray = np.array(
        [NOWHERE if row is None else row for row in tree.rows_of(known.ids)], np.int32
    )
    here = rows != NOWHERE
    all_time, faded = np.zeros((2, tree.size), np.float32)
    all_time[rows[here]] = known.all_time[here]
    faded[rows[here]] = _faded(known, half_life_s, now)[here]
    return CountColumns.of(tree.rows, all_time, faded, now)


def _faded(known: _KnownCounts, half_life_s: float | None, now: float) -> _Floats:
    """What is left of the counts; one without a time has not faded."""
    if half_life_s is None:
        return known.users
    ages = np.where(known.at > 0, np.maximum(now - known.at, 0.0), 0.0)
    left: _Floats = known.users * np.exp2(-ages / half_life_s)
    return left
