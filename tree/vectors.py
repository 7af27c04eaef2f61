"""int8 vectors: quantise, compare, and sum up what a node holds.

A vector is stored as int8 scaled to its own largest component; its length is divided out when
it is compared. Dot products of int8 are exact integers, so a score depends neither on the
machine nor on how the work was split over threads.
"""

from collections.abc import Callable
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


def quantise(matrix: npt.NDArray[np.floating]) -> Int8Matrix:
    """Rows as int8, each scaled to its own largest component; a zero row stays zero."""
    peak = np.abs(matrix).max(axis=-1, keepdims=True)
    scaled = np.divide(matrix, peak, out=np.zeros_like(matrix), where=peak > 0)
    return np.rint(scaled * 127).astype(np.int8)


def inverse_norms(matrix: Int8Matrix) -> FloatArray:
    """1 / length of every row; 0 for a zero row, so that its cosines are 0."""
    wide = matrix.astype(np.int32)
    squares = np.einsum("...i,...i->...", wide, wide).astype(np.float32)
    return np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)


def cosines(rows: Int8Matrix, scale: FloatArray, queries: Int8Matrix) -> FloatArray:
    """Cosine of every row to every query: float32[len(rows), len(queries)].

    `scale` is `inverse_norms(rows)`. One thread; see `in_parallel` for large inputs.
    """
    if not len(rows) or not len(queries):
        return np.zeros((len(rows), len(queries)), np.float32)
    packed = numkong.dots_pack(np.ascontiguousarray(queries), dtype="int8")
    dots = np.asarray(numkong.dots_packed(rows, packed))
    result = np.multiply(dots, inverse_norms(queries), dtype=np.float32, casting="unsafe")
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

    Two-means from the farthest pair, in integer arithmetic. One centroid finds .80 of a full
    scan's top 20 in 20 of 1,100 leaves (video games), two find .85.
    """
    if not len(members):
        return np.zeros((FACETS, members.shape[1]), np.int8)
    if len(members) < FACETS:
        return np.repeat(members, FACETS, axis=0)
    wide = members.astype(np.int64)
    unit = wide * inverse_norms(members).astype(np.float64)[:, None]
    first = int(np.argmin(unit @ wide.sum(axis=0)))
    second = int(np.argmin(unit @ unit[first]))
    poles = unit[[first, second]]
    side = np.zeros(len(wide), bool)
    for _ in range(3):
        lean = np.round(unit @ poles.T, 9)  # ties must not hang on the order of summation
        side = lean[:, 1] > lean[:, 0]
        if not side.any() or side.all():
            return np.repeat(_direction(unit), FACETS, axis=0)
        poles = np.stack([_mean_direction(unit[~side]), _mean_direction(unit[side])])
    return quantise(poles.astype(np.float32))


def _direction(unit: npt.NDArray[np.float64]) -> Int8Matrix:
    return quantise(_mean_direction(unit)[None].astype(np.float32))


def _mean_direction(unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mean = unit.mean(axis=0)
    length = np.linalg.norm(mean)
    return mean / length if length else mean
