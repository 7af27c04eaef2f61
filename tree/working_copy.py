"""`WorkingCopy`: a tree under edit, with node specs and leaf contents as they will be."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from tree.build import Key, titled
from tree.edits import NodeSpec, Reshape
from tree.item import Item
from tree.node import ROOT
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, FACETS, Int8Matrix, facets_of_groups

_NO_ROWS: IntArray = np.zeros(0, np.int32)


class WorkingCopy:
    """A tree whose items and nodes may be moved about, at the cost of what is looked at.

    Items come and go by `put` and `drop`; `reshape` sums up what the other methods did to the
    nodes. Nothing here keeps a leaf or a node within its bounds.
    """

    def __init__(self, tree: SemanticTree) -> None:
        self.settings = tree.settings
        self.next_node = tree.next_node
        self.count = len(tree)
        self._tree = tree
        self._specs: dict[int, NodeSpec] = {}
        self._parents: dict[int, int] = {}
        self._items: dict[int, list[str]] = {}
        self._row_of: dict[str, int] = {}  # of the items in the leaves that were looked at
        self._vector_of: dict[str, Int8Matrix] = {}  # of the items that came
        self._keys: dict[str, Key] = {}
        self._spellings: dict[str, str] = {}
        self._home: dict[str, int] = {}
        self._absent: set[str] = set()  # items that are not in the tree
        self._dropped: set[int] = set()
        self._reshaped: set[int] = set()
        self._touched: dict[int, None] = {}  # leaves that items came to or left, in order

    # -- items

    def look_up(self, ids: Sequence[str]) -> None:
        """Note where items are that are about to come or go: cheaper than one by one."""
        leaves = self._tree.rows.leaf
        for item_id, row in zip(ids, self._tree.rows_of(ids), strict=True):
            if row is not None:
                self._home[item_id] = int(leaves[row])
            else:
                self._absent.add(item_id)

    def put(self, item: Item, vector: Int8Matrix, leaf: int) -> None:
        """The item stands in `leaf`, and no longer where it was."""
        self.drop(item.id)
        self.learn(item)
        self._vector_of[item.id] = vector
        self._home[item.id] = leaf
        self.content(leaf).append(item.id)
        self._touched[leaf] = None
        self.count += 1

    def drop(self, item_id: str) -> None:
        """The item is gone; nothing happens when it is not there."""
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
        """The key of an item, and how its categories are spelled."""
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
        """A key component as a label is written."""
        return titled(self._spellings.get(part, part))

    def vectors(self, items: Sequence[str]) -> Int8Matrix:
        """int8[items, DIMENSIONS]."""
        found = np.empty((len(items), DIMENSIONS), np.int8)
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
        """Leaves that items came to or left, in that order; each as long as it is still a leaf."""
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
        """Ids of the items in `top` and below it, by the numbers of their leaves."""
        leaves = [node for node in (top, *self._below(top)) if not self.spec(node).children]
        return [item_id for leaf in sorted(leaves) for item_id in self.content(leaf)]

    def height(self, node: int) -> int:
        """Levels below a node."""
        if not self._known_anew(node):
            return self._tree.node(node).height
        children = self.spec(node).children
        return 1 + max(map(self.height, children)) if children else 0

    def facets(self, node: int) -> Int8Matrix:
        """int8[FACETS, DIMENSIONS]: the directions that stand for a node."""
        return self.facets_of([node])[0]

    def facets_of(self, nodes: Sequence[int]) -> Int8Matrix:
        """int8[nodes, FACETS, DIMENSIONS]: the facets of each, cheaper than one by one."""
        found = np.empty((len(nodes), FACETS, DIMENSIONS), np.int8)
        fresh = []
        for at, node in enumerate(nodes):
            if self._known_anew(node):
                fresh.append(at)
            else:
                found[at] = self._tree.facets_of(self._tree.node(node))
        found[fresh] = facets_of_groups([self._holding(nodes[at]) for at in fresh])
        return found

    def _holding(self, node: int) -> Int8Matrix:
        """The vectors that its facets sum up: of its items, or its children's facets."""
        children = self.spec(node).children
        if children:
            return self.facets_of(children).reshape(-1, DIMENSIONS)
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
        """A new node with the names of `like`, which hangs from nothing yet."""
        node = self.next_node
        spec = NodeSpec(node, like.label, like.signpost, like.key, tuple(children))
        self._put(spec, items)
        return node

    def fill(self, leaf: int, items: Sequence[str]) -> None:
        """The leaf holds `items` and nothing else."""
        self._put(self.spec(leaf), items)

    def hang(self, node: int, children: Sequence[int]) -> None:
        """The node has `children` and no others; with any, it holds no items."""
        spec = msgspec.structs.replace(self.spec(node), children=tuple(children))
        self._put(spec, () if children else self.content(node))

    def substitute(self, node: int, others: Sequence[int]) -> None:
        """`others` take the place of a node among its parent's children."""
        parent = self.parent(node)
        children = list(self.spec(parent).children)
        at = children.index(node)
        self.hang(parent, [*children[:at], *others, *children[at + 1 :]])
        self.remove(node)

    def beside(self, node: int, others: Sequence[int]) -> None:
        """`others` hang next to a node, from its parent."""
        parent = self.parent(node)
        children = self.spec(parent).children
        at = children.index(node) + 1
        self.hang(parent, [*children[:at], *others, *children[at:]])

    def remove(self, node: int) -> None:
        """The node is gone; whoever takes its place or its children sees to them."""
        self._dropped.add(node)

    def regraft(self, specs: Sequence[NodeSpec], contents: Sequence[Sequence[str]]) -> None:
        """The first of `specs` keeps its number, and the others replace all below it.

        Parents come first; the leaves among them take `contents` in order.
        """
        self._dropped.update(self._below(specs[0].id))
        groups = iter(contents)
        for spec in specs:
            self._put(spec, () if spec.children else next(groups))

    def reshape(self) -> Reshape | None:
        """The edit that brings the nodes into their new shape; None when they kept the old one."""
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
        """The node is so, and its ancestors are looked at afresh: their height may change."""
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
