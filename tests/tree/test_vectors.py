"""int8 arithmetic against float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tree.vectors import (
    CENTROIDS_PER_NODE,
    DIMENSIONS,
    centroids,
    centroids_of_groups,
    cosines,
    in_parallel,
    inverse_norms,
    quantise,
)

matrices = arrays.arrays(
    np.int8, st.tuples(st.integers(0, 30), st.just(DIMENSIONS)), elements=st.integers(-127, 127)
)


def reference(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    def unit(matrix):
        wide = matrix.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        return np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)

    return unit(rows) @ unit(queries).T


@given(matrices, matrices)
def test_cosines_are_those_of_floats(rows, queries):
    found = cosines(rows, inverse_norms(rows), queries)
    assert found.shape == (len(rows), len(queries))
    assert found.dtype == np.float32
    assert found == pytest.approx(reference(rows, queries), abs=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 8_191, 50_000])
def test_cosines_do_not_depend_on_the_split(rows):
    matrix = np.random.default_rng(0).integers(-127, 128, (rows, DIMENSIONS)).astype(np.int8)
    scale, queries = inverse_norms(matrix), matrix[:3]
    together = cosines(matrix, scale, queries)
    split = np.empty_like(together)

    def fill(start: int, stop: int) -> None:
        split[start:stop] = cosines(matrix[start:stop], scale[start:stop], queries)

    in_parallel(fill, rows)
    assert np.array_equal(split, together)


def test_extreme_vectors_do_not_overflow():
    matrix = np.array([[127] * DIMENSIONS, [-127] * DIMENSIONS, [-128] * DIMENSIONS], np.int8)
    found = cosines(matrix, inverse_norms(matrix), matrix)
    assert found == pytest.approx(np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]]), abs=1e-6)


@given(
    arrays.arrays(
        np.int32,
        st.tuples(st.integers(1, 5), st.just(DIMENSIONS)),
        elements=st.integers(-(10**6), 10**6),
    ),
    st.sampled_from([1e-6, 1.0, 3e20]),
)
def test_quantising_keeps_the_direction(whole, scale):
    matrix = (whole * scale).astype(np.float32)
    small = quantise(matrix)
    assert small.dtype == np.int8
    assert np.array_equal(small.any(axis=1), matrix.any(axis=1))
    peak = np.abs(matrix).max(axis=1, keepdims=True)
    back = small * (peak / 127)
    assert (np.abs(back - matrix) <= peak / 127 * 0.51).all()


def test_zero_is_near_nothing():
    rows = np.zeros((2, DIMENSIONS), np.int8)
    rows[1] = 1
    assert inverse_norms(rows).tolist() == [0, 1 / 16]
    assert cosines(rows, inverse_norms(rows), rows).tolist() == [[0, 0], [0, 1]]


@given(matrices)
def test_facets_are_directions_of_the_members(members):
    found = centroids(members)
    assert found.shape == (CENTROIDS_PER_NODE, DIMENSIONS)
    assert np.array_equal(found, centroids(members))
    if not members.any():
        assert not found.any()


def test_facets_tell_two_groups_apart():
    rng = np.random.default_rng(4)
    centres = rng.integers(-100, 101, (2, DIMENSIONS))
    members = (centres[np.arange(30) % 2] + rng.integers(-20, 21, (30, DIMENSIONS))).astype(np.int8)
    near = cosines(centroids(members), inverse_norms(centroids(members)), centres.astype(np.int8))
    assert sorted(near.argmax(axis=1).tolist()) == [0, 1]
    assert (near.max(axis=1) > 0.95).all()


def test_facets_of_one_member_are_the_member():
    member = np.random.default_rng(0).integers(-127, 128, (1, DIMENSIONS)).astype(np.int8)
    assert np.array_equal(centroids(member), np.repeat(member, CENTROIDS_PER_NODE, axis=0))


def test_facets_of_alike_members_are_their_direction():
    members = np.full((9, DIMENSIONS), 64, np.int8)
    assert np.array_equal(
        centroids(members), np.full((CENTROIDS_PER_NODE, DIMENSIONS), 127, np.int8)
    )


def test_groups_worked_on_together_have_the_facets_of_each_alone():
    rng = np.random.default_rng(6)
    sizes = [*range(40), *rng.integers(0, 21, 200), 130]
    groups = [rng.integers(-127, 128, (size, DIMENSIONS)).astype(np.int8) for size in sizes]
    groups += [np.zeros((5, DIMENSIONS), np.int8), np.repeat(groups[3], 4, axis=0)]
    together = centroids_of_groups(groups)
    for members, found in zip(groups, together, strict=True):
        assert np.array_equal(found, centroids(members)), len(members)
    assert not together[0].any()
    assert len(centroids_of_groups([])) == 0
