"""`ItemRanks`: at which place the service would rank the item that a user had next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.rank_weights import RankWeights
from app.ranking import WordMix, words_of
from app.settings import Settings
from app.tuning.examples import HeldOutCase
from app.tuning.training_events import TrainingEvents
from tree.beam_search import blend
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix, cosines, inverse_norms

SHOWN = 20
# Gains are decided by this many places: with 20, twice as many cases have the same interval.
DECIDING = 100
_MIX = WordMix()

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What the service ranks by; see the settings of these names."""

    weights: RankWeights
    history_items: int = 10
    inverse_temperature: float = 8.0
    shrinkage: float = 15.0

    @classmethod
    def of(cls, settings: Settings) -> "RankOptions":
        """The options that the settings ask for."""
        return cls(
            settings.rank_weights,
            settings.history_items,
            settings.sharpness,
            settings.cooccurrence_shrinkage,
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """Vectors of the items, int8[items, dimensions], and by what weights are multiplied."""

    vectors: Int8Matrix
    factors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The places of the targets, from 0 on: int64[cases]; and whose cases they are."""

    places: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]

    @property
    def recall(self) -> Floats:
        """1 for each target among the first 20."""
        return (self.places < SHOWN).astype(np.float64)

    def ndcg(self, cutoff: int = SHOWN) -> Floats:
        """NDCG with one target: 1 / log2(place + 2) (Järvelin & Kekäläinen 2002)."""
        return np.where(self.places < cutoff, 1 / np.log2(self.places + 2.0), 0.0)


@dataclass(frozen=True, slots=True)
class RankedTwice:
    """By similarity and words alone, and `served` with the events of training users as well."""

    alone: Ranked
    served: Ranked


class ItemRanks:
    """Ranks by vectors, the words of a tree, and events, as the service does.

    Events of held-out users are left out: they hold what these had next.
    """

    def __init__(
        self, tree: SemanticTree, rows: IntArray, options: RankOptions, events: TrainingEvents
    ) -> None:
        """The items of a case are positions in `rows` of the tree; only these are ranked."""
        self._tree = tree
        self._rows = rows
        self._options = options
        self._events = events

    def of(
        self,
        cases: Sequence[HeldOutCase],
        candidates: Sequence[Candidate],
        watch: Callable[[int], None] = lambda _: None,
    ) -> list[RankedTwice]:
        """The places with each candidate. `watch` is called with 1 for each case."""
        scales = [inverse_norms(one.vectors) for one in candidates]
        weights = [self._options.weights.times(one.factors) for one in candidates]
        places = np.zeros((len(candidates), 2, len(cases)), np.int64)
        for at, case in enumerate(cases):
            newest = case.history[::-1][: self._options.history_items]
            shares = self._options.weights.history_decay ** np.arange(len(newest))
            shares = (shares / shares.sum()).astype(np.float32)
            had = zip(self._rows[newest].tolist(), shares.tolist(), strict=True)
            words = words_of(self._tree, list(had), 1.0, [])
            allowed = np.delete(np.arange(len(self._rows)), case.history)
            rows = self._rows[allowed]
            target = int(np.searchsorted(allowed, case.target))
            given = zip(candidates, scales, weights, places, strict=True)
            for candidate, scale, weigh, place in given:
                vectors = candidate.vectors
                similarity = cosines(vectors, scale, vectors[newest], scale[newest])
                scores = blend(similarity, shares, self._options.inverse_temperature)[allowed]
                words.mix_into(scores, _MIX.times(weigh.exact_words), rows)
                place[0, at] = np.count_nonzero(scores > scores[target])
                scores += self._events.scores(newest, vectors, scale, weigh)[allowed]
                place[1, at] = np.count_nonzero(scores > scores[target])
            watch(1)
        users = np.array([case.user for case in cases], np.int64)
        return [RankedTwice(*(Ranked(row, users) for row in both)) for both in places]
