import time
from collections.abc import Callable

import numpy as np
import pytest

from app.evaluation.case import Case, Query
from app.evaluation.metrics import CatalogStatistics, Mean, SystemMetrics, compare
from app.evaluation.metrics.bootstrap import Stack, interval, resamples
from tree.item import Item

ITEMS = [Item(id=f"i{n}", title=f"item {n}") for n in range(300)]
BACKGROUND = CatalogStatistics.of(ITEMS, [])


def _run(users: int, seed: int) -> tuple[list[Case], list[list[str]]]:
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, len(ITEMS) + 1)
    chance /= chance.sum()
    drawn = [rng.choice(len(ITEMS), 11, replace=False, p=chance) for _ in range(users)]
    cases = [
        Case(Query(f"r{n}", ()), frozenset([f"i{row[rng.integers(11)]}"]), bucket=f"{n % 3}")
        for n, row in enumerate(drawn)
    ]
    return cases, [[f"i{item}" for item in row[:10]] for row in drawn]


def _mean_interval(values: np.ndarray) -> tuple[float, float]:
    mean = Mean.of(values)
    stack = Stack([mean])
    found = np.concatenate([stack.replicates(w) for w in resamples(len(values), 4, 4_000)])
    estimate = interval(mean.value, found[:, 0], mean.cases)
    return estimate.low, estimate.high


@pytest.mark.parametrize("draw", [lambda r: r.random(400), lambda r: r.exponential(1.0, 400)])
def test_the_interval_of_a_mean_is_that_of_scipy(
    draw: Callable[[np.random.Generator], np.ndarray],
) -> None:
    from scipy import stats  # takes a second, which others need not pay

    values = draw(np.random.default_rng(9))
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    found = _mean_interval(values)
    width = expected.high - expected.low
    assert found == pytest.approx(tuple(expected), abs=0.05 * width)


def test_95_of_100_intervals_contain_the_truth() -> None:
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(400):
        mean = Mean.of((rng.random(200) < 0.3).astype(float))
        stack = Stack([mean])
        found = np.concatenate([stack.replicates(w) for w in resamples(200, 0, 300)])
        estimate = interval(mean.value, found[:, 0], 200)
        inside += estimate.low <= 0.3 <= estimate.high
    assert 0.91 <= inside / 400 <= 0.98


def test_the_same_seed_gives_the_same_intervals_and_another_others() -> None:
    measured = SystemMetrics.of(*_run(200, 1), BACKGROUND, cutoffs=[10])
    assert measured.summary(seed=3) == measured.summary(seed=3)
    assert measured.summary(seed=3) != measured.summary(seed=4)


def test_more_users_narrow_the_interval() -> None:
    widths = []
    for users in (100, 1_600):
        estimate = (
            SystemMetrics.of(*_run(users, 2), BACKGROUND, cutoffs=[10]).summary(seed=0)
        ).metrics["recall@10"]
        widths.append(estimate.high - estimate.low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


def test_bucket_figures_equal_those_of_their_users_alone() -> None:
    cases, answers = _run(300, 3)
    whole = SystemMetrics.of(cases, answers, BACKGROUND, cutoffs=[10]).summary(seed=0)
    assert set(whole.buckets) == {"0", "1", "2"}
    part = [n for n, case in enumerate(cases) if case.bucket == "1"]
    alone = SystemMetrics.of(
        [cases[n] for n in part], [answers[n] for n in part], BACKGROUND, cutoffs=[10]
    ).summary(seed=0)
    for name, estimate in whole.buckets["1"].items():
        assert estimate.value == pytest.approx(alone.metrics[name].value)
        assert estimate.cases == alone.metrics[name].cases
        width = alone.metrics[name].high - alone.metrics[name].low
        assert estimate.low == pytest.approx(alone.metrics[name].low, abs=0.35 * width)


def test_intervals_of_list_metrics_contain_value_and_truth() -> None:
    summaries = [
        SystemMetrics.of(*_run(150, seed), BACKGROUND, cutoffs=[10]).summary(seed=0, count=200)
        for seed in range(60)
    ]
    for name in ("coverage@10", "gini@10"):
        estimates = [summary.metrics[name] for summary in summaries]
        expected = np.mean([estimate.value for estimate in estimates])
        assert sum(e.low <= expected <= e.high for e in estimates) >= 50
        assert all(0 <= e.low < e.value < e.high <= 1 for e in estimates)


def test_a_paired_difference_is_certain_where_intervals_overlap() -> None:
    cases, worse = _run(400, 6)
    better = [
        [min(case.targets), *answer[:9]] if n % 20 == 0 else answer
        for n, (case, answer) in enumerate(zip(cases, worse, strict=True))
    ]
    one, other = (
        SystemMetrics.of(cases, given, BACKGROUND, cutoffs=[5]) for given in (better, worse)
    )
    ours, theirs = (own.summary(seed=0).metrics["recall@5"] for own in (one, other))
    assert ours.low < theirs.high  # apart, they say nothing

    found = one.against(other, seed=0)["recall@5"]
    assert found.certain
    assert found.difference.value == pytest.approx(ours.value - theirs.value)
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(ours.value / theirs.value)
    assert found.ratio.low > 1
    back = other.against(one, seed=0)["recall@5"]
    assert back.difference.low == pytest.approx(-found.difference.high, abs=1e-6)


def test_a_system_does_not_differ_from_itself() -> None:
    measured = SystemMetrics.of(*_run(50, 7), BACKGROUND, cutoffs=[5])
    found = measured.against(measured, seed=0)["ndcg@5"]
    assert not found.certain
    assert (found.difference.low, found.difference.high) == (0, 0)


def test_only_the_same_cases_can_be_compared() -> None:
    with pytest.raises(ValueError, match="the same cases"):
        compare({"a": Mean.of(np.ones(3))}, {"a": Mean.of(np.ones(4))}, seed=0)


def test_a_ratio_to_zero_is_left_out() -> None:
    found = compare({"a": Mean.of(np.ones(5))}, {"a": Mean.of(np.zeros(5))}, seed=0)["a"]
    assert found.ratio is None
    assert found.difference.value == 1


@pytest.mark.bench
def test_fifty_thousand_lists_take_a_second_or_two() -> None:
    cases, answers = _run(50_000, 1)
    start = time.perf_counter()
    measured = SystemMetrics.of(cases, answers, BACKGROUND)
    between = time.perf_counter()
    measured.summary(seed=0)
    print(f"\nmeasured in {between - start:.2f} s, intervals {time.perf_counter() - between:.2f} s")
    assert time.perf_counter() - start < 5
