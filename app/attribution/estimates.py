"""Rates with intervals, from sums over buckets of users; and a test that may be looked at daily."""

import math
from statistics import NormalDist
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Verdict: TypeAlias = Literal["better", "worse", "open"]

LEVEL = 0.95
_TUNED_FOR = 10_000  # lists of a variant at which the sequence is narrowest
_LEAST_LISTS, _LEAST_EVENTS, _LEAST_BUCKETS = 200, 20, 16  # for a sequence to say anything

_PRIOR = 8  # buckets with events, as whose error that of the other variant counts


class Estimate(msgspec.Struct, frozen=True):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Ratio(msgspec.Struct, frozen=True):
    """A ratio of two sums, its standard error, and the number of buckets that it comes from.

    Users are the units: one has many lists, which are alike. Each bucket holds the sums of the
    users whose id has one hash, so the buckets are independent, and the error is that of a ratio
    estimator over them: with R = ΣY / ΣX and B buckets

        se² = B / (B − 1) · Σ (Yᵦ − R·Xᵦ)² / (ΣX)²

    Cochran, "Sampling Techniques", 3rd ed. 1977, ch. 6; Deng, Knoblich and Lu, "Applying the delta
    method in metric analytics", KDD 2018.
    """

    value: float
    error: float
    buckets: int
    above: float
    below: float
    filled: int  # buckets in which something has happened

    @classmethod
    def of(cls, above: Floats, below: Floats) -> "Ratio | None":
        """The ratio of the sums over float64[buckets]; None where nothing is below."""
        total, held = float(below.sum()), int(np.count_nonzero(below))
        if total <= 0:
            return None
        sums = float(above.sum()), total, int(np.count_nonzero(above))
        value = sums[0] / total
        if held < 2:  # nothing is known of how buckets differ
            return cls(value, math.inf, held, *sums)
        squares = float(np.square(above - value * below).sum())
        error = math.sqrt(squares * held / (held - 1)) / total
        return cls(value, error, held, *sums)

    @property
    def interval(self) -> Estimate | None:
        """The interval of a rate that is not below zero; None where there are too few buckets.

        Where nothing has happened, or the same in all buckets, there is no error to see: the
        interval is that of a proportion.
        """
        if not math.isfinite(self.error):
            return None
        if self.error == 0:
            return self.proportion if self.value <= 1 else None
        width = quantile(self.buckets - 1) * self.error
        return Estimate(self.value, max(0.0, self.value - width), self.value + width)

    @property
    def proportion(self) -> Estimate | None:
        """The interval of a share, within 0 … 1.

        Wilson 1927, with the number of independent cases that would have the same error (Kish,
        "Survey Sampling", 1965); where nothing or everything has happened, as many as buckets.
        """
        p = self.value
        if p > 1:  # clicks without impressions
            return self.interval
        if not math.isfinite(self.error):
            cases = 1.0
        elif self.error > 0:
            cases = min(self.below, p * (1 - p) / self.error**2) or 1.0
        else:
            cases = float(self.buckets)
        return wilson(p, cases, quantile(max(1, self.buckets - 1)))


def wilson(p: float, cases: float, z: float) -> Estimate:
    """The interval of a proportion. Wilson, "Probable inference", JASA 22, 1927."""
    middle = (p + z * z / (2 * cases)) / (1 + z * z / cases)
    width = z / (1 + z * z / cases) * math.sqrt(p * (1 - p) / cases + z * z / (4 * cases**2))
    return Estimate(p, max(0.0, min(p, middle - width)), min(1.0, max(p, middle + width)))


