"""int8 vectors: quantise, compare, and compute the centroids of a node.

A vector is stored as int8 scaled to its own largest component; its length is divided out when it is
compared. Dot products of int8 are exact integers, so a score depends neither on the machine nor on
the number of threads.
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

DIMENSIONS = 256  # of what our embedders make, and of spaces that were stored without a width
CENTROIDS_PER_NODE = 2
_ROWS_PER_THREAD = 8_192
_GROUPED_ROWS = 512  # rows that are grouped at once: 1 MB as float64
_ROUNDING = 2  # of 127: in another batch a model sums in another order
_PADDING = 3  # largest difference in size of groups that are computed together


def quantise(matrix: npt.NDArray[np.floating]) -> Int8Matrix:
    """Rows as int8, each scaled to its own largest component; a zero row stays zero."""
    peak = np.abs(matrix).max(axis=-1, keepdims=True)
    scaled = np.divide(matrix, peak, out=np.zeros_like(matrix), where=peak > 0)
    return np.rint(scaled * 127).astype(np.int8)


def unit_rows(matrix: FloatArray) -> FloatArray:
    """Rows scaled to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)


def alike(one: Int8Matrix, other: Int8Matrix) -> bool:
    """Whether two rows are vectors of one text, apart from rounding."""
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


def centroids(members: Int8Matrix) -> Int8Matrix:
    """The two centroids of `members`: int8[CENTROIDS_PER_NODE, dimensions], zero for none.

    Two-means from the farthest pair. One centroid finds .80 of a full scan's top 20 in 20 of
    1,100 leaves (video games), two find .85.
    """
    return centroids_of_groups([members])[0]


def centroids_of_groups(groups: Sequence[Int8Matrix]) -> Int8Matrix:
    """The `centroids` of every group: int8[groups, CENTROIDS_PER_NODE, dimensions].

    Groups of about one size are computed together: ten times as fast as one by one.
    """
    dimensions = groups[0].shape[1] if groups else 0
    found = np.zeros((len(groups), CENTROIDS_PER_NODE, dimensions), np.int8)
    sizes = np.array([len(members) for members in groups], np.int64)
    order = np.argsort(sizes, kind="stable")
    start = int(np.count_nonzero(sizes == 0))
    while start < len(order):
        most = max(int(sizes[order[start]]) + _PADDING, CENTROIDS_PER_NODE)
        stop = start + max(1, _GROUPED_ROWS // most)
        some = order[start:stop]
        some = some[sizes[some] <= most]
        start += len(some)
        padded = np.zeros((len(some), int(sizes[some[-1]]), dimensions), np.int8)
        for at, group in enumerate(some):
            padded[at, : sizes[group]] = groups[group]
        found[some] = _two_means(padded, sizes[some])
    if (sizes == 1).any():
        found[sizes == 1] = np.stack([members for members in groups if len(members) == 1])
    return found


def _two_means(groups: Int8Matrix, sizes: npt.NDArray[np.int64]) -> Int8Matrix:
    """int8[groups, CENTROIDS_PER_NODE, dimensions] of int8[groups, members, dimensions].

    Of each group only the first `sizes` members count. All steps but the last one use the cosines
    among the members only, a tenth of the size of the vectors.
    """
    wide = groups.astype(np.float32)
    dots = wide @ wide.transpose(0, 2, 1)  # exact: whole numbers below 2 ** 24
    squares = np.einsum("gii->gi", dots)
    scale = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    scale = scale.astype(np.float64)
    similarity = dots * scale[:, :, None]
    index, there = np.arange(len(groups)), np.arange(groups.shape[1]) < sizes[:, None]
    padding = np.where(there, 0, np.inf)
    first = np.argmin(similarity.sum(axis=2) + padding, axis=1)
    similarity *= scale[:, None, :]
    second = np.argmin(similarity[index, first] + padding, axis=1)
    lean = np.stack([similarity[index, first], similarity[index, second]], axis=1)
    whole = np.zeros(len(groups), bool)  # groups whose members are all on one side
    for _ in range(3):
        lean = np.round(lean, 9)  # ties must not depend on the order of summation
        side = (lean[:, 1] > lean[:, 0]) & there
        rest = there & ~side
        whole |= ~side.any(axis=1) | ~rest.any(axis=1)
        sides = np.stack([rest, side], axis=1).astype(np.float64)
        lean = sides @ similarity
        length = np.sqrt(np.einsum("gfm,gfm->gf", sides, lean))[..., None]
        lean = np.divide(lean, length, out=lean, where=length > 0)
    sides[whole] = there[whole, None]
    poles = _directions((sides * scale[:, None]) @ wide.astype(np.float64))
    return quantise(poles.astype(np.float32))


def _directions(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scaled to length 1 along the last axis; zero stays zero."""
    length = np.linalg.norm(sums, axis=-1, keepdims=True)
    return np.divide(sums, length, out=sums, where=length > 0)
