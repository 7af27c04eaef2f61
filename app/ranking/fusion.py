"""Scores made comparable: of slates that were judged apart, and of several rankers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = npt.NDArray[np.int64]
IntArray: TypeAlias = npt.NDArray[np.int32]

RANK_OFFSET = 60  # of reciprocal rank fusion, as published
_LIST_OFFSET = 20  # of lists of candidates: a smaller one lets each list bring its first
_NOT_MENTIONED = 0.1  # prompts tell models to leave out options with a lower score


@dataclass(frozen=True, slots=True)
class SlateScores:
    """One slate's scores: `values` float32[options, interests] of the options at `indices`."""

    indices: Indices
    values: FloatArray


def calibrated(slates: Sequence[SlateScores], count: int, anchors: Indices) -> FloatArray:
    """float32[count, interests]: all slates on one scale; NaN for options that were in none.

    `anchors` are options that every slate holds. Score = worth + offset of its slate; the least
    squares offsets that sum to zero are, in closed form, a slate's mean over the anchors less the
    mean of these means (LATTICE, arXiv 2510.13217, does the same by gradient descent). An anchor's
    score is the mean of its scores. An option that a model left out gets half
    of the lowest score that it gave.
    """
    columns = slates[0].values.shape[1]
    total = np.zeros((count, columns), np.float32)
    seen = np.zeros((count, 1), np.float32)
    filled = [_filled(slate.values) for slate in slates]
    offsets = np.zeros(len(slates), np.float32)
    if len(slates) > 1 and len(anchors):
        scores = np.stack(
            [
                values[_positions(slate.indices, anchors)]
                for slate, values in zip(slates, filled, strict=True)
            ]
        ).max(axis=2)
        offsets = (scores - scores.mean(axis=0)).mean(axis=1)
    for slate, values, offset in zip(slates, filled, offsets, strict=True):
        total[slate.indices] += values - offset
        seen[slate.indices] += 1
    with np.errstate(invalid="ignore"):
        return np.where(seen > 0, total / np.maximum(seen, 1), np.nan).astype(np.float32)


def reciprocal_rank(
    rankings: Sequence[Sequence[float] | FloatArray], weights: Sequence[float]
) -> FloatArray:
    """float32[options], 0 … 1: the fused worth of options that several rankers have scored.

    Reciprocal rank fusion (Cormack et al. 2009): Σ weight / (60 + rank), here over its best
    possible value. Only the order of each ranker's scores counts; equals keep their order.
    """
    total = np.zeros(len(rankings[0]), np.float64)
    for scores, weight in zip(rankings, weights, strict=True):
        order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
        total[order] += weight / (RANK_OFFSET + np.arange(1, len(order) + 1))
    best = sum(weights) / (RANK_OFFSET + 1)
    return (total / best).astype(np.float32)


def fused_by_rank(
    rankings: Sequence[IntArray], weights: Sequence[float], offset: float = _LIST_OFFSET
) -> IntArray:
    """Distinct rows of several rankings, best first, by their sums of weight / (offset + rank).

    Of equals, that of the earlier ranking comes first.
    """
    every = np.concatenate([np.zeros(0, np.int32), *rankings])
    shares = np.concatenate(
        [np.zeros(0)]
        + [
            weight / (offset + np.arange(len(ranking)))
            for ranking, weight in zip(rankings, weights, strict=True)
        ]
    )
    rows, first, place = np.unique(every, return_index=True, return_inverse=True)
    sums = np.bincount(place, shares, len(rows))
    order = np.lexsort((first, -sums))
    return rows[order].astype(np.int32)


def _filled(values: FloatArray) -> FloatArray:
    given = values[~np.isnan(values)]
    least = float(given.min()) if len(given) else 1.0
    return np.where(np.isnan(values), np.float32(min(least, _NOT_MENTIONED) / 2), values)


def _positions(indices: Indices, wanted: Indices) -> Indices:
    place = {int(index): at for at, index in enumerate(indices)}
    return np.array([place[int(index)] for index in wanted], np.int64)
