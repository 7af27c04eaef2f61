"""`Signals`: one catalogue's events as scores."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import chain

import numpy as np

from app.settings import Settings
from app.signals.evidence import Evidence
from tree.errors import StoreUnavailable
from tree.rows import NOWHERE, IntArray, Rows
from tree.snapshot import SemanticTree
from tree.store.feedback import WHOLE, Feedback
from tree.vectors import FloatArray

_SMALL = 2_000  # counts that are read anew whenever they have changed: a millisecond
_PAUSE = 20  # times as long as reading more of them took, until they are read again
_LEAST_PAUSE_S = 1.0
_MOST_SWEEPS = 8  # at once; what is left waits for the next reader

# What the counts of the two items are raised to. The reader's item is normalised more strongly
# than the other, whose popularity counts for something. Chosen on users and events that are not
# evaluated on, as were weight and shrinkage; see `make bench ARGS=signals`.
_OF_HISTORY, _OF_OTHER = 0.75, 0.25


class Signals:
    """What users' events add to a score; nothing where there are none.

    Co-occurrence of the history's item i with another item j, from weights w(i, j) and counts n:

        c(i, j) = w(i, j) / ((n(i) + s)^¾ · (n(j) + s)^¼)

    and the score of j is `cooccurrence_weight` · Σ `history_decay`^age · c(i, j) over the newest
    `history_items`. The shrinkage s = `cooccurrence_shrinkage` is what evidence has to outgrow: a
    pair that one of few users made has next to no weight, one that many made has nearly all.

    Neighbours are read for every request. Counts are kept by this process and may be some seconds
    old; those of up to 2,000 items never are.
    """

    def __init__(self, feedback: Feedback, settings: Settings) -> None:
        self._feedback = feedback
        self._settings = settings
        self._counts: Mapping[str, int] = {}
        self._changes: int | None = None  # at which the counts were read
        self._read_again_at = 0.0
        self._reader: asyncio.Task[None] | None = None
        self._columns: FloatArray = np.zeros(0, np.float32)
        self._columns_of: Rows | None = None
        self._sweeps: set[asyncio.Task[None]] = set()

    async def of(self, tree: SemanticTree, history: Sequence[str]) -> Evidence | None:
        """The evidence for a reader of these items, newest first; None where nobody did anything.

        Raises StoreUnavailable.
        """
        settings = self._settings
        if not settings.cooccurrence_weight and not settings.popularity_weight:
            return None
        newest = list(dict.fromkeys(history))[: settings.history_items]
        if not settings.cooccurrence_weight:
            newest = []
        found = await self._feedback.evidence(newest)
        await self._know(found.changes)
        if not self._counts:
            return None
        column = await self._column(tree)
        return Evidence(column, *self._together(tree, column, newest, found.neighbours))

    async def aclose(self) -> None:
        """Let go of what is still read or swept."""
        tasks = [*self._sweeps, *([self._reader] if self._reader else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- co-occurrence

    def _together(
        self,
        tree: SemanticTree,
        column: FloatArray,
        newest: Sequence[str],
        lists: Sequence[Mapping[str, int]],
    ) -> tuple[IntArray, FloatArray]:
        """Rows of what goes together with the history, ascending, and their scores."""
        settings = self._settings
        names = list(dict.fromkeys(chain.from_iterable(lists)))
        place = {name: at for at, name in enumerate(names)}
        found = [NOWHERE if row is None else row for row in tree.rows_of(names)]
        rows = np.array(found, np.int32)
        total = np.zeros(len(names), np.float64)
        for age, (item, near) in enumerate(zip(newest, lists, strict=True)):
            share = settings.history_decay**age / WHOLE / self._mass(item)
            at = [place[name] for name in near]
            total[at] += share * np.fromiter(near.values(), np.float64, len(near))
        here = rows != NOWHERE
        if not here.all():
            gone = {names[at] for at in np.flatnonzero(~here).tolist()}
            for item, near in zip(newest, lists, strict=True):
                if left := gone.intersection(near):
                    self._sweep(item, left)
        rows, total = rows[here], total[here]
        masses = np.maximum(column[rows], 1) + settings.cooccurrence_shrinkage
        order = np.argsort(rows)
        scores = settings.cooccurrence_weight * total / masses**_OF_OTHER
        return rows[order], scores[order].astype(np.float32)

    def _mass(self, item: str) -> float:
        count = max(1, self._counts.get(item, 0))  # whoever has a neighbour was had once at least
        return float((count + self._settings.cooccurrence_shrinkage) ** _OF_HISTORY)

    def _sweep(self, item: str, gone: Collection[str]) -> None:
        if len(self._sweeps) < _MOST_SWEEPS:
            task = asyncio.create_task(self._swept(item, gone))
            self._sweeps.add(task)
            task.add_done_callback(self._sweeps.discard)

    async def _swept(self, item: str, gone: Collection[str]) -> None:
        try:
            await self._feedback.sweep(item, gone)
        except StoreUnavailable:  # whoever meets them next tries again
            return

    # -- counts

    async def _know(self, changes: int) -> None:
        """Bring the counts up to date, or have them brought."""
        if changes == self._changes:
            return
        small = len(self._counts) <= _SMALL
        if not small and time.monotonic() < self._read_again_at:
            return
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(changes))
        if small:
            await asyncio.shield(self._reader)

    async def _read(self, changes: int) -> None:
        began = time.monotonic()
        counts: dict[str, int] = {}
        try:
            async for page in self._feedback.counts():
                counts.update(page)
        except StoreUnavailable:
            if self._changes is None:
                raise
            return  # older counts will do
        self._counts, self._changes, self._columns_of = counts, changes, None
        took = time.monotonic() - began
        self._read_again_at = time.monotonic() + max(_LEAST_PAUSE_S, _PAUSE * took)

    async def _column(self, tree: SemanticTree) -> FloatArray:
        """The counts by row; rows that came since are added, all others stay what they are."""
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
            column = await asyncio.to_thread(partial(_column_of, tree, counts))
        if self._counts is counts:
            self._columns, self._columns_of = column, rows
        return column


def _column_of(tree: SemanticTree, counts: Mapping[str, int]) -> FloatArray:
    column = np.zeros(tree.size, np.float32)
    for row, count in zip(tree.rows_of(list(counts)), counts.values(), strict=True):
        if row is not None:
            column[row] = count
    return column
