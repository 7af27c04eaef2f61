"""`Signals`: one catalogue's events as scores."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from app.rank_weights import RankWeights
from app.signals.event_scores import EventScores
from app.storage.feedback import WHOLE, Feedback
from tree.errors import StoreUnavailable
from tree.rows import NOWHERE, IntArray, Rows
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray
from tree.worker import SingleFlight, Worker, result_of

_SMALL = 2_000  # counts that are read again after every change: a millisecond
_PAUSE = 20  # times as long as reading more of them took, until they are read again
_LEAST_PAUSE_S = 1.0
_MOST_SWEEPS = 8  # that wait

# Exponents of the counts of the two items. The item of the history is normalised more strongly than
# the other, so that popular items keep an advantage. Exponents, weight and shrinkage were chosen on
# users and events that no evaluation uses; see `make bench ARGS=signals`.
_OF_HISTORY, _OF_OTHER = 0.75, 0.25


@dataclass(frozen=True, slots=True)
class SignalsConfig:
    """How events are counted; see Signals."""

    cooccurrence_shrinkage: float
    history_items: int


class Signals:
    """What users' events add to a score; nothing while there are no events.

    Co-occurrence of the history's item i with another item j, from weights w(i, j) and counts n:

        c(i, j) = w(i, j) / ((n(i) + s)^¾ · (n(j) + s)^¼)

    and the score of j is `cooccurrence_weight` · Σ `history_decay`^age · c(i, j) over the newest
    `history_items`. The shrinkage s = `cooccurrence_shrinkage` keeps weights of few users small: a
    pair that one of few users made has next to no weight, one that many made has nearly all.

    Neighbours are read for every request. Counts are kept in memory and may be some seconds old;
    up to 2,000 of them are always the newest.
    """

    def __init__(self, feedback: Feedback, config: SignalsConfig) -> None:
        self._feedback = feedback
        self._config = config
        self._counts: Mapping[str, float] = {}
        self._changes: int | None = None  # the number of changes when the counts were read
        self._read_again_at = 0.0
        self._reading = SingleFlight("counts of events", self._read)
        self._asked_at = 0  # the number of changes for which the counts are read
        self._columns: FloatArray = np.zeros(0, np.float32)
        self._columns_of: Rows | None = None
        self._column_flight: SingleFlight[FloatArray] | None = None
        self._column_for: tuple[Rows, Mapping[str, float]] | None = None
        self._sweeps = Worker[tuple[str, frozenset[str]]](
            "removing items that are gone from neighbours",
            self._sweep,
            most=_MOST_SWEEPS,
            full="refuse",  # what is left is found again
        )

    async def of(
        self, tree: SemanticTree, history: Sequence[str], weights: RankWeights
    ) -> EventScores | None:
        """The scores for a user with this history, newest first; None while there are no events.

        Raises StoreUnavailable.
        """
        if not weights.cooccurrence_weight and not weights.popularity_weight:
            return None
        newest = list(dict.fromkeys(history))[: self._config.history_items]
        if not weights.cooccurrence_weight:
            newest = []
        found = await self._feedback.neighbours(newest)
        await self._know(found.changes)
        if not self._counts:
            return None
        column = await self._column(tree)
        rows, scores = self._together(tree, column, newest, found.neighbours, weights)
        return EventScores(column, rows, scores)

    async def aclose(self) -> None:
        """Stop what goes on in the background."""
        await self._sweeps.aclose()
        await self._reading.aclose()
        if self._column_flight is not None:
            await self._column_flight.aclose()

    # -- co-occurrence

    def _together(
        self,
        tree: SemanticTree,
        column: FloatArray,
        newest: Sequence[str],
        lists: Sequence[Mapping[str, int]],
        weights: RankWeights,
    ) -> tuple[IntArray, FloatArray]:
        """Rows of what goes together with the history, ascending, and their scores."""
        names = list(dict.fromkeys(chain.from_iterable(lists)))
        place = {name: at for at, name in enumerate(names)}
        found = [NOWHERE if row is None else row for row in tree.rows_of(names)]
        rows = np.array(found, np.int32)
        total = np.zeros(len(names), np.float64)
        for age, (item, near) in enumerate(zip(newest, lists, strict=True)):
            share = weights.history_decay**age / WHOLE / self._mass(item)
            at = [place[name] for name in near]
            total[at] += share * np.fromiter(near.values(), np.float64, len(near))
        here = rows != NOWHERE
        if not here.all():
            gone = frozenset(names[at] for at in np.flatnonzero(~here).tolist())
            for item, near in zip(newest, lists, strict=True):
                if left := gone.intersection(near):
                    self._sweeps.put([(item, left)])
        rows, total = rows[here], total[here]
        masses = np.maximum(column[rows], 1) + self._config.cooccurrence_shrinkage
        order = np.argsort(rows)
        scores = weights.cooccurrence_weight * total / masses**_OF_OTHER
        return rows[order], scores[order].astype(np.float32)

    def _mass(self, item: str) -> float:
        count = max(1, self._counts.get(item, 0))  # it has neighbours, so it was counted
        return float((count + self._config.cooccurrence_shrinkage) ** _OF_HISTORY)

    async def _sweep(self, some: Sequence[tuple[str, frozenset[str]]]) -> None:
        """An item that is not removed here is found again by a later request."""
        for item, gone in some:
            await self._feedback.sweep(item, gone)

    # -- counts

    async def _know(self, changes: int) -> None:
        """Bring the counts up to date: at once when there are few, else in the background."""
        if changes == self._changes:
            return
        small = len(self._counts) <= _SMALL
        if not small and time.monotonic() < self._read_again_at:
            return
        self._asked_at = changes
        reading = self._reading.begin()
        if small:
            await result_of(reading)

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

    async def _column(self, tree: SemanticTree) -> FloatArray:
        """The counts by row; new rows are added, all others stay the same."""
        if self._columns_of is tree.rows and len(self._columns) >= tree.size:
            return self._columns
        counts, rows = self._counts, tree.rows
        if self._columns_of is rows:
            known = len(self._columns)
            new = [counts.get(rows.id(row), 0) for row in range(known, tree.size)]
            column = np.concatenate([self._columns, np.array(new, np.float32)])
        elif len(counts) <= _SMALL:
            column = _column_of(tree, counts)
        else:
            column = await result_of(self._column_in_thread(tree, counts))
        if self._counts is counts:
            self._columns, self._columns_of = column, rows
        return column

    def _column_in_thread(
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
            work = partial(asyncio.to_thread, _column_of, tree, counts)
            self._column_flight = SingleFlight("counts by row", work)
        return self._column_flight.begin()


def _column_of(tree: SemanticTree, counts: Mapping[str, float]) -> FloatArray:
    column = np.zeros(tree.size, np.float32)
    for row, count in zip(tree.rows_of(list(counts)), counts.values(), strict=True):
        if row is not None:
            column[row] = count
    return column
