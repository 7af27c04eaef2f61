"""Intervals: how far a figure would move if other readers had been asked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from app.evaluation.blas import one_thread
from app.evaluation.metrics.answers import Floats, Ints

RESAMPLES = 1_000
_CHUNK = 50
_LEVELS = (2.5, 97.5)

Weights: TypeAlias = npt.NDArray[np.float32]


class Estimate(msgspec.Struct, frozen=True):
    """A figure, its 95 % interval, and how many cases it rests on."""

    value: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over cases, or a ratio of two means: Σ above / Σ below − offset."""

    above: Floats
    below: Floats
    offset: float = 0.0

    @classmethod
    def of(cls, values: Floats, weights: Floats | None = None) -> "Mean":
        """The mean of the values that are numbers, weighted where weights are given."""
        defined = np.isfinite(values)
        below = np.where(defined, 1.0 if weights is None else weights, 0.0)
        return cls(np.where(defined, values, 0.0) * below, below)

    @classmethod
    def ratio(cls, above: Floats, below: Floats, offset: float = 0.0) -> "Mean":
        """Mean of `above` over mean of `below`, over the cases where both are numbers."""
        both = np.isfinite(above) & np.isfinite(below)
        return cls(np.where(both, above, 0.0), np.where(both, below, 0.0), offset)

    def of_rows(self, rows: Ints) -> "Mean":
        """The same over these cases."""
        return Mean(self.above[rows], self.below[rows], self.offset)

    @property
    def value(self) -> float:
        """nan where nothing is below the line."""
        below = self.below.sum()
        return float(self.above.sum() / below - self.offset) if below > 0 else float("nan")

    @property
    def cases(self) -> int:
        """How many cases count."""
        return int(np.count_nonzero(self.below))


def resamples(cases: int, seed: int, count: int = RESAMPLES) -> Iterator[Weights]:
    """How often each case is drawn, in `count` draws of all cases with replacement.

    In chunks of rows. The same seed draws the same cases: what makes two systems comparable in
    pairs. Efron, "Bootstrap methods", 1979.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - start)
        weights = np.empty((rows, cases), np.float32)
        for row in weights:
            row[:] = np.bincount(rng.integers(0, cases, cases, np.int32), minlength=cases)
        yield weights


def resamples_of(readers: Ints, seed: int, count: int = RESAMPLES) -> Iterator[Weights]:
    """How often each case is drawn when readers are, each with all of their cases."""
    for drawn in resamples(int(readers.max(initial=-1)) + 1, seed, count):
        yield np.ascontiguousarray(drawn[:, readers])


class Stack:
    """Several means over the same cases, ready to be taken in many resamples."""

    def __init__(self, means: Sequence[Mean]) -> None:
        self._columns = len(means)
        self._offsets = np.array([mean.offset for mean in means])
        sides = [mean.above for mean in means] + [mean.below for mean in means]
        self._sums = np.stack(sides, axis=1).astype(np.float32)

    def replicates(self, weights: Weights) -> Floats:
        """Every mean in every resample: resamples × means. nan where a resample defines none."""
        return self._divided(weights @ self._sums)

    def by_part(self, weights: Weights, parts: Sequence[slice]) -> tuple[Floats, list[Floats]]:
        """Over all cases, and over every part. The parts hold each case once."""
        sums = [weights[:, part] @ self._sums[part] for part in parts]
        return self._divided(np.sum(sums, axis=0)), [self._divided(own) for own in sums]

    def _divided(self, sums: Weights) -> Floats:
        above, below = sums[:, : self._columns], sums[:, self._columns :]
        values = np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
        return np.asarray(values - self._offsets, np.float64)


def interval(
    value: float, replicates: Floats, cases: int, *, within: tuple[float, float] | None = None
) -> Estimate:
    """The 95 % percentile interval. Efron and Tibshirani, "An introduction to the bootstrap", 13.

    Figures that count different things (items shown, topics) come with the range that they lie
    `within`, and their replicates are moved so that the mean is the value: a resample repeats
    readers, so it holds fewer different things than the readers did, and plain percentiles would
    lie beside the value.
    """
    found = replicates[np.isfinite(replicates)]
    if not len(found):
        return Estimate(value, value, value, cases)
    low, high = np.percentile(found, _LEVELS)
    if within is not None:
        shift = value - found.mean()
        low, high = np.clip([low + shift, high + shift], *within)
    return Estimate(value, float(min(low, value)), float(max(high, value)), cases)


class Comparison(msgspec.Struct, frozen=True):
    """Two systems on the same cases: how much more the first has, absolutely and relatively."""

    difference: Estimate
    ratio: Estimate | None  # None where the second has nothing

    @property
    def certain(self) -> bool:
        """Whether the interval of the difference leaves zero out."""
        return self.difference.low > 0 or self.difference.high < 0


def compare(
    first: Mapping[str, Mean],
    second: Mapping[str, Mean],
    *,
    seed: int,
    count: int = RESAMPLES,
    readers: Ints | None = None,
) -> dict[str, Comparison]:
    """A paired bootstrap of every metric that both have: the same readers are drawn for both.

    `readers` numbers those of the cases; without it every case is of another.

    Koehn, "Statistical significance tests for machine translation evaluation", 2004.
    Raises ValueError unless both were asked the same number of cases.
    """
    names = [name for name in first if name in second]
    if not names:
        return {}
    cases = len(first[names[0]].above)
    if any(len(second[name].above) != cases for name in names):
        raise ValueError("only systems that were asked the same cases can be compared")
    one, other = [first[name] for name in names], [second[name] for name in names]
    stacks = Stack(one), Stack(other)
    with one_thread():
        replicates = [
            (stacks[0].replicates(weights), stacks[1].replicates(weights))
            for weights in resamples_of(
                np.arange(cases) if readers is None else readers, seed, count
            )
        ]
    ours = np.concatenate([pair[0] for pair in replicates])
    theirs = np.concatenate([pair[1] for pair in replicates])
    return {
        name: _compared(one[column], other[column], ours[:, column], theirs[:, column])
        for column, name in enumerate(names)
        if np.isfinite(one[column].value) and np.isfinite(other[column].value)
    }


def _compared(one: Mean, other: Mean, ours: Floats, theirs: Floats) -> Comparison:
    cases = min(one.cases, other.cases)
    difference = interval(one.value - other.value, ours - theirs, cases)
    if other.value <= 0:
        return Comparison(difference, None)
    quotients = np.where(theirs > 0, ours / np.where(theirs > 0, theirs, 1), np.nan)
    return Comparison(difference, interval(one.value / other.value, quotients, cases))
