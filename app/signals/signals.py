"""`Signals`: one catalogue's events as scores."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from app.rank_weights import RankWeights
from app.signals import evidence
from app.signals.counts import SMALL, Counts
from app.signals.event_scores import EventScores
from app.storage.feedback import WHOLE, Feedback
from tree.rows import NOWHERE, IntArray
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray, cosines
from tree.worker import Worker

_MOST_SWEEPS = 8  # that wait


@dataclass(frozen=True, slots=True)
class SignalsConfig:
    """How events are counted; see Signals."""

    cooccurrence_shrinkage: float
    history_items: int
    newest_counts: int = SMALL  # see Counts
    clock: Callable[[], float] = time.time
    half_life_s: float | None = None  # until `fade` says another one


class Signals:
    """What users' events add to a score; nothing while there are no events.

    The score of an item is `cooccurrence_weight` · Σ `history_decay`^age · what its pair with an
    item of the history is worth, over the newest `history_items`; see `app.signals.evidence`.

    Neighbours are read for every request. Counts are kept in memory; see Counts.
    """

    def __init__(self, feedback: Feedback, config: SignalsConfig) -> None:
        self._feedback = feedback
        self._config = config
        self._counts = Counts(feedback, config.newest_counts, config.clock)
        self._counts.fade(config.half_life_s)
        self._sweeps = Worker[tuple[str, frozenset[str]]](
            "removing items that are gone from neighbours",
            self._sweep,
            most=_MOST_SWEEPS,
            full="refuse",  # what is left is found again
        )

    def fade(self, half_life_s: float | None) -> None:
        """Let popularity fade with another half-life; None: not at all. Pairs do not fade."""
        self._counts.fade(half_life_s)

    async def of(
        self,
        tree: SemanticTree,
        history: Sequence[str],
        weights: RankWeights,
        *,
        rising: bool = False,
    ) -> EventScores | None:
        """The scores for a user with this history, newest first; None while there are no events.

        None, too, where nothing of them counts: neither by the weights, nor what rises now. Raises
        StoreUnavailable.
        """
        if not (weights.cooccurrence_weight or weights.popularity_weight or rising):
            return None
        newest = list(dict.fromkeys(history))[: self._config.history_items]
        if not weights.cooccurrence_weight:
            newest = []
        found = await self._feedback.neighbours(newest)
        await self._counts.follow(found.changes)
        if not self._counts:
            return None
        columns = await self._counts.columns(tree)
        rows, scores = self._together(tree, columns.all_time, newest, found.neighbours, weights)
        return EventScores(columns.popular, rows, scores, rising=columns.rising)

    async def aclose(self) -> None:
        """Stop what goes on in the background."""
        await self._sweeps.aclose()
        await self._counts.aclose()

    def _together(
        self,
        tree: SemanticTree,
        users: FloatArray,
        newest: Sequence[str],
        lists: Sequence[Mapping[str, int]],
        weights: RankWeights,
    ) -> tuple[IntArray, FloatArray]:
        """Rows of what goes together with the history, ascending, and their scores."""
        names = list(dict.fromkeys(chain.from_iterable(lists)))
        place = {name: at for at, name in enumerate(names)}
        rows = _rows_of(tree, names)
        here = rows != NOWHERE
        counts = np.where(here, users[rows], np.float32(0))
        alike = _cosines(tree, rows, newest)
        total = np.zeros(len(names), np.float64)
        for age, (item, near) in enumerate(zip(newest, lists, strict=True)):
            at = np.array([place[name] for name in near], np.int64)
            total[at] += weights.history_decay**age * evidence.of_pairs(
                np.fromiter(near.values(), np.float64, len(near)) / WHOLE,
                self._counts.all_time(item),
                counts[at],
                alike[at, age],
                self._config.cooccurrence_shrinkage,
            )
        if not here.all():
            gone = frozenset(names[at] for at in np.flatnonzero(~here).tolist())
            for item, near in zip(newest, lists, strict=True):
                if left := gone.intersection(near):
                    self._sweeps.put([(item, left)])
        rows, total = rows[here], total[here]
        order = np.argsort(rows)
        scores = weights.cooccurrence_weight * total
        return rows[order], scores[order].astype(np.float32)

    async def _sweep(self, some: Sequence[tuple[str, frozenset[str]]]) -> None:
        """An item that is not removed here is found again by a later request."""
        for item, gone in some:
            await self._feedback.sweep(item, gone)


def _rows_of(tree: SemanticTree, items: Sequence[str]) -> IntArray:
    """The row of each item, or NOWHERE."""
    found = [NOWHERE if row is None else row for row in tree.rows_of(list(items))]
    return np.array(found, np.int32)


def _cosines(tree: SemanticTree, rows: IntArray, items: Sequence[str]) -> FloatArray:
    """float32[rows, items]: how alike they are; 0 for an item that the tree does not hold."""
    mine = _rows_of(tree, items)
    vectors, scale = tree.rows.vectors, tree.rows.scale
    found = cosines(vectors[rows], scale[rows], vectors[mine], scale[mine])
    found[:, mine == NOWHERE] = 0
    return found
