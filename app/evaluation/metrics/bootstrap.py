"""Bootstrap intervals: how far a figure would move with other users."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from app.evaluation.metrics.answers import Floats, Ints
from tree.blas import use_one_blas_thread

RESAMPLES = 1_000
_CHUNK = 50
_LEVELS = (2.5, 97.5)

Weights: TypeAlias = npt.NDArray[np.float32]


class MetricEstimate(msgspec.Struct, frozen=True):
    """A figure, its 95 % interval, and the number of cases."""

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
        """The mean of the finite values, weighted where weights are given."""
        defined = np.isfinite(values)
        below = np.where(defined, 1.0 if weights is None else weights, 0.0)
        return cls(np.where(defined, values, 0.0) * below, below)

    @classmethod
    def ratio(cls, above: Floats, below: Floats, offset: float = 0.0) -> "Mean":
        """Mean of `above` over mean of `below`, over the cases where both are finite."""
        both = np.isfinite(above) & np.isfinite(below)
        return cls(np.where(both, above, 0.0), np.where(both, below, 0.0), offset)

    @classmethod
    def joined(cls, parts: "Sequence[Mean]") -> "Mean":
        """The mean over the cases of several means, in their order."""
        above = np.concatenate([part.above for part in parts])
        return cls(above, np.concatenate([part.below for part in parts]), parts[0].offset)

    def of_rows(self, rows: Ints) -> "Mean":
        """The mean over some cases only."""
        return Mean(self.above[rows], self.below[rows], self.offset)

    @property
    def value(self) -> float:
        """The mean; nan where the sum of `below` is 0."""
        below = self.below.sum()
        return float(self.above.sum() / below - self.offset) if below > 0 else float("nan")

    @property
    def cases(self) -> int:
        """The number of cases that count."""
        return int(np.count_nonzero(self.below))


def resamples(cases: int, seed: int, count: int = RESAMPLES) -> Iterator[Weights]:
    """How often each case is drawn, in `count` draws of all cases with replacement.

    Yields chunks of rows. The same seed draws the same cases, so that two systems can be compared
    in pairs. Efron, "Bootstrap methods", 1979.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - start)
        weights = np.empty((rows, cases), np.float32)
        for row in weights:
            row[:] = np.bincount(rng.integers(0, cases, cases, np.int32), minlength=cases)
        yield weights


def resamples_of(users: Ints, seed: int, count: int = RESAMPLES) -> Iterator[Weights]:
    """How often each case is drawn when users are drawn, each with all of their cases."""
    for drawn in resamples(int(users.max(initial=-1)) + 1, seed, count):
        yield np.ascontiguousarray(drawn[:, users])


class Stack:
    """Several means over the same cases, prepared for many resamples."""

    def __init__(self, means: Sequence[Mean]) -> None:
        self._columns = len(means)
        self._offsets = np.array([mean.offset for mean in means])
        sides = [mean.above for mean in means] + [mean.below for mean in means]
        self._sums = np.stack(sides, axis=1).astype(np.float32)

    def replicates(self, weights: Weights) -> Floats:
        """Each mean in each resample: resamples × means; nan where it is undefined."""
        return self._divided(weights @ self._sums)

    def by_part(self, weights: Weights, parts: Sequence[slice]) -> tuple[Floats, list[Floats]]:
        """The means over all cases, and over each part. Each case is in one part."""
        sums = [weights[:, part] @ self._sums[part] for part in parts]
        return self._divided(np.sum(sums, axis=0)), [self._divided(part_sums) for part_sums in sums]

    def _divided(self, sums: Weights) -> Floats:
        above, below = sums[:, : self._columns], sums[:, self._columns :]
        values = np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
        return np.asarray(values - self._offsets, np.float64)


def interval(
    value: float, replicates: Floats, cases: int, *, within: tuple[float, float] | None = None
) -> MetricEstimate:
    """The 95 % percentile interval. Efron and Tibshirani, "An introduction to the bootstrap", 13.

    For figures that count distinct things (items shown, topics), `within` is their range. Their
    replicates are moved so that the mean is the value: a resample repeats users and so has fewer
    distinct things than the data, and plain percentiles would not contain the value.
    """
    found = replicates[np.isfinite(replicates)]
    if not len(found):
        return MetricEstimate(value, value, value, cases)
    low, high = np.percentile(found, _LEVELS)
    if within is not None:
        shift = value - found.mean()
        low, high = np.clip([low + shift, high + shift], *within)
    return MetricEstimate(value, float(min(low, value)), float(max(high, value)), cases)


class PairedComparison(msgspec.Struct, frozen=True):
    """Two systems on the same cases: the first minus the second, and the first over the second."""

    difference: MetricEstimate
    ratio: MetricEstimate | None  # None where the second is 0

    @property
    def certain(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.difference.low > 0 or self.difference.high < 0


def compare(
    first: Mapping[str, Mean],
    second: Mapping[str, Mean],
    *,
    seed: int,
    count: int = RESAMPLES,
    users: Ints | None = None,
) -> dict[str, PairedComparison]:
    """A paired bootstrap of each metric that both have: the same users are drawn for both.

    `users` is the number of the user of each case; without it, each case has its own user.

    Koehn, "Statistical significance tests for machine translation evaluation", 2004.
    Raises ValueError unless both have the same number of cases.
    """
    names = [name for name in first if name in second]
    if not names:
        return {}
    cases = len(first[names[0]].above)
    if any(len(second[name].above) != cases for name in names):
        raise ValueError("only systems with the same cases can be compared")
    one, other = [first[name] for name in names], [second[name] for name in names]
    stacks = Stack(one), Stack(other)
    use_one_blas_thread()
    replicates = [
        (stacks[0].replicates(weights), stacks[1].replicates(weights))
        for weights in resamples_of(np.arange(cases) if users is None else users, seed, count)
    ]
    ours = np.concatenate([pair[0] for pair in replicates])
    theirs = np.concatenate([pair[1] for pair in replicates])
    return {
        name: _compared(one[column], other[column], ours[:, column], theirs[:, column])
        for column, name in enumerate(names)
        if np.isfinite(one[column].value) and np.isfinite(other[column].value)
    }


def _compared(one: Mean, other: Mean, ours: Floats, theirs: Floats) -> PairedComparison:
    cases = min(one.cases, other.cases)
    difference = interval(one.value - other.value, ours - theirs, cases)
    if other.value <= 0:
        return PairedComparison(difference, None)
    quotients = np.where(theirs > 0, ours / np.where(theirs > 0, theirs, 1), np.nan)
    return PairedComparison(difference, interval(one.value / other.value, quotients, cases))
