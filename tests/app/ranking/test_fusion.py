"""Scores of slates on one scale, and rankings made one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ranking.fusion import (
    RANK_OFFSET,
    FloatArray,
    Indices,
    SlateScores,
    calibrated,
    fused_by_rank,
    reciprocal_rank,
)

NONE = np.array([], np.int64)


def judged(indices: list[int], values: list[float] | list[list[float]]) -> SlateScores:
    marks = np.array(values, np.float32)
    return SlateScores(np.array(indices), marks if marks.ndim == 2 else marks[:, None])


def shared_out(
    worth: FloatArray, offsets: list[float], anchors: Indices, seed: int
) -> list[SlateScores]:
    """Slates of a model whose score is an option's worth plus an offset of the slate."""
    rng = np.random.default_rng(seed)
    rest = rng.permutation(np.setdiff1d(np.arange(len(worth)), anchors))
    return [
        SlateScores(
            held := rng.permutation(np.r_[anchors, rest[at :: len(offsets)]]), worth[held] + add
        )
        for at, add in enumerate(np.array(offsets, np.float32))
    ]


@given(
    st.integers(0, 2**32),
    st.lists(st.floats(-0.25, 0.25, width=32), min_size=2, max_size=5),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_offsets_of_slates_are_recovered(
    seed: int, offsets: list[float], columns: int, anchors: int
) -> None:
    worth = np.random.default_rng(seed).random((40, columns), np.float32)
    marks = np.arange(anchors) * 5
    found = calibrated(shared_out(worth, offsets, marks, seed), 40, marks)
    assert found.dtype == np.float32
    assert found == pytest.approx(worth + np.mean(offsets), abs=1e-5)


@given(st.integers(0, 2**32), st.integers(2, 4))
def test_the_order_within_a_slate_is_kept(seed: int, slates: int) -> None:
    rng = np.random.default_rng(seed)
    anchors = np.array([3, 11, 29])
    parts = shared_out(np.zeros((30, 1), np.float32), [0.0] * slates, anchors, seed)
    parts = [
        SlateScores(part.indices, rng.random((len(part.indices), 1), np.float32)) for part in parts
    ]
    found = calibrated(parts, 30, anchors)
    for part in parts:
        own = np.isin(part.indices, anchors, invert=True)
        before, after = part.values[own, 0], found[part.indices[own], 0]
        assert np.array_equal(np.argsort(before), np.argsort(after))


def test_a_single_slate_stays_as_it_is() -> None:
    found = calibrated([judged([2, 0, 1], [0.1, 0.9, 0.4])], 3, np.array([0]))
    assert found[:, 0] == pytest.approx([0.9, 0.4, 0.1])


def test_an_option_of_no_slate_has_no_score() -> None:
    found = calibrated([judged([3, 1], [[0.5, 0.2], [0.25, 0.1]])], 4, NONE)
    assert found.shape == (4, 2)
    assert np.isnan(found[[0, 2]]).all()
    assert found[[3, 1]] == pytest.approx(np.array([[0.5, 0.2], [0.25, 0.1]]))


def test_without_anchors_scores_are_taken_as_they_are() -> None:
    found = calibrated([judged([0], [0.2]), judged([1], [0.9])], 2, NONE)
    assert found[:, 0] == pytest.approx([0.2, 0.9])


def test_an_anchor_has_the_mean_of_its_scores() -> None:
    parts = [judged([0, 1, 2], [0.4, 0.8, 0.5]), judged([0, 1, 3], [0.8, 0.6, 0.5])]
    found = calibrated(parts, 4, np.array([0, 1]))
    # The slates mark the anchors .6 and .7 on average: offsets -.05 and .05.
    assert found[:, 0] == pytest.approx([0.6, 0.7, 0.55, 0.45])


@pytest.mark.parametrize(("least", "unsaid"), [(0.5, 0.05), (0.1, 0.05), (0.04, 0.02), (0.0, 0.0)])
def test_what_was_left_unsaid_is_worth_half_of_the_least(least: float, unsaid: float) -> None:
    found = calibrated([judged([0, 1, 2], [0.9, math.nan, least])], 3, NONE)
    assert found[:, 0] == pytest.approx([0.9, unsaid, least])


def test_a_slate_that_says_nothing_is_worth_little() -> None:
    found = calibrated([judged([0, 1], [math.nan, math.nan])], 2, NONE)
    assert found[:, 0] == pytest.approx([0.05, 0.05])


def test_the_slates_that_are_calibrated_stay_as_they_are() -> None:
    part = judged([0, 1], [0.9, math.nan])
    calibrated([part, judged([0, 2], [0.1, 0.2])], 3, np.array([0]))
    assert part.values[0, 0] == np.float32(0.9)
    assert np.isnan(part.values[1, 0])


# -- reciprocal rank fusion


def test_fused_ranks_are_those_of_the_paper() -> None:
    assert RANK_OFFSET == 60
    found = reciprocal_rank([[0.9, 0.1, 0.5], [0.2, 0.8, 0.4]], [1.0, 1.0])
    wanted = [1 / 61 + 1 / 63, 1 / 63 + 1 / 61, 1 / 62 + 1 / 62]
    assert found.dtype == np.float32
    assert found == pytest.approx([value / (2 / 61) for value in wanted], rel=1e-6)


def test_weights_decide_between_rankers() -> None:
    found = reciprocal_rank([[0.9, 0.1], [0.1, 0.9]], [3.0, 1.0])
    assert found == pytest.approx(
        [(3 / 61 + 1 / 62) / (4 / 61), (3 / 62 + 1 / 61) / (4 / 61)], rel=1e-6
    )
    assert reciprocal_rank([[0.9, 0.1], [0.1, 0.9]], [1.0, 0.0])[0] == 1.0


def test_equals_keep_their_order() -> None:
    found = reciprocal_rank([[0.5, 0.5, 0.7]], [2.0])
    assert found == pytest.approx([61 / 62, 61 / 63, 1.0], rel=1e-6)


def test_an_option_without_a_score_comes_last() -> None:
    found = reciprocal_rank([[math.nan, 0.1, 0.2]], [1.0])
    assert np.argsort(-found).tolist() == [2, 1, 0]


def test_nothing_fused_is_nothing() -> None:
    assert reciprocal_rank([[], []], [1.0, 1.0]).tolist() == []


def test_every_ranker_needs_its_weight() -> None:
    with pytest.raises(ValueError, match="zip"):
        reciprocal_rank([[0.1], [0.2]], [1.0])


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6),
        min_size=1, max_size=4,
    ),
    st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
)  # fmt: skip
def test_only_the_order_of_scores_counts(scores: list[list[float]], weights: list[float]) -> None:
    weights = weights[: len(scores)]
    found = reciprocal_rank(scores, weights)
    ranks = [np.argsort(np.argsort(-np.array(row), kind="stable")).tolist() for row in scores]
    assert np.array_equal(
        found, reciprocal_rank([[-rank for rank in row] for row in ranks], weights)
    )
    assert ((found > 0) & (found <= 1 + 1e-6)).all()


# -- candidates of several sources


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def test_a_row_that_several_sources_have_comes_first() -> None:
    fused = fused_by_rank([rows(7, 3, 5), rows(9, 3, 1)], [1.0, 1.0])
    assert fused[0] == 3
    assert sorted(fused.tolist()) == [1, 3, 5, 7, 9]


def test_of_equals_the_row_of_the_earlier_source_comes_first() -> None:
    assert fused_by_rank([rows(7), rows(2)], [1.0, 1.0]).tolist() == [7, 2]


def test_a_source_of_little_weight_adds_its_rows_behind() -> None:
    assert fused_by_rank([rows(7, 3), rows(9, 1)], [0.1, 0.9]).tolist() == [9, 1, 7, 3]


def test_a_source_without_weight_keeps_the_order_of_the_others() -> None:
    assert fused_by_rank([rows(4, 2), rows(2, 8)], [1.0, 0.0]).tolist()[:2] == [4, 2]


def test_no_source_has_no_rows() -> None:
    assert fused_by_rank([], []).tolist() == fused_by_rank([rows()], [1.0]).tolist() == []