class Difference(msgspec.Struct, frozen=True):
    """A variant's rate minus the control's.

    `interval` is for one look that was planned. `sequence` may be looked at every day: see
    `sequence_of`. `verdict` is what it says. `relative` is the difference over the control's rate.
    """

    value: float
    relative: float | None
    interval: Estimate | None
    sequence: Estimate | None
    verdict: Verdict

    @classmethod
    def of(
        cls,
        variant: Ratio,
        control: Ratio,
        lists: tuple[float, float],
        comparisons: int = 1,
    ) -> "Difference":
        """The difference; `lists` are those of the variant and of the control.

        With several variants each is compared at a part of the error (Bonferroni).
        """
        value = variant.value - control.value
        relative = value / control.value if control.value else None
        error = error_between(variant, control)
        if not math.isfinite(error):
            return cls(value, relative, None, None, "open")
        width = quantile(variant.buckets + control.buckets - 2) * error
        fixed = Estimate(value, value - width, value + width)
        sequence = sequence_of(variant, control, lists, comparisons)
        verdict: Verdict = "open"
        if sequence is not None and sequence.low > 0:
            verdict = "better"
        elif sequence is not None and sequence.high < 0:
            verdict = "worse"
        return cls(value, relative, fixed, sequence, verdict)


def error_between(one: Ratio, other: Ratio) -> float:
    """The standard error of the difference of two ratios; infinite where nothing is known of it.

    Of few events the error is uncertain, and of none it is zero. So that of the lower ratio is
    averaged with the error that it would have if its rate were that of both together (as in the
    test of two proportions with a pooled rate), and its events as uneven as those of the higher:

        se² = (f·se₂² + 8·se₁² · X₁/X₂ · R/R₁) / (f + 8)

    with ₁ for the higher ratio, R of both together, and f buckets in which the lower one has
    something. A maximum of the two would be too wide where there are many events, too.
    """
    low, high = sorted((one, other), key=lambda ratio: ratio.value)
    pooled = (low.above + high.above) / (low.below + high.below)
    square = low.error**2
    if pooled > 0:
        like_high = high.error**2 * high.below / low.below * pooled / high.value
        square = (low.filled * square + _PRIOR * like_high) / (low.filled + _PRIOR)
    return math.hypot(math.sqrt(square), high.error) or math.inf


def sequence_of(
    variant: Ratio, control: Ratio, lists: tuple[float, float], comparisons: int = 1
) -> Estimate | None:
    """The interval of the difference that holds at all looks together with 95 %; None: too early.

    An asymptotic confidence sequence with the normal mixture (Waudby-Smith, Arbour, Sinha, Kennedy
    and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
    Statistics 52, 2024, theorem 2.2; the test of Johari et al., KDD 2017, is the same boundary):

        difference ± se · √((1 + 1/h) · (2·ln(1/α) + ln(1 + h))),  h = n·ρ²

    where n is the harmonic mean of the lists of both, and ρ² makes it narrowest at 10,000 lists.
    The errors come from few buckets, so the factor is that of Student's t with the same tail.
    """
    error = error_between(variant, control)
    few = (
        min(lists) < _LEAST_LISTS
        or min(variant.buckets, control.buckets) < _LEAST_BUCKETS
        or variant.above + control.above < _LEAST_EVENTS
    )
    if few or not math.isfinite(error):
        return None
    alpha = (1 - LEVEL) / comparisons
    twice = 2 * math.log(1 / alpha)
    rho2 = (twice + math.log(twice) + 1) / _TUNED_FOR
    h = rho2 * 2 / (1 / lists[0] + 1 / lists[1])
    z = math.sqrt((1 + 1 / h) * (twice + math.log1p(h)))
    width = as_student(z, variant.buckets + control.buckets - 2) * error
    value = variant.value - control.value
    return Estimate(value, value - width, value + width)


def quantile(freedom: int) -> float:
    """The factor of a 95 % interval by Student's t."""
    return as_student(NormalDist().inv_cdf((1 + LEVEL) / 2), max(1, freedom))


def as_student(z: float, freedom: int) -> float:
    """The point of Student's t with the tail that a normal one has at z.

    The expansion of Cornish and Fisher; Abramowitz and Stegun, 26.7.5.
    """
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
