import math
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.evaluation.case import Case, Query
from app.evaluation.dataset import DatasetUser
from app.evaluation.metrics import (
    Answers,
    CatalogStatistics,
    SystemMetrics,
    accuracy,
    beyond,
    topics_of,
)
from tests.app.evaluation import naive
from tree.item import Item

ITEMS = [
    Item(id=f"i{n}", title=f"item {n}", categories=("abc"[n % 3], "xy"[n % 2]) if n else ())
    for n in range(12)
]
CATALOGUE = [item.id for item in ITEMS]
INDEX = {item: row for row, item in enumerate(CATALOGUE)}
VECTORS = np.random.default_rng(5).standard_normal((len(ITEMS), 4)).astype(np.float32)
VECTORS[3] = 0
READERS = [DatasetUser(f"r{n}", tuple(CATALOGUE[n : n + 4])) for n in range(7)]
BACKGROUND = CatalogStatistics.of(ITEMS, READERS, vectors=VECTORS, topics=topics_of(ITEMS))

_known = st.sampled_from(CATALOGUE)
_answers = st.lists(st.sampled_from([*CATALOGUE, "invented", "also invented"]), max_size=8)


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    history = tuple(draw(st.lists(_known, max_size=4, unique=True)))
    candidates = draw(st.none() | st.lists(_known, max_size=9, unique=True))
    return Case(
        Query(
            user="r",
            history=history,
            candidates=None if candidates is None else tuple(candidates),
            excluded=draw(st.frozensets(_known, max_size=2)),
        ),
        targets=draw(st.frozensets(_known, min_size=1, max_size=3)),
        bucket=draw(st.sampled_from(["", "1", "2–4"])),
    )


_runs = st.lists(st.tuples(_cases(), _answers), min_size=1, max_size=6)


def _unpacked(run: list[tuple[Case, list[str]]]) -> tuple[list[Case], list[list[str]]]:
    return [case for case, _ in run], [answer for _, answer in run]


def _same(found: np.ndarray, expected: list[float | None]) -> None:
    wanted = [math.nan if value is None else value for value in expected]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@given(_runs, st.integers(1, 9))
def test_metrics_equal_the_plain_formulas(run: list[tuple[Case, list[str]]], k: int) -> None:
    cases, answers = _unpacked(run)
    found = Answers.of(cases, answers, INDEX)
    held = [naive.clean(case, answer, CATALOGUE) for case, answer in run]
    vectors = {item: VECTORS[row].tolist() for item, row in INDEX.items()}
    pairs = list(zip(cases, held, strict=True))

    _same(accuracy.recall(found, k), [naive.recall(case, answer, k) for case, answer in pairs])
    _same(
        accuracy.reciprocal_rank(found, k),
        [naive.reciprocal_rank(case, answer, k) for case, answer in pairs],
    )
    _same(
        accuracy.hit_rate(found, k),
        [float(naive.recall(case, answer, k) > 0) for case, answer in pairs],
    )
    _same(
        accuracy.auc(found),
        [
            None if case.query.candidates is None else naive.auc(case, answer, CATALOGUE)
            for case, answer in pairs
        ],
    )
    _same(beyond.ilad(found, BACKGROUND, k), [naive.ilad(answer[:k], vectors) for answer in held])
    users_with = Counter(item for user in READERS for item in user.history)
    ranked = sorted(CATALOGUE, key=lambda item: -users_with[item])
    head = {item for item in ranked[: round(len(CATALOGUE) / 5)] if users_with[item]}
    _same(
        beyond.long_tail(found, BACKGROUND, k),
        [
            sum(i not in head for i in shown) / len(shown) if shown else None
            for shown in ([i for i in answer[:k] if i is not None] for answer in held)
        ],
    )
    surprise = {item: -math.log2((1 + users_with[item]) / 8) for item in CATALOGUE}
    _same(
        beyond.novelty(found, BACKGROUND, k),
        [
            sum(surprise[i] for i in shown) / len(shown) if shown else None
            for shown in ([i for i in answer[:k] if i is not None] for answer in held)
        ],
    )


