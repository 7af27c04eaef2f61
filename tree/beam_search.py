"""Beam search over the tree with any scorer, and the scorer by vectors.

The paper's Algorithm 1 (§2.3.2) goes depth-first into the best branch and stops when it has
enough items, which serves one interest. Here all branches of a level compete, a scorer returns
one column per interest, and every interest keeps places in the beam.
"""

import heapq
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tree.node import Node
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray, Int8Matrix, cosines

_RESERVED = 0.25  # share of the beam that is divided among the interests


@dataclass(frozen=True, slots=True)
class Level:
    """The options of one step: the children of the nodes that the step before has kept."""

    tree: SemanticTree
    parents: Sequence[Node]

    @property
    def options(self) -> list[Node]:
        return [child for parent in self.parents for child in self.tree.children(parent)]


# float32[options, interests]: higher is better; scores of all levels are compared
Score = Callable[[Level], Awaitable[FloatArray]]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The leaves that a search found, best first, and how much it scored."""

    leaves: list[Node]
    offered: int  # nodes scored
    levels: int


async def search(tree: SemanticTree, score: Score, *, leaves: int, breadth: int) -> SearchResult:
    """The best leaves for a scorer, best first, at most `leaves` of them.

    `breadth` inner nodes are expanded per level. With 64, the leaves found hold .85 of the top 20
    of a full scan; with 20, .78 (20 leaves). Leaves of all depths compete until the end.
    O(breadth · fan-out · depth) scores.
    """
    if tree.root.is_leaf:
        return SearchResult([tree.root] if len(tree) else [], 0, 0)
    ids: list[npt.NDArray[np.int64]] = []  # of the leaves that were offered, level by level
    leaf_scores: list[FloatArray] = []
    frontier = [tree.root]
    offered = levels = 0
    while frontier:
        scores = await score(Level(tree, frontier))
        children = np.fromiter(
            itertools.chain.from_iterable(parent.children for parent in frontier),
            np.int64, len(scores),
        )  # fmt: skip
        inner = _inner(frontier)
        is_leaf = np.ones(len(scores), bool)
        is_leaf[inner] = False
        ids.append(children[is_leaf])
        leaf_scores.append(scores[is_leaf])
        offered += len(scores)
        levels += 1
        frontier = tree.nodes(children[inner][beam(scores[inner], breadth)].tolist())
    best = beam(np.concatenate(leaf_scores), leaves)
    return SearchResult(tree.nodes(np.concatenate(ids)[best].tolist()), offered, levels)


def _inner(parents: Sequence[Node]) -> list[int]:
    """Positions of the children that are inner nodes, among all children of the parents."""
    starts = itertools.accumulate((len(parent.children) for parent in parents), initial=0)
    return [
        start + at for parent, start in zip(parents, starts, strict=False) for at in parent.inner
    ]


def cut(tree: SemanticTree, width: int, tops: Sequence[Node] = ()) -> list[Node]:
    """At most `width` nodes that hold every item once, of sizes as equal as the tree allows.

    The largest node is replaced by its children as long as there is room. The result depends on
    the version alone. It is the root when that is a leaf or has more than `width` children. With
    `tops`, the nodes hold the items of these nodes instead of all items.
    """
    held = {node.id: node for node in tops or [tree.root]}
    heap = [(-node.count, node.id) for node in held.values()]
    heapq.heapify(heap)
    while heap:
        _, largest = heapq.heappop(heap)
        node = held[largest]
        if node.children and len(held) - 1 + len(node.children) <= width:
            children = tree.children(node)
            del held[largest]
            held |= {child.id: child for child in children}
            for child in children:
                heapq.heappush(heap, (-child.count, child.id))
    return list(held.values())


def beam(scores: FloatArray, width: int) -> list[int]:
    """The rows of `scores` (float32[options, interests]) to keep: at most `width`, best first.

    Options are ordered by their best score over the interests. A quarter of the beam is divided
    among the interests, so that the strongest interest does not take all of it.
    """
    best = scores.max(axis=1) if scores.size else np.zeros(len(scores), np.float32)
    order = np.argsort(-best, kind="stable")
    share = int(width * _RESERVED) // max(1, scores.shape[1])
    if len(order) > width and share and scores.shape[1] > 1:
        reserved = np.zeros(len(order), bool)
        reserved[np.argpartition(-scores, share - 1, axis=0)[:share]] = True
        others = order[~reserved[order]][: width - int(reserved.sum())]
        reserved[others] = True
        order = order[reserved[order]]
    return order[:width].tolist()


def blend(similarity: FloatArray, weights: FloatArray, inverse_temperature: float) -> FloatArray:
    """log Σⱼ wⱼ exp(β · similarityⱼ) / β per row, β the inverse temperature: float32[rows].

    A soft maximum: an item similar to one direction scores high, whatever its similarity to the
    others is; similarity to several adds up. `weights` sum to 1, so the result lies within the
    similarities. Overwrites `similarity`.
    """
    similarity *= np.float32(inverse_temperature)
    np.exp(similarity, out=similarity)
    total = similarity @ weights
    np.log(total, out=total)
    total /= np.float32(inverse_temperature)
    return total


@dataclass(frozen=True)
class SimilarityScorer:
    """Scores by vectors: see `blend`, over the cosines to some directions.

    `directions` is int8[n, dimensions], `weights` float32[n] with sum 1, `interest_index` the
    interest of each direction (0 … interests-1). Scores have a column for all directions, and one
    for each interest.
    """

    directions: Int8Matrix
    weights: FloatArray
    interest_index: npt.NDArray[np.int64]
    inverse_temperature: float = 8.0

    async def __call__(self, level: Level) -> FloatArray:
        """See Score: the score of a node is that of the more similar of its centroids."""
        child_centroids = np.concatenate([parent.child_centroids for parent in level.parents])
        scale = np.concatenate([parent.child_scale for parent in level.parents])
        similarity = cosines(
            child_centroids.reshape(-1, child_centroids.shape[-1]), scale.ravel(), self.directions
        )
        similarity *= np.float32(self.inverse_temperature)
        np.exp(similarity, out=similarity)
        sums = similarity @ self._shares
        sums = sums.reshape(len(child_centroids), -1, sums.shape[1]).max(axis=1)
        return np.log(sums, out=sums) / np.float32(self.inverse_temperature)

    @cached_property
    def _shares(self) -> FloatArray:
        """float32[directions, 1 + interests]: the weights, of all directions and per interest."""
        own = self.interest_index[:, None] == np.arange(int(self.interest_index.max()) + 1)
        return self.weights[:, None] * np.column_stack([np.ones(len(own), bool), own])


def rows_below(leaves: Sequence[Node]) -> IntArray:
    """The rows of some leaves, in the order of the leaves."""
    if not leaves:
        return np.zeros(0, np.int32)
    return np.concatenate([leaf.rows for leaf in leaves])
