"""Variants looked at every day: how often a difference is found that is not there, or one that is.

Users come back for 60 days, some often and most seldom, and each has a rate of clicks of their own
(8 % on average). A variant multiplies the rates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.attribution.estimates import Difference, Ratio
from app.storage.attribution import BUCKETS
from tests.benchmarks.figures import Figure

_DAYS = 60
_RATE, _ALIKE = 0.08, 6.0  # of the beta distribution of the users' rates
_LISTS_A_DAY = 0.45


@dataclass(frozen=True, slots=True)
class _Seen:
    """What 60 looks at one experiment have found, and how many lists there were."""

    first: int | None  # the day of the first verdict
    right: bool
    fooled: bool  # an interval for one look excluded zero on some day
    lists: int


def real() -> Iterator[Figure]:
    """Experiments without a difference, then with one; the seeds are fixed."""
    rng = np.random.default_rng(20)
    for users, share, runs in ((300, 0.5, 400), (2_000, 0.5, 400), (2_000, 0.1, 400),
                               (20_000, 0.5, 100)):  # fmt: skip
        seen = [_experiment(rng, users, share, 0.0) for _ in range(runs)]
        what = f"{users:,} users, {share:.0%} in the variant, no difference"
        yield Figure(f"{what}: lists", float(np.mean([one.lists for one in seen])))
        wrong = sum(one.first is not None for one in seen) / runs
        yield Figure(f"{what}: found by the sequence", 100 * wrong, "%", "≤", 5)
        fooled = sum(one.fooled for one in seen) / runs
        yield Figure(f"{what}: by intervals for one look", 100 * fooled, "%")
    for users, lift, runs in ((2_000, 0.2, 200), (2_000, 0.5, 200), (20_000, 0.05, 50),
                              (20_000, 0.1, 50), (20_000, 0.2, 50)):  # fmt: skip
        seen = [_experiment(rng, users, 0.5, lift) for _ in range(runs)]
        found = [one.first for one in seen if one.first is not None and one.right]
        what = f"{users:,} users, half in the variant, {lift:+.0%}"
        yield Figure(f"{what}: found within {_DAYS} days", 100 * len(found) / runs, "%")
        if found:
            yield Figure(f"{what}: median day of those", float(np.median(found)))


def _experiment(rng: np.random.Generator, users: int, share: float, lift: float) -> _Seen:
    arm, bucket = rng.random(users) < share, rng.integers(0, BUCKETS, users)
    own = rng.beta(_RATE * _ALIKE, (1 - _RATE) * _ALIKE, users)
    rate = np.clip(own * np.where(arm, 1 + lift, 1), 0, 1)
    activity = rng.gamma(0.7, _LISTS_A_DAY / 0.7, users)
    cells = bucket + BUCKETS * arm
    clicks, lists = np.zeros(2 * BUCKETS), np.zeros(2 * BUCKETS)
    first, right, fooled = None, False, False
    for day in range(1, _DAYS + 1):
        shown = rng.poisson(activity)
        lists += np.bincount(cells, shown, 2 * BUCKETS)
        clicks += np.bincount(cells, rng.binomial(shown, rate), 2 * BUCKETS)
        control = Ratio.of(clicks[:BUCKETS], lists[:BUCKETS])
        variant = Ratio.of(clicks[BUCKETS:], lists[BUCKETS:])
        if control is None or variant is None:
            continue
        found = Difference.of(variant, control, (variant.below, control.below))
        if found.verdict != "open" and first is None:
            first, right = day, (found.verdict == "better") == (lift > 0)
        if found.interval is not None:
            fooled |= found.interval.low > 0 or found.interval.high < 0
    return _Seen(first, right, fooled, int(lists.sum()))
