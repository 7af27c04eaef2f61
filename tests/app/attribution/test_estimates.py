"""Intervals respect that a user has many lists, and daily looks do not find what is not there."""

import numpy as np
import pytest
from scipy import stats

from app.attribution.estimates import Difference, Ratio, as_student, quantile, wilson

BUCKETS = 64


def test_the_points_of_student_are_those_of_scipy():
    for freedom in (15, 63, 126):
        assert quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)
        tail = stats.norm.sf(3.2)
        assert as_student(3.2, freedom) == pytest.approx(stats.t.isf(tail, freedom), rel=5e-3)


def test_wilson_is_as_published():
    found = wilson(0.1, 100, 1.96)
    assert (found.low, found.high) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert wilson(0.0, 50, 1.96).low == 0


def test_an_interval_covers_the_rate_though_users_differ():
    """Each user has twenty lists, all clicked or none: as many cases as users, not as lists."""
    rng = np.random.default_rng(3)
    covered = narrow = 0
    for _ in range(300):
        bucket = rng.integers(0, BUCKETS, 500)
        clicks = np.zeros(BUCKETS)
        np.add.at(clicks, bucket, 20.0 * (rng.random(500) < 0.3))
        ratio = Ratio.of(clicks, np.bincount(bucket, minlength=BUCKETS).astype(np.float64) * 20)
        assert ratio is not None
        assert ratio.proportion is not None
        covered += ratio.proportion.low <= 0.3 <= ratio.proportion.high
        naive = wilson(ratio.value, 10_000, 1.96)
        narrow += naive.low <= 0.3 <= naive.high
    assert 0.9 < covered / 300 < 0.99
    assert narrow / 300 < 0.5


def test_nothing_is_sure_where_little_is_known():
    nothing = np.zeros(BUCKETS)
    assert Ratio.of(nothing, nothing) is None
    one = nothing.copy()
    one[3] = 10
    alone = Ratio.of(one / 2, one)
    assert alone is not None
    assert alone.interval is None
    assert alone.proportion is not None
    assert (alone.proportion.low, alone.proportion.high) != (0.5, 0.5)
    no_click = Ratio.of(nothing, np.ones(BUCKETS))
    assert no_click is not None
    assert no_click.proportion is not None
    assert no_click.proportion.high > 0.03
    assert no_click.interval is not None
    assert no_click.interval.high > 0.03
    both = Difference.of(no_click, no_click, (6_400, 6_400))
    assert (both.value, both.interval, both.sequence, both.verdict) == (0, None, None, "open")


def test_none_against_few_is_open_and_none_against_many_is_worse():
    """And one event more or less does not change what is known by much."""
    lists = np.full(BUCKETS, 10.0)

    def rate(events: int) -> Ratio:
        clicks = np.bincount(np.arange(events) * 3 % BUCKETS, minlength=BUCKETS)
        found = Ratio.of(clicks.astype(np.float64), lists)
        assert found is not None
        return found

    def between(variant: int, control: int) -> Difference:
        return Difference.of(rate(variant), rate(control), (640, 640))

    few = between(0, 20)
    assert few.verdict == "open"
    assert few.interval is not None
    assert few.interval.high < 0, "one look that was planned would find it"
    assert between(1, 21).verdict == "open"
    assert between(0, 40).verdict == "worse"
    assert between(40, 0).verdict == "better"
    widths = []
    for events in range(4):
        found = between(events, 20).interval
        assert found is not None
        widths.append(found.high - found.low)
    assert max(widths) < 1.1 * min(widths), "no event is not surer than a few"


def looks(rng: np.random.Generator, lift: float, days: int = 60) -> tuple[set[str], bool]:
    """The verdicts of daily looks at users who come back, and whether fixed intervals found one."""
    users = 1_000
    arm, bucket = rng.random(users) < 0.5, rng.integers(0, BUCKETS, users)
    clicks, lists = np.zeros((2, BUCKETS)), np.zeros((2, BUCKETS))
    rate = np.clip(rng.beta(1, 11, users) * np.where(arm, 1 + lift, 1), 0, 1)
    verdicts, fooled = set(), False
    for _ in range(days):
        shown = rng.poisson(0.5, users)
        clicked = rng.binomial(shown, rate)
        for which in (0, 1):
            mine = arm == which
            lists[which] += np.bincount(bucket[mine], shown[mine], BUCKETS)
            clicks[which] += np.bincount(bucket[mine], clicked[mine], BUCKETS)
        control, variant = (Ratio.of(clicks[which], lists[which]) for which in (0, 1))
        assert control is not None
        assert variant is not None
        sizes = float(lists[1].sum()), float(lists[0].sum())
        found = Difference.of(variant, control, sizes)
        verdicts.add(found.verdict)
        assert found.interval is not None
        fooled |= found.interval.low > 0 or found.interval.high < 0
    return {str(one) for one in verdicts if one != "open"}, fooled


def test_daily_looks_find_no_difference_where_there_is_none_and_one_where_there_is():
    rng = np.random.default_rng(11)
    found = [looks(rng, 0.0) for _ in range(80)]
    assert sum(bool(verdicts) for verdicts, _ in found) / 80 <= 0.05
    assert sum(fooled for _, fooled in found) / 80 > 0.1, "intervals for one look are fooled"
    assert all(looks(rng, 1.0)[0] == {"better"} for _ in range(10))
    assert all(looks(rng, -0.6)[0] == {"worse"} for _ in range(10))


def test_several_variants_share_the_error():
    rng = np.random.default_rng(2)
    lists = np.full(BUCKETS, 100.0)
    control = Ratio.of(rng.binomial(100, 0.1, BUCKETS).astype(float), lists)
    variant = Ratio.of(rng.binomial(100, 0.15, BUCKETS).astype(float), lists)
    assert control is not None
    assert variant is not None
    one = Difference.of(variant, control, (6_400, 6_400))
    many = Difference.of(variant, control, (6_400, 6_400), comparisons=5)
    assert one.sequence is not None
    assert many.sequence is not None
    assert one.sequence.low > many.sequence.low
    assert one.verdict == "better"
    assert one.relative == pytest.approx(one.value / control.value)
