"""The nodes of the next version, from the specs of those that a batch of edits touched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from tree.edits import NodeSpec
from tree.errors import InvalidEdit
from tree.node import ROOT, Node, Nodes, TreeSettings, stored_centroids
from tree.rows import IntArray, Rows
from tree.vectors import (
    CENTROIDS_PER_NODE,
    FloatArray,
    Int8Matrix,
    centroids_of_groups,
    inverse_norms,
)

_NO_SCALE: FloatArray = np.zeros((0, CENTROIDS_PER_NODE), np.float32)


class NodeBuilder:
    """Makes the touched nodes and their ancestors anew, leaves first, and checks each of them.

    `specs` has None for a removed node; `members` gives the rows of a leaf.
    """

    def __init__(
        self,
        before: Nodes,
        specs: Mapping[int, NodeSpec | None],
        members: Callable[[int], IntArray],
        rows: Rows,
        settings: TreeSettings,
    ) -> None:
        self._before = before
        self._specs = specs
        self._members = members
        self._rows = rows
        self._settings = settings
        self._parents: dict[int, int] = {}  # of every child of the touched nodes
        self._touched: dict[int, NodeSpec] = {}
        self._ready: dict[int, Node] = {}
        self._centroids: dict[int, Int8Matrix] = {}  # centroids of the nodes that are ready

    def nodes(self) -> Nodes:
        """All nodes of the next version. Raises InvalidEdit when they do not make a tree.

        O(touched nodes · fan-out).
        """
        alive = {node_id: spec for node_id, spec in self._specs.items() if spec is not None}
        self._adopt(alive)
        self._touch(alive)
        levels = self._levels()
        if lost := sorted(self._touched.keys() - set(chain.from_iterable(levels))):
            raise InvalidEdit(f"nodes {lost[:5]} hang from nothing")
        for level in levels:
            ready = self._settled([self._touched[node_id] for node_id in level])
            self._ready.update((node.id, node) for node in ready)
            centroids = centroids_of_groups([node.holding(self._rows) for node in ready])
            self._centroids.update(zip(level, centroids, strict=True))
        nodes = self._before
        for node_id, spec in self._specs.items():
            if spec is None and node_id in nodes:
                if self._before[node_id].parent not in self._specs:
                    raise InvalidEdit(f"node {node_id} is dropped, but its parent keeps it")
                nodes = nodes.remove(node_id)
        for node in self._ready.values():
            nodes = nodes.insert(node.id, node)
        for child, parent in self._parents.items():
            if child not in self._ready and nodes[child].parent != parent:
                nodes = nodes.insert(child, replace(nodes[child], parent=parent))
        return nodes

    def _levels(self) -> list[list[int]]:
        """The touched nodes below the root by levels: nodes come after their children."""
        levels: list[list[int]] = []

        def rank(node_id: int) -> int:
            below = [child for child in self._touched[node_id].children if child in self._touched]
            level = 1 + max(map(rank, below), default=-1)
            if level == len(levels):
                levels.append([])
            levels[level].append(node_id)
            return level

        if ROOT in self._touched:
            rank(ROOT)
        return levels

    def _adopt(self, alive: Mapping[int, NodeSpec]) -> None:
        """Raises InvalidEdit where a child has two parents."""
        parents = {child: spec.id for spec in alive.values() for child in spec.children}
        if ROOT in parents or len(parents) != sum(len(spec.children) for spec in alive.values()):
            raise InvalidEdit("a node has two parents, or is the root and has one")
        for child, parent in parents.items():
            known = self._before.get(child)
            former = known.parent if known else None
            if former not in (None, parent) and former not in self._specs:
                raise InvalidEdit(f"node {child} would hang from {former} and {parent}")
        self._parents = parents

    def _touch(self, alive: Mapping[int, NodeSpec]) -> None:
        """Add the nodes that edits name, and their ancestors, whose counts change too."""
        self._touched.update(alive)
        for node_id in alive:
            above = self._parent(node_id)
            while above is not None and above not in self._touched:
                self._touched[above] = self._before[above].spec()
                above = self._parent(above)

    def _parent(self, node_id: int) -> int | None:
        if node_id in self._parents:
            return self._parents[node_id]
        known = self._before.get(node_id)
        return known.parent if known else None

    def _settled(self, specs: Sequence[NodeSpec]) -> list[Node]:
        """The nodes of one level, in its order."""
        blocks = [self._child_centroids(spec) for spec in specs if spec.children]
        scale = inverse_norms(np.concatenate(blocks)) if blocks else _NO_SCALE
        scales = iter(np.split(scale, np.cumsum([len(block) for block in blocks])[:-1]))
        ready = iter(blocks)
        return [
            self._inner(spec, next(ready), next(scales)) if spec.children else self._leaf(spec)
            for spec in specs
        ]

    def _leaf(self, spec: NodeSpec) -> Node:
        rows = self._members(spec.id)
        if not len(rows) and spec.id != ROOT:
            raise InvalidEdit(f"leaf {spec.id} would be empty")
        if len(rows) > self._settings.leaf_capacity:
            raise InvalidEdit(f"leaf {spec.id} would hold {len(rows)} items")
        return Node.of_rows(spec, self._parent(spec.id), rows)

    def _inner(self, spec: NodeSpec, child_centroids: Int8Matrix, scale: FloatArray) -> Node:
        children = [self._child(spec, child) for child in spec.children]
        return Node.of_children(
            spec, self._parent(spec.id), children, child_centroids, scale.copy()
        )

    def _child_centroids(self, spec: NodeSpec) -> Int8Matrix:
        """The centroids of its children: int8[children, CENTROIDS_PER_NODE, dimensions]."""
        if not 2 <= len(spec.children) <= self._settings.fan_out:
            raise InvalidEdit(f"node {spec.id} would have {len(spec.children)} children")
        known = self._before.get(spec.id)
        if known is None or known.children != spec.children:
            return np.stack([self._facets(self._child(spec, child)) for child in spec.children])
        child_centroids = known.child_centroids.copy()
        for at, child in enumerate(spec.children):
            if child in self._centroids:
                child_centroids[at] = self._centroids[child]
        return child_centroids

    def _child(self, spec: NodeSpec, child: int) -> Node:
        if child in self._ready:
            return self._ready[child]
        node = self._before.get(child)
        if node is None or child in self._specs:  # a spec that is not touched is a drop
            raise InvalidEdit(f"node {spec.id} has a child {child} that is not there")
        return node

    def _facets(self, node: Node) -> Int8Matrix:
        if node.id in self._centroids:
            return self._centroids[node.id]
        return stored_centroids(node, self._before, self._rows)
