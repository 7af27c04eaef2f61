"""Balanced spherical k-means: near-equal parts of a set of vectors.

Plain k-means follows the density of the data, so one part may hold most of it and a tree built
from it grows deep (7 levels at 100k items against 3 with equal parts). Here the sizes are a
hard constraint: every centroid has a price that rises while too many points want it (the dual of
the transport problem), and a greedy pass settles what the prices leave open.
"""

import numpy as np
import numpy.typing as npt

from tree.vectors import Int8Matrix

Labels = npt.NDArray[np.int64]
_Matrix = npt.NDArray[np.float32]

_POINTS_PER_PART = 256  # more points hardly move a centroid, and cost as much again
_ROUNDS = 12
_PRICE_STEPS = 40
_TILE = 65_536  # rows converted to float32 at a time


def unit(matrix: npt.NDArray[np.generic]) -> _Matrix:
    """Rows scaled to length 1, as float32; a zero row stays zero."""
    rows = matrix.astype(np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, lengths, out=rows, where=lengths > 0)


def balanced_parts(
    vectors: Int8Matrix, parts: int, seed: int, *, rows: npt.NDArray[np.int64] | None = None
) -> Labels:
    """A part 0 … parts-1 for every row; the sizes of two parts differ by at most 1.

    `rows` selects rows of `vectors`, by default all. The same input and seed give the same parts.
    O(rows · parts · dimensions) time, and O(rows · parts) memory beside the vectors.
    """
    if rows is None:
        rows = np.arange(len(vectors))
    if parts <= 1:
        return np.zeros(len(rows), np.int64)
    if parts >= len(rows):
        return np.arange(len(rows))
    centroids = _train(vectors, rows, parts, np.random.default_rng(seed))
    affinity = np.empty((len(rows), parts), np.float32)
    for start in range(0, len(rows), _TILE):
        tile = unit(vectors[rows[start : start + _TILE]])
        affinity[start : start + _TILE] = tile @ centroids.T
    return _settle(affinity - _prices(affinity, _PRICE_STEPS))


def packed_parts(vectors: Int8Matrix, weights: npt.NDArray[np.int64], parts: int) -> Labels:
    """Group few weighted vectors into at most `parts` groups of similar directions.

    Agglomerative: the lightest group joins the most similar one that leaves the sum smallest.
    O(rows² · dimensions): for category centroids, of which there are some hundreds.
    """
    part = np.arange(len(vectors))
    sums = unit(vectors) * weights[:, None]
    directions = unit(sums)
    loads = weights.astype(np.float64)  # inf once a group has joined another
    fair = loads.sum() / parts
    for _ in range(len(vectors) - parts):
        lightest = int(loads.argmin())
        crowding = np.maximum(0.0, (loads + loads[lightest]) / fair - 1)
        crowding[lightest] = np.inf
        best = int((directions @ directions[lightest] - crowding).argmax())
        part[part == lightest] = best
        sums[best] += sums[lightest]
        directions[best] = unit(sums[best])
        loads[best] += loads[lightest]
        loads[lightest] = np.inf
    return np.unique(part, return_inverse=True)[1]


def _train(
    vectors: Int8Matrix, rows: npt.NDArray[np.int64], parts: int, rng: np.random.Generator
) -> _Matrix:
    wanted = _POINTS_PER_PART * parts
    if len(rows) > wanted:
        rows = rows[np.sort(rng.choice(len(rows), wanted, replace=False))]
    points = unit(vectors[rows])
    centroids = _spread(points, parts, rng)
    for _ in range(_ROUNDS):
        affinity = points @ centroids.T
        part = (affinity - _prices(affinity, _PRICE_STEPS // 4)).argmax(axis=1)
        moved = unit(np.eye(parts, dtype=np.float32)[part].T @ points)
        centroids = np.where(np.any(moved, axis=1, keepdims=True), moved, centroids)
    return centroids


def _spread(points: _Matrix, parts: int, rng: np.random.Generator) -> _Matrix:
    """k-means++ seeds for cosine distance."""
    chosen = [int(rng.integers(len(points)))]
    distance = 1 - points @ points[chosen[0]]
    while len(chosen) < parts:
        odds = np.clip(distance, 0, None).astype(np.float64)
        total = odds.sum()
        pick = rng.choice(len(points), p=odds / total) if total > 0 else rng.integers(len(points))
        chosen.append(int(pick))
        distance = np.minimum(distance, 1 - points @ points[chosen[-1]])
    return points[chosen]


def _prices(affinity: _Matrix, steps: int) -> _Matrix:
    """Prices at which about a fair share of points choose each part (subgradient steps)."""
    rows, parts = affinity.shape
    price = np.zeros(parts, np.float32)
    scale = max(float(affinity.std()), 1e-6) / 2
    for step in range(steps):
        takers = np.bincount((affinity - price).argmax(axis=1), minlength=parts)
        excess = takers * (parts / rows) - 1
        if np.abs(excess).max() < 0.05:
            break
        price += np.float32(scale / (1 + 0.15 * step)) * np.clip(excess, -1, 1).astype(np.float32)
    return price


def _settle(affinity: _Matrix) -> Labels:
    """Greedy: each part takes the points that want it most; the others choose again."""
    rows, parts = affinity.shape
    fair, larger = divmod(rows, parts)
    room = np.full(parts, fair)
    demand = np.bincount(affinity.argmax(axis=1), minlength=parts)
    room[np.argsort(-demand, kind="stable")[:larger]] += 1
    labels = np.full(rows, -1)
    pending = np.arange(rows)
    while len(pending):
        bids = np.where(room > 0, affinity[pending], -np.inf)
        best = bids.argmax(axis=1)
        everyone = np.arange(len(pending))
        top = bids[everyone, best]
        bids[everyone, best] = -np.inf
        regret = top - np.maximum(bids.max(axis=1), -10.0)
        refused = []
        for part in np.unique(best):
            takers = np.flatnonzero(best == part)
            takers = takers[np.argsort(-regret[takers], kind="stable")]
            accepted, left = takers[: room[part]], takers[room[part] :]
            labels[pending[accepted]] = part
            room[part] -= len(accepted)
            refused.append(left)
        pending = pending[np.sort(np.concatenate(refused))]
    return labels
