"""`TrainingEvents`: what the events of training users add to scores, as the service counts them."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from app.rank_weights import RankWeights
from app.signals import evidence
from app.storage.feedback import BACKWARD, FORWARD, WHOLE
from app.tuning.examples import Rows
from tree.vectors import FloatArray, Int8Matrix, cosines

_DISTANCES = tuple(zip(FORWARD, BACKWARD, strict=True))


class TrainingEvents:
    """Counts and neighbours of the items of some histories; see Feedback and Signals.

    Held-out users are not among them, as their events tell what they had next. Lists of neighbours
    are whole, and nothing fades.
    """

    def __init__(self, histories: Sequence[Rows], items: int, shrinkage: float) -> None:
        self._shrinkage = shrinkage
        self._counts = np.bincount(np.concatenate(histories), minlength=items).astype(np.float32)
        self._popular = np.log1p(evidence.of_counts(self._counts))
        self._pairs = _pairs(histories, items)

    def scores(
        self, newest: Rows, vectors: Int8Matrix, scale: FloatArray, weights: RankWeights
    ) -> FloatArray:
        """float32[items]: what is added to each score for a history, newest item first."""
        found = np.float32(weights.popularity_weight) * self._popular
        for age, item in enumerate(newest.tolist()):
            start, stop = self._pairs.indptr[item : item + 2]
            near, pair = self._pairs.indices[start:stop], self._pairs.data[start:stop]
            own = slice(item, item + 1)
            alike = cosines(vectors[near], scale[near], vectors[own], scale[own])[:, 0]
            worth = evidence.of_pairs(
                pair, float(self._counts[item]), self._counts[near], alike, self._shrinkage
            )
            share = weights.cooccurrence_weight * weights.history_decay**age
            found[near] += (share * worth).astype(np.float32)
        return found


def _pairs(histories: Sequence[Rows], items: int) -> csr_array:
    """What the pairs of items weigh, in wholes, by the item of the history: [items, items]."""
    rows, columns, weights = [], [], []
    for distance, (forward, backward) in enumerate(_DISTANCES, 1):
        some = [history for history in histories if len(history) > distance]
        if not some:
            continue
        first = np.concatenate([history[:-distance] for history in some])
        then = np.concatenate([history[distance:] for history in some])
        rows += [first, then]
        columns += [then, first]
        weights += [np.full(len(first), part / WHOLE) for part in (forward, backward)]
    place = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.concatenate(weights), place), (items, items))