@given(_cases(), st.permutations(CATALOGUE), st.integers(1, 12))
def test_ndcg_is_that_of_scikit_learn(case: Case, order: list[str], k: int) -> None:
    from sklearn.metrics import ndcg_score  # takes a second, which others need not pay

    case = replace(case, query=Query("r", ()))
    found = accuracy.ndcg(Answers.of([case], [order], INDEX), k)
    truth = [[float(item in case.targets) for item in CATALOGUE]]
    scores = [[-float(order.index(item)) for item in CATALOGUE]]
    assert found[0] == pytest.approx(ndcg_score(truth, scores, k=k))


@given(_cases(), st.permutations(CATALOGUE), st.integers(0, 12))
def test_auc_is_that_of_scikit_learn(case: Case, order: list[str], answered: int) -> None:
    from sklearn.metrics import roc_auc_score

    query = Query("r", (), candidates=tuple(CATALOGUE))
    case = replace(case, query=query)
    found = accuracy.auc(Answers.of([case], [order[:answered]], INDEX))
    truth = [item in case.targets for item in CATALOGUE]
    scores = [-min(order.index(item), answered) for item in CATALOGUE]
    assert found[0] == pytest.approx(roc_auc_score(truth, scores))


@given(_cases(), st.integers(1, 12))
def test_random_recall_is_the_mean_of_the_hypergeometric_distribution(case: Case, k: int) -> None:
    from scipy import stats

    pool = naive.allowed(case, CATALOGUE)
    good = len(case.targets.intersection(pool))
    expected = 0.0
    if pool:
        drawn = np.arange(min(k, len(pool)) + 1)
        chances = stats.hypergeom(len(pool), good, drawn[-1]).pmf(drawn)
        expected = float(drawn @ chances) / len(case.targets)
    found = accuracy.random_recall(Answers.of([case], [[]], INDEX), k)
    assert found[0] == pytest.approx(expected)


def test_random_recall_is_that_of_random_answers() -> None:
    candidates = tuple(CATALOGUE[:9])
    case = Case(Query("r", (CATALOGUE[0],), candidates=candidates), frozenset(["i2", "i11"]))
    rng = np.random.default_rng(3)
    answers = [list(rng.permutation(CATALOGUE[1:9])[:4]) for _ in range(4_000)]
    others = [replace(case, query=replace(case.query, user=f"r{n}")) for n in range(len(answers))]
    found = SystemMetrics.of(others, answers, BACKGROUND, cutoffs=[4])
    estimate = found.summary(seed=1).metrics["x_random@4"]
    assert estimate.low < 1 < estimate.high
    assert estimate.high - estimate.low < 0.1


@given(_runs)
def test_recall_grows_with_k_and_all_stay_in_range(run: list[tuple[Case, list[str]]]) -> None:
    found = Answers.of(*_unpacked(run), INDEX)
    for metric in (accuracy.recall, accuracy.hit_rate, accuracy.reciprocal_rank):
        values = np.array([metric(found, k) for k in range(1, 10)])
        assert np.all(np.diff(values, axis=0) >= 0)
        assert np.all((values >= 0) & (values <= 1))
    ranked = np.array([accuracy.ndcg(found, k) for k in range(1, 10)])
    assert np.all((ranked >= 0) & (ranked <= 1 + 1e-12))
    assert np.all(accuracy.recall(found, 9) <= accuracy.hit_rate(found, 9))


