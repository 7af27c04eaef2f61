"""`ItemRanks`: at which place the service would rank the item that a user had next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.ranking import WordMix, words_of
from app.tuning.examples import HeldOutCase
from tree.beam_search import blend
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix, cosines, inverse_norms

CUTOFF = 20
_MIX = WordMix()

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What the service ranks by; see the settings of these names."""

    history_items: int = 10
    history_decay: float = 0.8
    inverse_temperature: float = 8.0
    exact_words: float = 1.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """The places of the targets, from 0 on: int64[cases]; and whose cases they are."""

    places: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]

    @property
    def recall(self) -> Floats:
        """1 for each target among the first 20."""
        return (self.places < CUTOFF).astype(np.float64)

    @property
    def ndcg(self) -> Floats:
        """NDCG@20 with one target: 1 / log2(place + 2) (Järvelin & Kekäläinen 2002)."""
        return np.where(self.places < CUTOFF, 1 / np.log2(self.places + 2.0), 0.0)


class ItemRanks:
    """Ranks by the similarity of some vectors and by the words of a tree, as the service does.

    Events of others are left out: they hold what the held-out users did.
    """

    def __init__(self, tree: SemanticTree, rows: IntArray, options: RankOptions) -> None:
        """The items of a case are positions in `rows` of the tree; only these are ranked."""
        self._tree = tree
        self._rows = rows
        self._options = options

    def of(
        self,
        cases: Sequence[HeldOutCase],
        vectors: Sequence[Int8Matrix],
        watch: Callable[[int], None] = lambda _: None,
    ) -> list[Ranked]:
        """The places with each of `vectors`, which are int8[rows, dimensions]."""
        scales = [inverse_norms(some) for some in vectors]
        places = np.zeros((len(vectors), len(cases)), np.int64)
        for at, case in enumerate(cases):
            newest = case.history[::-1][: self._options.history_items]
            weights = self._options.history_decay ** np.arange(len(newest))
            shares = (weights / weights.sum()).astype(np.float32)
            had = zip(self._rows[newest].tolist(), shares.tolist(), strict=True)
            words = words_of(self._tree, list(had), 1.0, [])
            allowed = np.delete(np.arange(len(self._rows)), case.history)
            rows = self._rows[allowed]
            target = int(np.searchsorted(allowed, case.target))
            for some, (matrix, scale) in enumerate(zip(vectors, scales, strict=True)):
                similarity = cosines(matrix, scale, matrix[newest], scale[newest])
                scores = blend(similarity, shares, self._options.inverse_temperature)[allowed]
                words.mix_into(scores, _MIX.times(self._options.exact_words), rows)
                places[some, at] = np.count_nonzero(scores > scores[target])
            watch(1)
        users = np.array([case.user for case in cases], np.int64)
        return [Ranked(row, users) for row in places]
