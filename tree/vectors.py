"""int8 vectors: quantise, compare, and sum up what a node holds.

A vector is stored as int8 scaled to its own largest component; its length is divided out when
it is compared. Dot products of int8 are exact integers, so a score depends neither on the
machine nor on how the work was split over threads.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from os import cpu_count

import numkong
import numpy as np
import numpy.typing as npt

Int8Matrix = npt.NDArray[np.int8]
FloatArray = npt.NDArray[np.float32]

DIMENSIONS = 256
FACETS = 2  # directions by which a node is found
_ROWS_PER_THREAD = 8_192
_GROUPED_ROWS = 512  # rows that facets are made of at once: 1 MB as float64
_ROUNDING = 2  # of 127: texts read in other batches are summed in another order
_PADDING = 3  # rows that a group may lack to one that it is worked on with


def quantise(matrix: npt.NDArray[np.floating]) -> Int8Matrix:
    """Rows as int8, each scaled to its own largest component; a zero row stays zero."""
    peak = np.abs(matrix).max(axis=-1, keepdims=True)
    scaled = np.divide(matrix, peak, out=np.zeros_like(matrix), where=peak > 0)
    return np.rint(scaled * 127).astype(np.int8)


def alike(one: Int8Matrix, other: Int8Matrix) -> bool:
    """Whether two rows are of one text, but for what differs from one reading to the next."""
    return bool(np.abs(one.astype(np.int16) - other).max() <= _ROUNDING)


def inverse_norms(matrix: Int8Matrix) -> FloatArray:
    """1 / length of every row; 0 for a zero row, so that its cosines are 0."""
    wide = matrix.astype(np.int32)
    squares = np.einsum("...i,...i->...", wide, wide).astype(np.float32)
    return np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)


def cosines(
    rows: Int8Matrix,
    scale: FloatArray,
    queries: Int8Matrix,
    query_scale: FloatArray | None = None,
) -> FloatArray:
    """Cosine of every row to every query: float32[len(rows), len(queries)].

    `scale` is `inverse_norms(rows)`; so is `query_scale` of `queries`, where the caller has it.
    One thread; see `in_parallel` for large inputs.
    """
    if not len(rows) or not len(queries):
        return np.zeros((len(rows), len(queries)), np.float32)
    packed = numkong.dots_pack(np.ascontiguousarray(queries), dtype="int8")
    dots = np.asarray(numkong.dots_packed(rows, packed))
    if query_scale is None:
        query_scale = inverse_norms(queries)
    result = np.multiply(dots, query_scale, dtype=np.float32, casting="unsafe")
    result *= scale[:, None]
    return result


def in_parallel(work: Callable[[int, int], None], rows: int) -> None:
    """`work(start, stop)` over consecutive spans of `rows`, on several cores when it pays.

    `work` must spend its time outside the interpreter lock and not call this in turn.
    """
    parts = min(cpu_count() or 1, rows // _ROWS_PER_THREAD)
    if parts <= 1:
        work(0, rows)
        return
    bounds = [rows * part // parts for part in range(parts + 1)]
    list(_threads().map(work, bounds[:-1], bounds[1:]))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cpu_count(), thread_name_prefix="cosines")


def facets(members: Int8Matrix) -> Int8Matrix:
    """The two directions that stand for `members`: int8[FACETS, dimensions], zero for nobody.

    Two-means from the farthest pair. One centroid finds .80 of a full scan's top 20 in 20 of
    1,100 leaves (video games), two find .85.
    """
    return facets_of_groups([members])[0]


def facets_of_groups(groups: Sequence[Int8Matrix]) -> Int8Matrix:
    """The `facets` of every group: int8[groups, FACETS, dimensions].

    Groups of about one size are worked on together: ten times as fast as one by one.
    """
    found = np.zeros((len(groups), FACETS, DIMENSIONS), np.int8)
    sizes = np.array([len(members) for members in groups], np.int64)
    order = np.argsort(sizes, kind="stable")
    start = int(np.count_nonzero(sizes == 0))
    while start < len(order):
        most = max(int(sizes[order[start]]) + _PADDING, FACETS)
        stop = start + max(1, _GROUPED_ROWS // most)
        some = order[start:stop]
        some = some[sizes[some] <= most]
        start += len(some)
        padded = np.zeros((len(some), int(sizes[some[-1]]), DIMENSIONS), np.int8)
        for at, group in enumerate(some):
            padded[at, : sizes[group]] = groups[group]
        found[some] = _two_means(padded, sizes[some])
    found[sizes == 1] = np.array([members for members in groups if len(members) == 1]).reshape(
        -1, 1, DIMENSIONS
    )
    return found


def _two_means(groups: Int8Matrix, sizes: npt.NDArray[np.int64]) -> Int8Matrix:
    """int8[groups, FACETS, dimensions] of int8[groups, members, dimensions].

    Of each group only the first `sizes` members count. All but the last step looks at the cosines
    among the members only, which are a tenth of the vectors.
    """
    wide = groups.astype(np.float32)
    dots = wide @ wide.transpose(0, 2, 1)  # exact: whole numbers below 2 ** 24
    squares = np.einsum("gii->gi", dots)
    scale = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    scale = scale.astype(np.float64)
    near = dots * scale[:, :, None]
    everyone, there = np.arange(len(groups)), np.arange(groups.shape[1]) < sizes[:, None]
    nobody = np.where(there, 0, np.inf)
    first = np.argmin(near.sum(axis=2) + nobody, axis=1)
    near *= scale[:, None, :]
    second = np.argmin(near[everyone, first] + nobody, axis=1)
    lean = np.stack([near[everyone, first], near[everyone, second]], axis=1)
    whole = np.zeros(len(groups), bool)  # all members lean to one side
    for _ in range(3):
        lean = np.round(lean, 9)  # ties must not hang on the order of summation
        side = (lean[:, 1] > lean[:, 0]) & there
        rest = there & ~side
        whole |= ~side.any(axis=1) | ~rest.any(axis=1)
        sides = np.stack([rest, side], axis=1).astype(np.float64)
        lean = sides @ near
        length = np.sqrt(np.einsum("gfm,gfm->gf", sides, lean))[..., None]
        lean = np.divide(lean, length, out=lean, where=length > 0)
    sides[whole] = there[whole, None]
    poles = _directions((sides * scale[:, None]) @ wide.astype(np.float64))
    return quantise(poles.astype(np.float32))


def _directions(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scaled to length 1 along the last axis; zero stays zero."""
    length = np.linalg.norm(sums, axis=-1, keepdims=True)
    return np.divide(sums, length, out=sums, where=length > 0)
