"""Scoring rows one by one: of some leaves, or of the whole tree in one pass for many scorers."""

from collections.abc import Sequence

import numpy as np

from tree.rows import IntArray
from tree.search import Similarity, blend
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, FloatArray, cosines, in_parallel, inverse_norms

_TILE = 2_048  # rows whose float32 copy stays in a core's cache
_SMALL = 24  # directions up to which int8 kernels beat a matrix product (measured at 64k rows)


def scores_of(tree: SemanticTree, scorer: Similarity, rows: IntArray) -> FloatArray:
    """The blended similarity of some rows: float32[len(rows)]."""
    near = cosines(tree.rows.vectors[rows], tree.rows.scale[rows], scorer.directions)
    return blend(near, scorer.weights, scorer.sharpness)


def scan(tree: SemanticTree, scorers: Sequence[Similarity]) -> FloatArray:
    """The blended similarity of every row to every scorer: float32[len(scorers), tree.size].

    Reading the vectors is most of the work, so many scorers cost little more than one. Uses all
    cores; the scorers share one sharpness.
    """
    result = np.empty((len(scorers), tree.size), np.float32)
    vectors, scale = tree.rows.vectors[: tree.size], tree.rows.scale[: tree.size]
    sharpness = np.float32(scorers[0].sharpness)
    directions = np.concatenate([scorer.directions for scorer in scorers])

    def one_by_one(start: int, stop: int) -> None:
        for row, scorer in zip(result, scorers, strict=True):
            near = cosines(vectors[start:stop], scale[start:stop], scorer.directions)
            row[start:stop] = blend(near, scorer.weights, scorer.sharpness)

    def together(start: int, stop: int) -> None:
        # exp(sharpness · cosine) of all directions, then one product sums them per scorer
        unit = (directions * (sharpness * inverse_norms(directions))[:, None]).T
        tile = np.empty((_TILE, DIMENSIONS), np.float32)
        near = np.empty((_TILE, len(directions)), np.float32)
        for first in range(start, stop, _TILE):
            last = min(first + _TILE, stop)
            some, close = tile[: last - first], near[: last - first]
            np.multiply(vectors[first:last], scale[first:last, None], out=some)
            np.matmul(some, unit, out=close)
            np.exp(close, out=close)
            result[:, first:last] = (close @ shares).T
        part = result[:, start:stop]
        np.log(part, out=part)
        part /= sharpness

    shares = np.zeros((len(directions), len(scorers)), np.float32)
    at = 0
    for number, scorer in enumerate(scorers):
        shares[at : at + len(scorer.weights), number] = scorer.weights
        at += len(scorer.weights)
    in_parallel(one_by_one if len(directions) <= _SMALL else together, tree.size)
    return result