@given(_runs, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_of_the_cases_does_not_matter(
    run: list[tuple[Case, list[str]]], random: Random
) -> None:
    shuffled = list(run)
    random.shuffle(shuffled)
    one, other = (
        SystemMetrics.of(*_unpacked(order), BACKGROUND, cutoffs=[5]).summary(seed=0, count=50)
        for order in (run, shuffled)
    )
    assert set(one.metrics) == set(other.metrics)
    for name, estimate in one.metrics.items():
        assert estimate.value == pytest.approx(other.metrics[name].value, abs=1e-5), name
        assert estimate.low <= estimate.value <= estimate.high


@given(_runs, st.permutations(range(12)))
def test_only_the_order_of_an_answer_matters_to_ndcg_and_only_its_items_to_ilad(
    run: list[tuple[Case, list[str]]], places: list[int]
) -> None:
    cases, answers = _unpacked(run)
    cases = [replace(case, query=Query("r", ())) for case in cases]
    turned = [[answer[p] for p in places if p < len(answer)] for answer in answers]
    one, other = (Answers.of(cases, given, INDEX) for given in (answers, turned))
    k = 12
    _same(accuracy.recall(one, k), accuracy.recall(other, k).tolist())
    _same(beyond.ilad(one, BACKGROUND, k), beyond.ilad(other, BACKGROUND, k).tolist())


@given(_runs)
def test_coverage_and_gini_of_all_users(run: list[tuple[Case, list[str]]]) -> None:
    cases, answers = _unpacked(run)
    held = [naive.clean(case, answer, CATALOGUE)[:5] for case, answer in run]
    shown = [item for answer in held for item in answer if item is not None]
    read = [item for case in cases for item in sorted(set(case.query.history))]
    wanted = [item for case in cases for item in case.targets]
    metrics = (
        SystemMetrics.of(cases, answers, BACKGROUND, cutoffs=[5]).summary(seed=0, count=10).metrics
    )

    assert metrics["coverage@5"].value == pytest.approx(len(set(shown)) / len(ITEMS))
    if shown:
        exposure = [shown.count(item) for item in CATALOGUE]
        assert metrics["gini@5"].value == pytest.approx(naive.gini(exposure), abs=1e-6)
    for name, first, second in (
        ("topic_similarity@5", shown, read),
        ("topic_similarity_targets@5", shown, wanted),
        ("topic_level", wanted, read),
    ):
        expected = naive.topic_similarity(first, second, ITEMS)
        if name in metrics:
            assert metrics[name].value == pytest.approx(expected, abs=1e-6)
        else:
            assert expected == 0


def test_gini_of_known_distributions() -> None:
    assert beyond.gini(np.ones(40, np.float32)) == pytest.approx(0)
    assert beyond.gini(np.eye(1, 40, dtype=np.float32)[0]) == pytest.approx(1 - 1 / 40)
    assert np.isnan(beyond.gini(np.zeros(4, np.float32)))


def test_a_single_topic_counts_as_none() -> None:
    items = [Item(id=f"i{n}", title="t", categories=("games",)) for n in range(3)]
    statistics = CatalogStatistics.of(items, [], topics=topics_of(items))
    case = Case(Query("r", ("i0",)), frozenset(["i1"]))
    measured = SystemMetrics.of([case], [["i1"]], statistics)
    assert "topic_level" not in measured.summary(seed=0).metrics
    assert measured.topic_shares() == {}


def test_popularity_shift_is_the_lift_over_the_history() -> None:
    users = [
        DatasetUser("a", ("i0", "i1")),
        DatasetUser("b", ("i0",)),
        DatasetUser("c", ("i0", "i2")),
    ]
    statistics = CatalogStatistics.of(ITEMS, users)
    cases = [
        Case(Query("a", ("i1", "i2")), frozenset(["i5"])),
        Case(Query("b", ()), frozenset(["i5"])),  # no history: left out
    ]
    found = SystemMetrics.of(cases, [["i0", "i5"], ["i0"]], statistics, cutoffs=[2])
    # history: 1/3 each; answer: (1 + 0) / 2
    shift = found.summary(seed=0).metrics["popularity_shift@2"]
    assert shift.value == pytest.approx(0.5 / (1 / 3) - 1)
    assert shift.cases == 1


def test_gauc_weights_cases_by_candidates() -> None:
    few = Case(Query("a", (), candidates=("i0", "i1")), frozenset(["i0"]), bucket="1")
    many = Case(Query("b", (), candidates=tuple(CATALOGUE)), frozenset(["i0"]), bucket="50+")
    found = SystemMetrics.of([few, many], [["i0", "i1"], CATALOGUE[::-1]], BACKGROUND)
    summary = found.summary(seed=0)
    assert summary.metrics["gauc"].value == pytest.approx((2 * 1 + 12 * 0) / 14)
    assert summary.buckets["1"]["gauc"].value == 1
    assert summary.buckets["50+"]["gauc"].value == 0


def test_mistakes_are_counted_and_never_help() -> None:
    case = Case(
        Query("r", ("i1",), excluded=frozenset(["i2"]), candidates=("i0", "i1", "i2", "i3")),
        frozenset(["i0", "i1", "i2"]),
    )
    answer = ["i1", "i2", "i7", "who", "i0", "i0", "i3"]
    found = Answers.of([case], [answer], INDEX)
    assert found.flaws == {"not allowed": 3, "unknown": 1, "repeated": 1}
    assert accuracy.reciprocal_rank(found, 10)[0] == 1 / 5
    assert accuracy.recall(found, 10)[0] == pytest.approx(1 / 3)
    assert (found.reachable[0], found.pool[0]) == (1, 2)


def test_position_spread_shows_a_position_bias() -> None:
    rng = np.random.default_rng(8)
    cases, first, fair = [], [], []
    for _ in range(300):
        slate = [str(item) for item in rng.permutation(CATALOGUE)[:10]]
        target = slate[rng.integers(10)]
        cases.append(Case(Query("r", (), candidates=tuple(slate)), frozenset([target])))
        first.append(slate)
        fair.append([target, *[item for item in slate if item != target]])
    biased = SystemMetrics.of(cases, first, BACKGROUND, cutoffs=[10]).summary(seed=0)
    unbiased = SystemMetrics.of(cases, fair, BACKGROUND, cutoffs=[10]).summary(seed=0)
    assert biased.metrics["position_spread@10"].low > 0.3
    assert unbiased.metrics["position_spread@10"].value == 0


def test_without_cases_there_are_no_figures() -> None:
    summary = SystemMetrics.of([], [], BACKGROUND).summary(seed=0)
    assert (summary.metrics, summary.buckets) == ({}, {})


def test_each_query_needs_one_answer() -> None:
    with pytest.raises(ValueError, match="1 answers to 0 queries"):
        Answers.of([], [["i1"]], INDEX)


def test_gauc_needs_all_candidates() -> None:
    few = Case(Query("a", (), candidates=("i0", "i1")), frozenset(["i1"]))
    many = Case(Query("b", (), candidates=tuple(CATALOGUE)), frozenset(["i0"]))
    answers = [["i0", "i1"], CATALOGUE]
    whole = SystemMetrics.of([few, many], answers, BACKGROUND, [1]).summary(seed=0).metrics
    assert whole["gauc"].cases == 2, "no matter where the metrics at k end"
    assert whole["recall@1"].value == 0.5
    cut = [answers[0], CATALOGUE[:3]]
    metrics = SystemMetrics.of([few, many], cut, BACKGROUND, [1], limit=3).summary(seed=0).metrics
    assert (metrics["gauc"].value, metrics["gauc"].cases) == (0, 1)
    metrics = SystemMetrics.of([many], cut[1:], BACKGROUND, [1], limit=3).summary(seed=0).metrics
    assert "gauc" not in metrics


def test_users_are_drawn_with_all_of_their_cases() -> None:
    found, answers, other = [], [], []
    for number in range(30):
        query = Query(f"r{number}", ())
        found.append(Case(query, frozenset(["i0"]), "1"))
        answers.append(["i0" if number % 2 else "i1"])
        other.append(["i1"])
    single = SystemMetrics.of(found, answers, BACKGROUND, [1])
    triple = SystemMetrics.of(found * 3, answers * 3, BACKGROUND, [1])
    assert (
        triple.summary(seed=0).metrics["recall@1"].low
        == single.summary(seed=0).metrics["recall@1"].low
    ), "to ask the same users again is no further evidence"
    pairs = [
        one.against(SystemMetrics.of(cases, given, BACKGROUND, [1]), seed=0)[
            "recall@1"
        ].difference.low
        for one, cases, given in ((single, found, other), (triple, found * 3, other * 3))
    ]
    assert pairs[0] == pytest.approx(pairs[1])
