"""`Counts`: how many users had each item, kept in memory."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from app.signals import evidence
from app.storage.feedback import Feedback
from tree.errors import StoreUnavailable
from tree.rows import Rows
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray
from tree.worker import SingleFlight, result_of

_SMALL = 2_000  # counts that are read again after every change: a millisecond
_PAUSE = 20  # times as long as reading more of them took, until they are read again
_LEAST_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class CountColumns:
    """The users who had each row's item, and those of them who count for its popularity.

    Both are float32[at least tree.size].
    """

    users: FloatArray
    popular: FloatArray

    @classmethod
    def of(cls, users: FloatArray) -> "CountColumns":
        """The columns for these numbers of users."""
        return cls(users, evidence.of_counts(users))


class Counts:
    """The counts of one catalogue; they may be some seconds old.

    Up to 2,000 of them are always the newest.
    """

    def __init__(self, feedback: Feedback) -> None:
        self._feedback = feedback
        self._counts: Mapping[str, float] = {}
        self._changes: int | None = None  # the number of changes when the counts were read
        self._read_again_at = 0.0
        self._reading = SingleFlight("counts of events", self._read)
        self._asked_at = 0  # the number of changes for which the counts are read
        self._columns = CountColumns.of(np.zeros(0, np.float32))
        self._columns_of: Rows | None = None
        self._column_flight: SingleFlight[FloatArray] | None = None
        self._column_for: tuple[Rows, Mapping[str, float]] | None = None

    def __bool__(self) -> bool:
        return bool(self._counts)

    def of(self, item: str) -> float:
        """The users who had an item; 0 where none is known."""
        return self._counts.get(item, 0.0)

    async def follow(self, changes: int) -> None:
        """Bring the counts up to date: at once when there are few, else in the background.

        Raises StoreUnavailable.
        """
        if changes == self._changes:
            return
        small = len(self._counts) <= _SMALL
        if not small and time.monotonic() < self._read_again_at:
            return
        self._asked_at = changes
        reading = self._reading.begin()
        if small:
            await result_of(reading)

    async def columns(self, tree: SemanticTree) -> CountColumns:
        """The counts by row; new rows are added, all others stay the same."""
        if self._columns_of is tree.rows and len(self._columns.users) >= tree.size:
            return self._columns
        counts, rows = self._counts, tree.rows
        if self._columns_of is rows:
            known = len(self._columns.users)
            new = [counts.get(rows.id(row), 0) for row in range(known, tree.size)]
            users = np.concatenate([self._columns.users, np.array(new, np.float32)])
        elif len(counts) <= _SMALL:
            users = _by_row(tree, counts)
        else:
            users = await result_of(self._by_row_in_thread(tree, counts))
        columns = CountColumns.of(users)
        if self._counts is counts:
            self._columns, self._columns_of = columns, rows
        return columns

    async def aclose(self) -> None:
        """Stop what goes on in the background."""
        await self._reading.aclose()
        if self._column_flight is not None:
            await self._column_flight.aclose()

    async def _read(self) -> None:
        changes, began = self._asked_at, time.monotonic()
        counts: dict[str, float] = {}
        try:
            async for page in self._feedback.counts():
                counts.update({item: count.users for item, count in page.items()})
        except StoreUnavailable:
            if self._changes is None:
                raise
            return  # older counts will do
        self._counts, self._changes, self._columns_of = counts, changes, None
        took = time.monotonic() - began
        self._read_again_at = time.monotonic() + max(_LEAST_PAUSE_S, _PAUSE * took)

    def _by_row_in_thread(
        self, tree: SemanticTree, counts: Mapping[str, float]
    ) -> asyncio.Task[FloatArray]:
        """Concurrent requests share one computation."""
        known = self._column_for
        if (
            self._column_flight is None
            or not known
            or known[0] is not tree.rows
            or known[1] is not counts
        ):
            self._column_for = tree.rows, counts
            work = partial(asyncio.to_thread, _by_row, tree, counts)
            self._column_flight = SingleFlight("counts by row", work)
        return self._column_flight.begin()


def _by_row(tree: SemanticTree, counts: Mapping[str, float]) -> FloatArray:
    column = np.zeros(tree.size, np.float32)
    for row, count in zip(tree.rows_of(list(counts)), counts.values(), strict=True):
        if row is not None:
            column[row] = count
    return column
