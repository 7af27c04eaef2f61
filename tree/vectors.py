"""int8 vectors: quantise, compare, and sum up what a node holds.

A vector is stored as int8 scaled to its own largest component; its length is divided out when
it is compared. Dot products of int8 are exact integers, so a score depends neither on the
machine nor on how the work was split over threads.
"""

from collections import defaultdict
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

    Groups of one size are worked on together: five times as fast as one by one.
    """
    found = np.zeros((len(groups), FACETS, DIMENSIONS), np.int8)
    by_size: dict[int, list[int]] = defaultdict(list)
    for at, members in enumerate(groups):
        by_size[len(members)].append(at)
    for size, places in by_size.items():
        if 0 < size < FACETS:
            for at in places:
                found[at] = groups[at]
        elif size:
            tile = max(1, _GROUPED_ROWS // size)
            for start in range(0, len(places), tile):
                some = places[start : start + tile]
                found[some] = _two_means(np.stack([groups[at] for at in some]))
    return found


def _two_means(groups: Int8Matrix) -> Int8Matrix:
    """int8[groups, FACETS, dimensions] of int8[groups, members, dimensions]."""
    unit = groups * inverse_norms(groups).astype(np.float64)[..., None]
    everyone = np.arange(len(groups))
    first = np.argmin(unit @ groups.sum(axis=1, dtype=np.float64)[..., None], axis=1)[:, 0]
    second = np.argmin(unit @ unit[everyone, first][..., None], axis=1)[:, 0]
    poles = np.stack([unit[everyone, first], unit[everyone, second]], axis=1)
    whole = np.zeros(len(groups), bool)  # all members lean to one side
    for _ in range(3):
        # Ties must not hang on the order of summation.
        lean = np.round(unit @ poles.transpose(0, 2, 1), 9)
        side = lean[..., 1] > lean[..., 0]
        whole |= ~side.any(axis=1) | side.all(axis=1)
        sides = np.stack([~side, side], axis=1).astype(np.float64)
        poles = _directions(sides @ unit)
    if whole.any():
        poles[whole] = _directions(unit[whole].sum(axis=1))[:, None]
    return quantise(poles.astype(np.float32))


def _directions(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scaled to length 1 along the last axis; zero stays zero."""
    length = np.linalg.norm(sums, axis=-1, keepdims=True)
    return np.divide(sums, length, out=sums, where=length > 0)
