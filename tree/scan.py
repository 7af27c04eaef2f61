"""Scores of items by vectors: of some rows, or of all rows of a tree for many scorers at once."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np

from tree.beam_search import SimilarityScorer, blend
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray, cosines, in_parallel, inverse_norms

_TILE = 2_048  # rows whose float32 copy stays in a core's cache
_SMALL = 24  # directions up to which int8 kernels beat a matrix product (measured at 64k rows)
_FAST_COSINES = 250_000  # some 0.7 ms: under load a thread begins later than that
_INLINE_ROWS = 250_000  # of plain arithmetic: some 3 ms
_THREADS = 4  # for requests only: uploads and builds have their own

_T = TypeVar("_T")


async def off_loop(rows: int, work: Callable[[], _T], *, inline: int = _INLINE_ROWS) -> _T:
    """The result of `work`, which runs in a thread when it reads more than `inline` rows."""
    if rows <= inline:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_threads(), work)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="scans")


def scores_of(tree: SemanticTree, scorer: SimilarityScorer, rows: IntArray) -> FloatArray:
    """The scores of some rows (see `blend`): float32[len(rows)]."""
    similarity = cosines(tree.rows.vectors[rows], tree.rows.scale[rows], scorer.directions)
    return blend(similarity, scorer.weights, scorer.inverse_temperature)


def is_fast(tree: SemanticTree, directions: int) -> bool:
    """Whether a scan for this number of directions is faster than the start of a thread."""
    return tree.size * directions <= _FAST_COSINES


def scan(tree: SemanticTree, scorers: Sequence[SimilarityScorer]) -> FloatArray:
    """The score of every row by every scorer (see `blend`): float32[len(scorers), tree.size].

    Reading the vectors is most of the work, so many scorers cost little more than one. Uses all
    cores where it takes long. All scorers must have the same inverse temperature.
    """
    result = np.empty((len(scorers), tree.size), np.float32)
    vectors, scale = tree.rows.vectors[: tree.size], tree.rows.scale[: tree.size]
    inverse_temperature = np.float32(scorers[0].inverse_temperature)
    directions = np.concatenate([scorer.directions for scorer in scorers])

    def one_by_one(start: int, stop: int) -> None:
        for row, scorer in zip(result, scorers, strict=True):
            similarity = cosines(vectors[start:stop], scale[start:stop], scorer.directions)
            row[start:stop] = blend(similarity, scorer.weights, scorer.inverse_temperature)

    def together(start: int, stop: int) -> None:
        # exp(inverse temperature · cosine) of all directions; one product sums them per scorer
        unit = (directions * (inverse_temperature * inverse_norms(directions))[:, None]).T
        tile = np.empty((_TILE, tree.rows.dimensions), np.float32)
        powers = np.empty((_TILE, len(directions)), np.float32)
        for first in range(start, stop, _TILE):
            last = min(first + _TILE, stop)
            some, similarity = tile[: last - first], powers[: last - first]
            np.multiply(vectors[first:last], scale[first:last, None], out=some)
            np.matmul(some, unit, out=similarity)
            np.exp(similarity, out=similarity)
            result[:, first:last] = (similarity @ shares).T
        part = result[:, start:stop]
        np.log(part, out=part)
        part /= inverse_temperature

    shares = np.zeros((len(directions), len(scorers)), np.float32)
    at = 0
    for number, scorer in enumerate(scorers):
        shares[at : at + len(scorer.weights), number] = scorer.weights
        at += len(scorer.weights)
    work = one_by_one if len(directions) <= _SMALL else together
    if is_fast(tree, len(directions)):
        work(0, tree.size)
    else:
        in_parallel(work, tree.size)
    return result
