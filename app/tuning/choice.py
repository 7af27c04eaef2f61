"""`Tuning`: how strongly an adapter is mixed in, and whether it is used at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from app.embedders import Adapter
from app.tuning.examples import Examples, Half
from app.tuning.trial import Floats, ItemRanks, Ranked
from tree.vectors import FloatArray, Int8Matrix, quantise, unit_rows

MIXES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
_CHOOSING = 500  # cases of each kind that choose among all mixes
_RESAMPLES = 2_000
_LEVELS = (2.5, 97.5)


class Gain(msgspec.Struct, frozen=True):
    """A figure before and after, and the difference with its 95 % interval."""

    before: float
    after: float
    gain: float
    low: float
    high: float


class TuningFigures(msgspec.Struct, frozen=True):
    """How often the next item of held-out users is among the first 20, and how high."""

    cases: int
    recall: Gain
    ndcg: Gain


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was found out. `refusal` says why the adapter is not used; None where it is.

    `known` items stand in histories that the adapter has learned from, `new` ones in none.
    """

    mix: float
    adapter: Adapter | None
    known: TuningFigures | None
    new: TuningFigures | None
    refusal: str | None


def chosen(
    matrix: FloatArray,
    vectors: Int8Matrix,
    examples: Examples,
    ranks: ItemRanks,
    watch: Callable[[int], None] = lambda _: None,
) -> Tuning:
    """Choose the mix on one half of the held-out users, and confirm it on the other one.

    The mix with the best mean of both kinds' NDCG is taken, each relative to no adapter, among
    those with which neither kind loses. On the other half neither kind may lose, and the interval
    of the gain over all cases must lie above 0. `vectors` are those of the items, without
    an adapter; `watch` is called with the number of cases that are ranked.
    """
    before = unit_rows(vectors.astype(np.float32))
    maps = [mixed(matrix, before, mix) for mix in MIXES]
    candidates = [vectors, *(quantise(before @ each) for each in maps[1:])]
    half = examples.choosing
    known = ranks.of(half.known[:_CHOOSING], candidates, watch)
    new = ranks.of(half.cold[:_CHOOSING], candidates, watch)
    best = _best(known, new)
    if not best:
        return Tuning(0.0, None, None, None, "with no strength did it find more on held-out users")
    pair = [vectors, candidates[best]]
    half = examples.confirming
    known, new = ranks.of(half.known, pair, watch), ranks.of(half.cold, pair, watch)
    figures = _figures(*known), _figures(*new)
    whole = _figures(*(_joined(one, other) for one, other in zip(known, new, strict=True)))
    refusal = _refusal(figures, whole)
    adapter = None if refusal else Adapter.of(maps[best], before)
    return Tuning(MIXES[best], adapter, *figures, refusal)


def cases_to_rank(examples: Examples) -> int:
    """How many cases `chosen` ranks."""

    def size(half: Half, most: int | None) -> int:
        return sum(len(cases[:most]) for cases in (half.known, half.cold))

    return size(examples.choosing, _CHOOSING) + size(examples.confirming, None)


def mixed(matrix: FloatArray, vectors: FloatArray, mix: float) -> FloatArray:
    """The map that adds so much of the learned one to the vectors as they are."""
    length = float(np.linalg.norm(vectors @ matrix, axis=1).mean()) or 1.0
    share = np.float32(mix / length)
    found: FloatArray = np.float32(1 - mix) * np.eye(len(matrix), dtype=np.float32) + share * matrix
    return found


def _best(known: Sequence[Ranked], new: Sequence[Ranked]) -> int:
    """The position of the best mix; 0 where none is better than no adapter."""
    values = np.zeros(len(MIXES))
    for kind in known, new:
        recall = np.array([one.recall.mean() for one in kind])
        ndcg = np.array([one.ndcg.mean() for one in kind])
        loses = (recall < recall[0]) | (ndcg < ndcg[0])
        values += np.where(loses, -np.inf, ndcg / ndcg[0] - 1 if ndcg[0] else ndcg)
    return int(values.argmax()) if values.max() > 0 else 0


def _refusal(figures: Sequence[TuningFigures], whole: TuningFigures) -> str | None:
    for kind, of in zip(("known", "new"), figures, strict=True):
        if of.ndcg.gain < 0 or of.recall.gain < 0:
            return f"on other held-out users it finds fewer {kind} items"
    if whole.ndcg.low <= 0:
        return "on other held-out users the gain is not certain"
    return None


def _joined(one: Ranked, other: Ranked) -> Ranked:
    return Ranked(
        np.concatenate([one.places, other.places]), np.concatenate([one.users, other.users])
    )


def _figures(before: Ranked, after: Ranked) -> TuningFigures:
    return TuningFigures(
        len(before.places),
        _gain(before.recall, after.recall, before),
        _gain(before.ndcg, after.ndcg, before),
    )


def _gain(before: Floats, after: Floats, ranked: Ranked) -> Gain:
    """The difference, with the interval of a bootstrap over users (Efron 1979)."""
    _, user = np.unique(ranked.users, return_inverse=True)
    count = np.bincount(user).astype(np.float64)
    total = np.bincount(user, after - before)
    drawn = np.random.default_rng(0).multinomial(
        len(count), [1 / len(count)] * len(count), _RESAMPLES
    )
    low, high = np.percentile((drawn @ total) / (drawn @ count), _LEVELS)
    rounded = (float(before.mean()), float(after.mean()), float((after - before).mean()))
    return Gain(*(round(value, 5) for value in (*rounded, float(low), float(high))))
