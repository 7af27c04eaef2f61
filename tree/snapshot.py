"""`SemanticTree`: one immutable version of the tree, and the step to the next one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rpds import HashTrieMap

from tree.assembly import Parts, filled, planted
from tree.draft import Draft
from tree.edits import Edit, NodeSpec
from tree.errors import UnknownNode
from tree.node import ROOT, Node, Nodes, Space, TreeSettings, stored_centroids
from tree.rows import Columns, Rows
from tree.vectors import Int8Matrix

_COMPACT_ABOVE = 4_096  # dead rows; below that they are not worth a copy
MOST_DOMAINS = 10_000  # that new items may bring, see `Domains`


class SemanticTree:
    """A version of the tree: nodes by id over shared rows.

    `arrived` counts all items that were added since it was built, also those that are gone.

    Two versions share the nodes that no edit between them has touched. `apply` costs O(touched
    nodes · fan-out), except when there are more than half as many dead rows as live ones, or too
    many unused domain names: then the rows are copied once, so that the average cost stays the
    same.
    """

    __slots__ = ("_nodes", "arrived", "next_node", "rows", "settings", "size", "space", "version")

    def __init__(
        self,
        *,
        version: int,
        settings: TreeSettings,
        space: Space,
        nodes: Nodes,
        rows: Rows,
        next_node: int,
        arrived: int = 0,
    ) -> None:
        self.version = version
        self.settings = settings
        self.space = space
        self.rows = rows
        self.size = rows.size
        self.next_node = next_node
        self.arrived = arrived
        self._nodes = nodes

    @classmethod
    def empty(cls, space: Space, settings: TreeSettings = TreeSettings()) -> SemanticTree:  # noqa: B008
        """Version 0: a root without items."""
        nodes = HashTrieMap({ROOT: Node(ROOT, None, "All items")})
        return cls(
            version=0,
            settings=settings,
            space=space,
            nodes=nodes,
            rows=Rows(space.dimensions),
            next_node=1,
        )

    @classmethod
    def assemble(
        cls,
        specs: Sequence[NodeSpec],
        content: Columns | Rows,
        leaf_sizes: Sequence[int],
        *,
        version: int,
        settings: TreeSettings,
        space: Space,
        next_node: int,
        leaf_centroids: Int8Matrix | None = None,
    ) -> SemanticTree:
        """A whole tree from its `Parts`. Raises InvalidEdit when they do not make one tree.

        `content` may be rows in place of the columns, already appended leaf by leaf and not yet
        published.
        """
        rows = content
        if isinstance(rows, Columns):
            rows = filled(specs, rows, leaf_sizes)
        return cls(
            version=version,
            settings=settings,
            space=space,
            nodes=planted(rows, specs, leaf_sizes, leaf_centroids, version),
            rows=rows,
            next_node=next_node,
        )

    # -- reading

    def __len__(self) -> int:
        """Live items, hidden and expired ones included."""
        return self.root.count

    def __contains__(self, item_id: str) -> bool:
        return self.row(item_id) is not None

    @property
    def root(self) -> Node:
        return self._nodes[ROOT]

    @property
    def node_count(self) -> int:
        return len(self._nodes)

    def node(self, node_id: int) -> Node:
        """Raises UnknownNode."""
        try:
            return self._nodes[node_id]
        except KeyError:
            raise UnknownNode(f"no node {node_id} in version {self.version}") from None

    def nodes(self, ids: Iterable[int]) -> list[Node]:
        """The nodes of some ids of this version, in their order."""
        nodes = self._nodes
        return [nodes[node_id] for node_id in ids]

    def has_node(self, node_id: int) -> bool:
        return node_id in self._nodes

    def children(self, node: Node) -> list[Node]:
        return self.nodes(node.children)

    def row(self, item_id: str) -> int | None:
        """The row of a live item; None when the tree does not hold it."""
        return self.rows.find(item_id, self.version, self.size)

    def rows_of(self, ids: Sequence[str]) -> list[int | None]:
        """The `row` of each of `ids`."""
        return self.rows.find_all(ids, self.version, self.size)

    def path(self, node_id: int) -> list[Node]:
        """The nodes from below the root down to `node_id` (the root's own path is empty)."""
        steps: list[Node] = []
        node = self.node(node_id)
        while node.parent is not None:
            steps.append(node)
            node = self._nodes[node.parent]
        return steps[::-1]

    def leaf_of(self, item_id: str) -> Node | None:
        row = self.row(item_id)
        return None if row is None else self._nodes[int(self.rows.leaf[row])]

    def siblings(self, node_id: int) -> list[Node]:
        """The other children of a node's parent."""
        parent = self.node(node_id).parent
        others = () if parent is None else self._nodes[parent].children
        return [self._nodes[other] for other in others if other != node_id]

    def walk(self, top: int = ROOT) -> Iterator[Node]:
        """`top` and everything below it, parents first, children in order."""
        pending = [self.node(top)]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(self._nodes[child] for child in reversed(node.children))

    def leaves(self, top: int = ROOT) -> Iterator[Node]:
        return (node for node in self.walk(top) if node.is_leaf)

    def item_ids(self, top: int = ROOT) -> Iterator[str]:
        """Ids of the live items below `top`, leaf by leaf."""
        for leaf in self.leaves(top):
            yield from self.rows.ids(leaf.rows)

    def centroids_of(self, node: Node) -> Int8Matrix:
        """int8[CENTROIDS_PER_NODE, dimensions]: the centroids of a node."""
        return stored_centroids(node, self._nodes, self.rows)

    def allowed(self, now: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """bool[size]: rows that are live in this version, not hidden and not expired."""
        rows, size = self.rows, self.size
        mask = rows.died[:size] > self.version
        mask &= ~rows.hidden[:size]
        mask &= rows.expires_at[:size] > now
        return mask

    def line_counts(self, now: float) -> tuple[int, int]:
        """How many live items have a line, and how many that are shown have none. O(rows)."""
        rows, size = self.rows, self.size
        has_line = rows.lines[:size] > 0
        enriched = np.count_nonzero(has_line & (rows.died[:size] > self.version))
        return int(enriched), int(np.count_nonzero(self.allowed(now) & ~has_line))

    def domains(self) -> set[str]:
        """The domains of the live items. O(rows): 7 ms per million."""
        rows, size = self.rows, self.size
        used = np.bincount(rows.domain[:size][rows.died[:size] > self.version])
        return {rows.domains[code] for code in np.flatnonzero(used).tolist()}

    def spec(self, node: Node, *, with_items: bool = True) -> NodeSpec:
        """The node as an edit would put it."""
        return node.spec(tuple(self.rows.ids(node.rows)) if with_items else ())

    def parts(self) -> Parts:
        """The arguments of `assemble` for this version."""
        leaves = list(self.leaves())
        return Parts(
            specs=[node.spec() for node in self.walk()],
            columns=self.rows.columns(np.concatenate([leaf.rows for leaf in leaves])),
            leaf_sizes=[len(leaf.rows) for leaf in leaves],
            leaf_centroids=np.stack([self.centroids_of(leaf) for leaf in leaves]),
        )

    # -- the next version

    def apply(self, edits: Iterable[Edit]) -> SemanticTree:
        """The version after this one. All edits or none: raises InvalidEdit and changes nothing."""
        return self.prepare(edits).publish()

    def prepare(self, edits: Iterable[Edit]) -> Pending:
        """The next version, checked, and invisible until it is published.

        One pending version at a time for all trees that share rows. Raises InvalidEdit.
        """
        base = self
        if self.rows.head != self.version or _worth_compacting(self.rows):
            base = self._compacted()
        draft = Draft(base._nodes, base.rows, base.settings, base.next_node)
        try:
            draft.take(edits)
            nodes = draft.settled()
        except BaseException:
            base.rows.truncate(base.size)
            raise
        return Pending(base, nodes, draft.gone, draft.next_node, base.arrived + draft.arrived)

    def at_version(self, version: int) -> SemanticTree:
        """The same content under another version number, on rows of its own."""
        copy = self._compacted()
        copy.version = copy.rows.head = version
        return copy

    def renumber(self, version: int) -> None:
        """Take another version number: only while nobody else has seen the tree."""
        self.rows.renumber(version)
        self.version = version

    def _compacted(self) -> SemanticTree:
        parts = self.parts()
        common = self.rows.words.common
        copy = SemanticTree.assemble(
            parts.specs,
            filled(parts.specs, parts.columns, parts.leaf_sizes, common),
            parts.leaf_sizes,
            version=self.version,
            settings=self.settings,
            space=self.space,
            next_node=self.next_node,
            leaf_centroids=parts.leaf_centroids,
        )
        copy.arrived = self.arrived
        return copy


@dataclass(frozen=True, slots=True)
class Pending:
    """A version that is not in the log yet."""

    base: SemanticTree
    nodes: Nodes
    gone: set[int]
    next_node: int
    arrived: int

    def publish(self) -> SemanticTree:
        """The new version, which is visible from now on."""
        base = self.base
        base.rows.publish(base.version + 1, base.size, self.gone)
        return SemanticTree(
            version=base.version + 1,
            settings=base.settings,
            space=base.space,
            nodes=self.nodes,
            rows=base.rows,
            next_node=self.next_node,
            arrived=self.arrived,
        )

    def abandon(self) -> None:
        """Discard it: another process committed first."""
        self.base.rows.truncate(self.base.size)


def _worth_compacting(rows: Rows) -> bool:
    names = len(rows.domains)
    forgotten = names > 2 * MOST_DOMAINS and rows.dead > names // 2  # most names have no item
    return forgotten or rows.dead > max(_COMPACT_ABOVE, (rows.size - rows.dead) // 2)
