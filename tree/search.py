"""Beam search over the tree, for any scorer; and the embedded scorer and full scan.

The paper's Algorithm 1 (§2.3.2) goes depth-first into the best branch and stops when it has
enough items, which serves one interest. Here all branches of a level compete, a scorer returns
one column per interest, and every interest keeps slots in the beam.
"""

import heapq
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tree.node import Node
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix, cosines

_RESERVED = 0.25  # of the beam goes to the interests in turn, the rest to the best overall


@dataclass(frozen=True, slots=True)
class Level:
    """What competes for the next step of the beam: children of the frontier, in its order."""

    tree: SemanticTree
    parents: Sequence[Node]

    @property
    def options(self) -> list[Node]:
        return [child for parent in self.parents for child in self.tree.children(parent)]


# float32[options, interests]; higher is better, comparable over the levels
Score = Callable[[Level], Awaitable[FloatArray]]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a search ended: leaves best first, and what it looked at."""

    leaves: list[Node]
    offered: int  # nodes scored
    levels: int


async def search(tree: SemanticTree, score: Score, *, leaves: int, breadth: int) -> Found:
    """The best leaves for a scorer, best first, at most `leaves` of them.

    `breadth` inner nodes are expanded per level: cheap scores
    afford a wide one (64 finds .85 of a full scan's top 20 in 20 leaves, 20 finds .78).
    Leaves of every depth stay in the race until the end. O(breadth · fan-out · depth) scores.
    """
    if tree.root.is_leaf:
        return Found([tree.root] if len(tree) else [], 0, 0)
    race: list[FloatArray] = []  # the marks of all leaves that were offered, level by level
    entrants: list[tuple[_Offer, npt.NDArray[np.int64]]] = []
    frontier = [tree.root]
    offered = levels = 0
    while frontier:
        offer = _Offer(tree, frontier)
        marks = await score(Level(tree, frontier))
        offered += len(marks)
        levels += 1
        inner = offer.inner()
        leaf = np.delete(np.arange(len(marks)), inner)
        race.append(marks[leaf])
        entrants.append((offer, leaf))
        frontier = offer.nodes([inner[at] for at in beam(marks[inner], breadth)])
    best = beam(np.concatenate(race), leaves)
    ends = np.cumsum([len(part) for part in race])
    found: dict[int, Node] = {}
    for level, (offer, leaf) in enumerate(entrants):
        start = ends[level] - len(leaf)
        mine = [at for at in best if start <= at < ends[level]]
        found.update(zip(mine, offer.nodes(leaf[[at - start for at in mine]]), strict=True))
    reached = [found[at] for at in best]
    return Found(reached, offered, levels)


def cut(tree: SemanticTree, width: int, tops: Sequence[Node] = ()) -> list[Node]:
    """At most `width` nodes that hold every item once, of sizes as equal as the tree allows.

    The largest node gives way to its children as long as there is room: the upper levels in one
    slate, the same for every reader of a version. The root itself when it is a leaf, or when it
    has more than `width` children. `tops` cuts what is below some nodes instead.
    """
    held = {node.id: node for node in tops or [tree.root]}
    heap = [(-node.count, node.id) for node in held.values()]
    heapq.heapify(heap)
    while heap:
        _, largest = heapq.heappop(heap)
        children = tree.children(held[largest])
        if children and len(held) - 1 + len(children) <= width:
            del held[largest]
            held |= {child.id: child for child in children}
            for child in children:
                heapq.heappush(heap, (-child.count, child.id))
    return list(held.values())


class _Offer:
    """The children of a frontier by position, without touching them all."""

    def __init__(self, tree: SemanticTree, parents: Sequence[Node]) -> None:
        self._tree = tree
        self._parents = parents
        self._ends = list(itertools.accumulate(len(parent.children) for parent in parents))

    def inner(self) -> list[int]:
        """Positions of the children that are inner nodes."""
        starts = [0, *self._ends]
        return [
            start + at
            for parent, start in zip(self._parents, starts, strict=False)
            for at in parent.inner
        ]

    def nodes(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> list[Node]:
        starts = [0, *self._ends]
        owners = np.searchsorted(self._ends, positions, side="right").tolist()
        return [
            self._tree.node(self._parents[owner].children[position - starts[owner]])
            for position, owner in zip(positions, owners, strict=True)
        ]


def beam(marks: FloatArray, width: int) -> list[int]:
    """Rows of `marks` (float32[options, interests]) that stay: at most `width`, best first.

    An option's worth is its best mark over the interests. A quarter of the beam is shared out
    among the interests, so that the strongest does not take it all.
    """
    worth = marks.max(axis=1) if marks.size else np.zeros(len(marks), np.float32)
    order = np.argsort(-worth, kind="stable")
    share = int(width * _RESERVED) // max(1, marks.shape[1])
    if len(order) > width and share and marks.shape[1] > 1:
        reserved = np.zeros(len(order), bool)
        reserved[np.argpartition(-marks, share - 1, axis=0)[:share]] = True
        others = order[~reserved[order]][: width - int(reserved.sum())]
        reserved[others] = True
        order = order[reserved[order]]
    return order[:width].tolist()


def blend(similarity: FloatArray, weights: FloatArray, sharpness: float) -> FloatArray:
    """log Σⱼ wⱼ exp(sharpness · similarityⱼ) / sharpness, per row: float32[rows].

    A soft maximum: an item close to one interest scores high whatever the others say, and
    closeness to several still adds up. `weights` sum to 1, so the result stays within the
    similarities. Overwrites `similarity`.
    """
    similarity *= np.float32(sharpness)
    np.exp(similarity, out=similarity)
    total = similarity @ weights
    np.log(total, out=total)
    total /= np.float32(sharpness)
    return total


@dataclass(frozen=True, slots=True)
class Similarity:
    """The embedded scorer: weighted log-sum-exp of the cosines to some directions.

    `directions` is int8[n, dimensions], `weights` float32[n] with sum 1. `groups` gives the
    interest of each direction (0 … interests-1); each makes a column for the beam.
    """

    directions: Int8Matrix
    weights: FloatArray
    groups: npt.NDArray[np.int64]
    sharpness: float = 8.0

    async def __call__(self, level: Level) -> FloatArray:
        """See Score: a node is as near as the nearer of its facets."""
        slate = np.concatenate([parent.slate for parent in level.parents])
        scale = np.concatenate([parent.slate_scale for parent in level.parents])
        near = cosines(slate.reshape(-1, DIMENSIONS), scale.ravel(), self.directions)
        near *= np.float32(self.sharpness)
        np.exp(near, out=near)
        marks = np.log(near @ self._shares) / np.float32(self.sharpness)
        return marks.reshape(len(slate), -1, marks.shape[1]).max(axis=1)

    @property
    def _shares(self) -> FloatArray:
        """float32[directions, 1 + interests]: the weights, of all directions and per interest."""
        own = self.groups[:, None] == np.arange(int(self.groups.max()) + 1)
        return self.weights[:, None] * np.column_stack([np.ones(len(own), bool), own])


def rows_below(leaves: Sequence[Node]) -> IntArray:
    """The rows of some leaves, in their order."""
    if not leaves:
        return np.zeros(0, np.int32)
    return np.concatenate([leaf.rows for leaf in leaves])
