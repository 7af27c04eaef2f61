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
from tree.vectors import DIMENSIONS, FACETS, FloatArray, Int8Matrix, facets, inverse_norms

LEXICAL = "lexical"  # the embedder that needs nothing
ROOT = 0
_NO_ROWS: IntArray = np.zeros(0, np.int32)
_NO_SLATE: Int8Matrix = np.zeros((0, FACETS, DIMENSIONS), np.int8)
_NO_SCALE: FloatArray = np.zeros((0, FACETS), np.float32)


class TreeSettings(msgspec.Struct, frozen=True):
    """What shapes a tree; part of every snapshot. For `embedder` see `tree.embedders`."""

    leaf_capacity: int = 20
    fan_out: int = 16
    seed: int = 0
    embedder: str = LEXICAL

    def depth_limit(self, items: int) -> int:
        """Levels below the root that `items` may take: ⌈log_fan_out(n / leaf_capacity)⌉ + 2."""
        levels, reach = 0, self.leaf_capacity
        while reach < items:
            levels, reach = levels + 1, reach * self.fan_out
        return levels + 2


class Space(msgspec.Struct, frozen=True):
    """The vector space of a tree: which embedder, and its frozen state (empty when unfitted)."""

    embedder: str
    fingerprint: str
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of one version. `slate` holds its children's facets, in the order of `children`."""

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
    slate: Int8Matrix = field(default_factory=lambda: _NO_SLATE)
    slate_scale: FloatArray = field(default_factory=lambda: _NO_SCALE)

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
        slate: Int8Matrix,
        slate_scale: FloatArray | None = None,
    ) -> Node:
        """An inner node over `children`, whose facets `slate` holds in the same order.

        `slate_scale` is `inverse_norms(slate)`, where the caller has it.
        """
        return cls(
            spec.id, parent, spec.label, spec.signpost, spec.key, spec.locked,
            children=spec.children,
            inner=tuple(at for at, child in enumerate(children) if child.children),
            count=sum(child.count for child in children),
            height=1 + max(child.height for child in children),
            slate=slate,
            slate_scale=inverse_norms(slate) if slate_scale is None else slate_scale,
        )  # fmt: skip

    @property
    def is_leaf(self) -> bool:
        return not self.children

    def facets(self, rows: Rows) -> Int8Matrix:
        """int8[FACETS, DIMENSIONS]: the directions that stand for it, found from what it holds."""
        return facets(self.holding(rows))

    def holding(self, rows: Rows) -> Int8Matrix:
        """The vectors that its facets sum up: of its items, or its children's facets."""
        return self.slate.reshape(-1, DIMENSIONS) if self.children else rows.vectors[self.rows]

    def spec(self, items: tuple[str, ...] = ()) -> NodeSpec:
        """The node as an edit would put it, with `items`."""
        return NodeSpec(
            self.id, self.label, self.signpost, self.key, self.children, items, self.locked
        )


Nodes: TypeAlias = "HashTrieMap[int, Node]"  # not subscriptable at run time


def noted_facets(node: Node, nodes: Nodes, rows: Rows) -> Int8Matrix:
    """`node.facets(rows)` as its parent's slate has noted them; nobody notes those of the root."""
    if node.parent is None:
        return node.facets(rows)
    parent = nodes[node.parent]
    return parent.slate[parent.children.index(node.id)]
