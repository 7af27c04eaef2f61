"""`Node`, and the two values that all nodes of a tree share: its settings and its vector space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec
import numpy as np
from rpds import HashTrieMap

from tree.edits import NodeSpec
from tree.rows import IntArray, Rows
from tree.vectors import (
    CENTROIDS_PER_NODE,
    DIMENSIONS,
    FloatArray,
    Int8Matrix,
    centroids,
    inverse_norms,
)

ROOT = 0
_NO_ROWS: IntArray = np.zeros(0, np.int32)
_NO_CENTROIDS: Int8Matrix = np.zeros((0, CENTROIDS_PER_NODE, 0), np.int8)
_NO_SCALE: FloatArray = np.zeros((0, CENTROIDS_PER_NODE), np.float32)


class TreeSettings(msgspec.Struct, frozen=True):
    """What shapes a tree; part of every snapshot. For `embedder` see `app.embedders`."""

    leaf_capacity: int = 20
    fan_out: int = 16
    seed: int = 0
    embedder: str = "lexical"  # that of snapshots which name none

    def depth_limit(self, items: int) -> int:
        """Levels below the root that `items` may take: ⌈log_fan_out(n / leaf_capacity)⌉ + 2."""
        levels, reach = 0, self.leaf_capacity
        while reach < items:
            levels, reach = levels + 1, reach * self.fan_out
        return levels + 2


class Space(msgspec.Struct, frozen=True):
    """The vector space of a tree: which embedder, its frozen state (empty when unfitted), width."""

    embedder: str
    fingerprint: str
    state: bytes = b""
    dimensions: int = DIMENSIONS  # 1 byte each


@dataclass(frozen=True, slots=True)
class Node:
    """A node of one version; `child_centroids` are those of its `children`, in their order."""

    id: int
    parent: int | None
    label: str
    signpost: str = ""
    key: tuple[str, ...] = ()
    locked: bool = False
    children: tuple[int, ...] = ()
    inner: tuple[int, ...] = ()  # positions of the children that have children themselves
    rows: IntArray = field(default_factory=lambda: _NO_ROWS)
    count: int = 0
    height: int = 0  # levels below it
    child_centroids: Int8Matrix = field(default_factory=lambda: _NO_CENTROIDS)
    child_scale: FloatArray = field(default_factory=lambda: _NO_SCALE)

    @classmethod
    def of_rows(cls, spec: NodeSpec, parent: int | None, rows: IntArray) -> Node:
        """A leaf that holds `rows`."""
        return cls(
            spec.id, parent, spec.label, spec.signpost, spec.key, spec.locked,
            rows=rows, count=len(rows),
        )  # fmt: skip

    @classmethod
    def of_children(
        cls,
        spec: NodeSpec,
        parent: int | None,
        children: Sequence[Node],
        child_centroids: Int8Matrix,
        child_scale: FloatArray | None = None,
    ) -> Node:
        """An inner node over `children`; `child_centroids` are theirs, in the same order.

        `child_scale` is `inverse_norms(child_centroids)`, where the caller has it.
        """
        return cls(
            spec.id, parent, spec.label, spec.signpost, spec.key, spec.locked,
            children=spec.children,
            inner=tuple(at for at, child in enumerate(children) if child.children),
            count=sum(child.count for child in children),
            height=1 + max(child.height for child in children),
            child_centroids=child_centroids,
            child_scale=inverse_norms(child_centroids) if child_scale is None else child_scale,
        )  # fmt: skip

    @property
    def is_leaf(self) -> bool:
        return not self.children

    def centroids(self, rows: Rows) -> Int8Matrix:
        """int8[CENTROIDS_PER_NODE, dimensions]: the centroids of what the node holds."""
        return centroids(self.holding(rows))

    def holding(self, rows: Rows) -> Int8Matrix:
        """The vectors of which it has the centroids: of its items, or its children's centroids."""
        return (
            self.child_centroids.reshape(-1, rows.dimensions)
            if self.children
            else rows.vectors[self.rows]
        )

    def spec(self, items: tuple[str, ...] = ()) -> NodeSpec:
        """The node as an edit describes it, with `items`."""
        return NodeSpec(
            self.id, self.label, self.signpost, self.key, self.children, items, self.locked
        )


Nodes: TypeAlias = "HashTrieMap[int, Node]"  # not subscriptable at run time


def stored_centroids(node: Node, nodes: Nodes, rows: Rows) -> Int8Matrix:
    """`node.centroids(rows)`, as its parent has stored them; those of the root are not stored."""
    if node.parent is None:
        return node.centroids(rows)
    parent = nodes[node.parent]
    return parent.child_centroids[parent.children.index(node.id)]
