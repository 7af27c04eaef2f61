"""A whole tree from its parts: after a build, from a stored snapshot, or as a copy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rpds import HashTrieMap

from tree.edits import NodeSpec
from tree.errors import InvalidEdit
from tree.node import ROOT, Node, Nodes
from tree.rows import Columns, Rows
from tree.terms import WordShares
from tree.vectors import Int8Matrix


class Parts(NamedTuple):
    """The parts of a whole tree.

    The leaves among `specs` take the next `leaf_sizes[i]` rows of `columns` each, in order (their
    `items` are ignored).
    """

    specs: Sequence[NodeSpec]  # parents first
    columns: Columns
    leaf_sizes: Sequence[int]
    leaf_centroids: (
        Int8Matrix | None
    )  # int8[leaves, CENTROIDS_PER_NODE, dimensions]; None: not known yet


def filled(
    specs: Sequence[NodeSpec],
    columns: Columns,
    leaf_sizes: Sequence[int],
    common: WordShares | None = None,
) -> Rows:
    """Rows that hold `columns`, not yet published; see `Parts`. Raises InvalidEdit."""
    leaves = [spec.id for spec in specs if not spec.children]
    count = len(columns.ids)
    if len(leaves) != len(leaf_sizes) or sum(leaf_sizes) != count:
        raise InvalidEdit("leaf sizes do not add up to the rows")
    rows = Rows(columns.vectors.shape[1], count, common)
    rows.append(columns, np.repeat(leaves, leaf_sizes))
    return rows


def planted(
    rows: Rows,
    specs: Sequence[NodeSpec],
    leaf_sizes: Sequence[int],
    leaf_centroids: Int8Matrix | None,
    version: int,
) -> Nodes:
    """The nodes over `rows`, which are published as of `version`; see `Parts` for the rest.

    Raises InvalidEdit when the parts do not make one tree.
    """
    leaves = [spec.id for spec in specs if not spec.children]
    if len(leaves) != len(leaf_sizes) or sum(leaf_sizes) != rows.size:
        raise InvalidEdit("leaf sizes do not add up to the rows")
    rows.publish(version, 0, ())
    ends = dict(zip(leaves, np.cumsum(leaf_sizes).tolist(), strict=True))
    sizes = dict(zip(leaves, leaf_sizes, strict=True))
    parents = {child: spec.id for spec in specs for child in spec.children}
    nodes: dict[int, Node] = {}
    centroids: dict[int, Int8Matrix] = {}  # centroids of the nodes whose parent is still to come
    if leaf_centroids is not None:
        centroids.update(zip(leaves, leaf_centroids, strict=True))
    for spec in reversed(specs):
        parent = parents.get(spec.id)
        if spec.children:
            try:
                children = [nodes[child] for child in spec.children]
                child_centroids = np.stack([centroids.pop(child) for child in spec.children])
            except KeyError as error:
                raise InvalidEdit(f"node {spec.id} has a child that is not there") from error
            node = Node.of_children(spec, parent, children, child_centroids)
        else:
            end = ends[spec.id]
            node = Node.of_rows(spec, parent, np.arange(end - sizes[spec.id], end, dtype=np.int32))
        nodes[spec.id] = node
        if spec.id not in centroids:
            centroids[spec.id] = node.centroids(rows)
    if ROOT not in nodes or nodes[ROOT].count != rows.size:
        raise InvalidEdit("the root does not hold every item")
    return HashTrieMap(nodes)
