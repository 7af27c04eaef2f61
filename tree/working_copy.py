"""`WorkingCopy`: a tree while edits on it are planned, with node specs and leaf contents."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from tree.build import Key, titled
from tree.edits import NodeSpec, Reshape
from tree.item import Item
from tree.node import ROOT
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import CENTROIDS_PER_NODE, Int8Matrix, centroids_of_groups

_NO_ROWS: IntArray = np.zeros(0, np.int32)


class WorkingCopy:
    """A tree whose items and nodes can be moved, at the cost of the nodes that are read.

    `put` and `drop` change items; `reshape` is the edit for all other changes of nodes. Nothing
    here keeps a leaf or a node within its limits.
    """

    def __init__(self, tree: SemanticTree) -> None:
        self.settings = tree.settings
        self.next_node = tree.next_node
        self.count = len(tree)
        self._tree = tree
        self._specs: dict[int, NodeSpec] = {}
        self._parents: dict[int, int] = {}
        self._items: dict[int, list[str]] = {}
        self._row_of: dict[str, int] = {}  # of the items in the leaves that were read
        self._vector_of: dict[str, Int8Matrix] = {}  # of added items
        self._keys: dict[str, Key] = {}
        self._spellings: dict[str, str] = {}
        self._home: dict[str, int] = {}
        self._absent: set[str] = set()  # items that are not in the tree
        self._dropped: set[int] = set()
        self._reshaped: set[int] = set()
        self._touched: dict[int, None] = {}  # leaves that have got or lost items, in order

    # -- items

    def look_up(self, ids: Sequence[str]) -> None:
        """Find the places of several items at once, which is cheaper than one by one."""
        leaves = self._tree.rows.leaf
        for item_id, row in zip(ids, self._tree.rows_of(ids), strict=True):
            if row is not None:
                self._home[item_id] = int(leaves[row])
            else:
                self._absent.add(item_id)

    def put(self, item: Item, vector: Int8Matrix, leaf: int) -> None:
        """Put the item in `leaf`, and remove it from its old leaf."""
        self.drop(item.id)
        self.learn(item)
        self._vector_of[item.id] = vector
        self._home[item.id] = leaf
        self.content(leaf).append(item.id)
        self._touched[leaf] = None
        self.count += 1

    def drop(self, item_id: str) -> None:
        """Remove the item; nothing happens when the tree does not hold it."""
        home = self._home.pop(item_id, None)
        if home is None:
            if item_id in self._absent:
                return
            leaf = self._tree.leaf_of(item_id)
            if leaf is None:
                return
            home = leaf.id
        self.content(home).remove(item_id)
        self._absent.add(item_id)
        self._touched[home] = None
        self.count -= 1

    def learn(self, item: Item) -> None:
        """Note the key of an item, and the spelling of its categories."""
        key = self._keys[item.id] = item.key
        self._spellings.update(zip(key, (item.domain, *item.categories), strict=True))

    def key(self, item_id: str) -> Key:
        """The item's key; of an item placed earlier, that of the category it was placed in."""
        if item_id in self._keys:
            return self._keys[item_id]
        leaf = self._tree.leaf_of(item_id)
        steps = self._tree.path(leaf.id) if leaf else []
        return next((step.key for step in reversed(steps) if step.key), ())

    def spelled(self, part: str) -> str:
        """A key component in the spelling of a label."""
        return titled(self._spellings.get(part, part))

    def vectors(self, items: Sequence[str]) -> Int8Matrix:
        """int8[items, dimensions]."""
        found = np.empty((len(items), self._tree.rows.dimensions), np.int8)
        old = []
        for at, item_id in enumerate(items):
            if item_id in self._vector_of:
                found[at] = self._vector_of[item_id]
            else:
                old.append(at)
        found[old] = self._tree.rows.vectors[[self._row_of[items[at]] for at in old]]
        return found

    # -- nodes as they are now

    def touched_leaves(self) -> Iterator[int]:
        """Leaves that have got or lost items, in that order, if they are still leaves."""
        for leaf in list(self._touched):
            if leaf not in self._dropped and not self.spec(leaf).children:
                yield leaf

    def spec(self, node: int) -> NodeSpec:
        """The node without its items."""
        if node not in self._specs:
            self._specs[node] = self._tree.node(node).spec()
        return self._specs[node]

    def content(self, leaf: int) -> list[str]:
        """Ids of the items in a leaf."""
        if leaf not in self._items:
            rows = self._tree.node(leaf).rows if leaf < self._tree.next_node else _NO_ROWS
            ids = self._items[leaf] = self._tree.rows.ids(rows)
            self._row_of.update(zip(ids, rows.tolist(), strict=True))
        return self._items[leaf]

    def parent(self, node: int) -> int:
        if node in self._parents:
            return self._parents[node]
        parent = self._tree.node(node).parent
        return ROOT if parent is None else parent

    def siblings(self, node: int) -> list[int]:
        """The other children of a node's parent."""
        return [child for child in self.spec(self.parent(node)).children if child != node]

    def items_below(self, top: int) -> list[str]:
        """Ids of the items in `top` and below it, by the ids of their leaves."""
        leaves = [node for node in (top, *self._below(top)) if not self.spec(node).children]
        return [item_id for leaf in sorted(leaves) for item_id in self.content(leaf)]

    def height(self, node: int) -> int:
        """Levels below a node."""
        if not self._known_anew(node):
            return self._tree.node(node).height
        children = self.spec(node).children
        return 1 + max(map(self.height, children)) if children else 0

    def centroids(self, node: int) -> Int8Matrix:
        """int8[CENTROIDS_PER_NODE, dimensions]: the centroids of a node."""
        return self.centroids_of([node])[0]

    def centroids_of(self, nodes: Sequence[int]) -> Int8Matrix:
        """int8[nodes, CENTROIDS_PER_NODE, dimensions]: cheaper than one node at a time."""
        dimensions = self._tree.rows.dimensions
        found = np.empty((len(nodes), CENTROIDS_PER_NODE, dimensions), np.int8)
        fresh = []
        for at, node in enumerate(nodes):
            if self._known_anew(node):
                fresh.append(at)
            else:
                found[at] = self._tree.centroids_of(self._tree.node(node))
        if fresh:
            found[fresh] = centroids_of_groups([self._holding(nodes[at]) for at in fresh])
        return found

    def _holding(self, node: int) -> Int8Matrix:
        """The vectors that its centroids sum up: of its items, or its children's centroids."""
        children = self.spec(node).children
        if children:
            return self.centroids_of(children).reshape(-1, self._tree.rows.dimensions)
        return self.vectors(self.content(node))

    def _below(self, top: int) -> list[int]:
        found: list[int] = []
        pending = list(self.spec(top).children)
        while pending:
            node = pending.pop()
            found.append(node)
            pending.extend(self.spec(node).children)
        return found

    def _known_anew(self, node: int) -> bool:
        return node in self._specs or node in self._items or node >= self._tree.next_node

    # -- changes of shape

    def add(
        self, like: NodeSpec, *, items: Sequence[str] = (), children: Sequence[int] = ()
    ) -> int:
        """A new node with the names of `like`, without a parent yet."""
        node = self.next_node
        spec = NodeSpec(node, like.label, like.signpost, like.key, tuple(children))
        self._put(spec, items)
        return node

    def fill(self, leaf: int, items: Sequence[str]) -> None:
        """Set the items of a leaf."""
        self._put(self.spec(leaf), items)

    def hang(self, node: int, children: Sequence[int]) -> None:
        """Set the children of a node; with children it has no items."""
        spec = msgspec.structs.replace(self.spec(node), children=tuple(children))
        self._put(spec, () if children else self.content(node))

    def substitute(self, node: int, others: Sequence[int]) -> None:
        """Replace a node by `others` among the children of its parent."""
        parent = self.parent(node)
        children = list(self.spec(parent).children)
        at = children.index(node)
        self.hang(parent, [*children[:at], *others, *children[at + 1 :]])
        self.remove(node)

    def add_siblings(self, node: int, others: Sequence[int]) -> None:
        """Add `others` to the parent of a node, next to it."""
        parent = self.parent(node)
        children = self.spec(parent).children
        at = children.index(node) + 1
        self.hang(parent, [*children[:at], *others, *children[at:]])

    def remove(self, node: int) -> None:
        """Remove the node; the caller moves its children and its place."""
        self._dropped.add(node)

    def regraft(self, specs: Sequence[NodeSpec], contents: Sequence[Sequence[str]]) -> None:
        """Replace the subtree below the first of `specs`, which keeps its id, by the others.

        Parents come first; the leaves among them take `contents` in order.
        """
        self._dropped.update(self._below(specs[0].id))
        groups = iter(contents)
        for spec in specs:
            self._put(spec, () if spec.children else next(groups))

    def reshape(self) -> Reshape | None:
        """The edit that brings the nodes into their new shape; None if nothing has changed."""
        if not self._reshaped and not self._dropped:
            return None
        gone = {node for node in self._dropped if node < self._tree.next_node}
        put = [
            msgspec.structs.replace(
                self.spec(node),
                items=() if self.spec(node).children else tuple(self.content(node)),
            )
            for node in sorted(self._reshaped - self._dropped)
        ]
        return Reshape(tuple(sorted(gone)), tuple(put))

    def _put(self, spec: NodeSpec, items: Sequence[str]) -> None:
        """Set the node, and recompute the heights of its ancestors."""
        self.next_node = max(self.next_node, spec.id + 1)
        self._specs[spec.id] = spec
        self._parents.update(dict.fromkeys(spec.children, spec.id))
        self._items[spec.id] = list(items)
        self._home.update(dict.fromkeys(items, spec.id))
        self._reshaped.add(spec.id)
        node = spec.id
        while node != ROOT and (node in self._parents or node < self._tree.next_node):
            node = self.parent(node)
            self.spec(node)
