"""`Tuning`: how strongly an adapter is mixed in, whether it is used, and what the rest weighs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from app.embedders import Adapter
from app.tuning.examples import Examples, Half
from app.tuning.trial import DECIDING, Candidate, Floats, ItemRanks, Ranked, RankedTwice
from tree.vectors import FloatArray, Int8Matrix, quantise, unit_rows

MIXES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_FACTORS = (
    *(("exact_words", factor) for factor in (0.0, 0.5, 2.0)),
    *(("cooccurrence_weight", factor) for factor in (0.5, 2.0)),
    *(("popularity_weight", factor) for factor in (0.5, 2.0)),
)
_WORTH_A_CHANGE = 1.02  # of NDCG: chance alone reaches 1.01 with 500 cases and seven trials
_LOSS = 0.99  # of NDCG: less is a loss, not chance
_CHOOSING = 500  # cases of each kind that choose
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
class Confirmed:
    """Figures of users who chose nothing: `known` items stand in histories that were learned from,
    `new` ones in none; `served` are known ones with events.
    """

    known: TuningFigures
    new: TuningFigures
    served: TuningFigures
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was found out. `adapter` is None where nothing is to change, and `refusal` says why.

    `mix` is 0, and `vectors` says why, where only `factors` of weights win.
    """

    mix: float
    adapter: Adapter | None
    factors: Mapping[str, float]
    vectors: Confirmed | None
    weights: Confirmed | None
    refusal: str | None


def chosen(
    matrix: FloatArray,
    vectors: Int8Matrix,
    examples: Examples,
    ranks: ItemRanks,
    watch: Callable[[int], None] = lambda _: None,
) -> Tuning:
    """Choose mix and factors on one half of the held-out users, and confirm them on the other one.

    The mix with the best mean gain of NDCG@100 is taken, over known and new items, both
    without events and with them, among those with which none of the four loses over a hundredth.
    The same for the factors, with these vectors. On the other half none of them may lose more than
    that, all cases together must gain NDCG@20, and the interval of their gain of NDCG@100 must lie
    above 0. `vectors` are those of the items, without an adapter; `watch` is called with the number
    of cases that are ranked.
    """
    before = unit_rows(vectors.astype(np.float32))
    maps = [mixed(matrix, before, mix) for mix in MIXES]
    by_mix = [Candidate(vectors), *(Candidate(quantise(before @ each)) for each in maps[1:])]
    at = _best(_compared(examples.choosing, by_mix, ranks, watch))
    confirmed: Confirmed | None = None
    refusal: str | None = "with no strength did it find more on held-out users"
    if at:
        confirmed = _confirmed(examples.confirming, by_mix[0], by_mix[at], ranks, watch)
        refusal = confirmed.refusal
    if refusal:
        at = 0
    plain = by_mix[at]
    by_factors = [plain, *(Candidate(plain.vectors, {name: by}) for name, by in _FACTORS)]
    choosing = _compared(examples.choosing, by_factors, ranks, watch)
    factors = _joined_factors(choosing)
    weights: Confirmed | None = None
    if factors:
        changed = Candidate(plain.vectors, factors)
        weights = _confirmed(examples.confirming, plain, changed, ranks, watch)
        factors = {} if weights.refusal else factors
    changes = bool(at or factors)
    adapter = Adapter.of(maps[at], before) if changes else None
    return Tuning(MIXES[at], adapter, factors, confirmed, weights, None if changes else refusal)


def cases_to_rank(examples: Examples) -> int:
    """How many cases `chosen` ranks at most."""

    def size(half: Half, most: int | None) -> int:
        return sum(len(cases[:most]) for cases in (half.known, half.cold))

    return 2 * (size(examples.choosing, _CHOOSING) + size(examples.confirming, None))


def mixed(matrix: FloatArray, vectors: FloatArray, mix: float) -> FloatArray:
    """The map that adds so much of the learned one to the vectors as they are."""
    length = float(np.linalg.norm(vectors @ matrix, axis=1).mean()) or 1.0
    share = np.float32(mix / length)
    found: FloatArray = np.float32(1 - mix) * np.eye(len(matrix), dtype=np.float32) + share * matrix
    return found


_Compared = tuple[list[RankedTwice], list[RankedTwice]]


def _compared(
    half: Half, candidates: Sequence[Candidate], ranks: ItemRanks, watch: Callable[[int], None]
) -> _Compared:
    known = ranks.of(half.known[:_CHOOSING], candidates, watch)
    return known, ranks.of(half.cold[:_CHOOSING], candidates, watch)


def _relative(compared: _Compared) -> list[Floats]:
    """The NDCG@100 of each candidate over that of the first, for what must not lose."""
    known, new = compared
    parts = [[one.alone for one in known], [one.alone for one in new]]
    parts += [[one.served for one in known], [one.served for one in new]]
    found = []
    for part in parts:
        values = np.array([one.ndcg(DECIDING).mean() for one in part])
        found.append(values / values[0] if values[0] else values + 1)
    return found


def _best(compared: _Compared) -> int:
    """The position of the best candidate; 0 where none is better than the first."""
    relative = np.stack(_relative(compared))
    values = np.where((relative < _LOSS).any(axis=0), 1.0, relative.mean(axis=0))
    return int(values.argmax())


def _joined_factors(compared: _Compared) -> dict[str, float]:
    """The best value of each factor that is worth a change."""
    known, new, served, new_served = _relative(compared)
    found: dict[str, float] = {}
    best: dict[str, float] = {}
    for at, (name, value) in enumerate(_FACTORS, 1):
        about_words = name == "exact_words"
        loses = new_served[at] < _LOSS or (about_words and min(known[at], new[at]) < _LOSS)
        if not loses and served[at] > max(_WORTH_A_CHANGE, best.get(name, 0.0)):
            found[name], best[name] = value, float(served[at])
    return found


def _confirmed(
    half: Half, before: Candidate, after: Candidate, ranks: ItemRanks, watch: Callable[[int], None]
) -> Confirmed:
    known = ranks.of(half.known, [before, after], watch)
    new = ranks.of(half.cold, [before, after], watch)
    alone = [one.alone for one in known], [one.alone for one in new]
    served, new_served = [one.served for one in known], [one.served for one in new]
    refusal = None
    names = "known items", "new items", "known items with events", "new items with events"
    for name, (first, last) in zip(names, (*alone, served, new_served), strict=True):
        if last.ndcg(DECIDING).mean() < _LOSS * first.ndcg(DECIDING).mean():
            refusal = refusal or f"on other held-out users it finds fewer {name}"
    first, last = (
        Ranked(
            np.concatenate([one[at].places for one in (*alone, served, new_served)]),
            np.concatenate([one[at].users for one in (*alone, served, new_served)]),
        )
        for at in range(2)
    )
    shown = (last.ndcg() - first.ndcg()).mean()
    if shown < 0 or _gain(first.ndcg(DECIDING), last.ndcg(DECIDING), first).low <= 0:
        refusal = refusal or "on other held-out users the gain is not certain"
    return Confirmed(_figures(*alone[0]), _figures(*alone[1]), _figures(*served), refusal)


def _figures(before: Ranked, after: Ranked) -> TuningFigures:
    return TuningFigures(
        len(before.places),
        _gain(before.recall, after.recall, before),
        _gain(before.ndcg(), after.ndcg(), before),
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
