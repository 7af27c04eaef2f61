"""Incremental placement: which edits put items in, take items out, and keep the tree in shape.

No model is asked. An item follows its categories down, then the nearest facets with a small beam.
An over-full leaf splits into near-equal parts, an over-full inner node splits in two, an
under-full leaf joins its nearest sibling, and where the tree has grown too deep the smallest
subtree that restores the limit is grown anew (the scapegoat tree's rule, Galperin & Rivest 1993).
"""

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np

from tree.build import Key, grow, leaf_members, leaf_target, levels_needed, number, titled
from tree.clustering import balanced_parts
from tree.edits import DropItem, Edit, NodeSpec, PutItem, Reshape
from tree.item import Item
from tree.snapshot import ROOT, Node, SemanticTree
from tree.vectors import DIMENSIONS, FACETS, Int8Matrix, cosines, facets, inverse_norms

_BEAM = 3
_UNDERFULL = 0.25  # of a leaf


def put_edit(item: Item, leaf: int, vector: Int8Matrix) -> PutItem:
    """The edit that puts `item` in `leaf` with its `vector` (int8[dimensions])."""
    return PutItem(
        item.id,
        leaf,
        vector.tobytes(),
        item.domain,
        item.popularity or 0.0,
        item.expires_at.timestamp() if item.expires_at else None,
        item.hidden,
        item.record(),
    )


def plan(
    tree: SemanticTree,
    items: Sequence[Item] = (),
    vectors: Int8Matrix | None = None,
    drops: Collection[str] = (),
) -> list[Edit]:
    """Edits on `tree` that put `items` (with one row of `vectors` each) and drop `drops`.

    The ids of `items` are distinct and not in `drops`. The edits keep every invariant of the
    tree. O(items · depth · fan-out), plus the size of what has to be grown anew.
    """
    work = _Work(tree)
    for item_id in drops:
        work.drop(item_id)
    if vectors is not None:
        for item, vector in zip(items, vectors, strict=True):
            work.put(item, vector, route(tree, item.key, vector))
    edits = list(work.edits)
    if reshape := work.reshaped():
        edits.append(reshape)
    return edits


def regrow(tree: SemanticTree, top: int, records: Mapping[str, Item]) -> list[Edit]:
    """Edits that grow the subtree below `top` anew, by the keys of its items' records."""
    work = _Work(tree)
    work.regrow(top, records)
    reshape = work.reshaped()
    return [reshape] if reshape else []


def route(tree: SemanticTree, key: Key, vector: Int8Matrix) -> int:
    """The leaf where an item of that key and vector belongs."""
    best: tuple[float, int] = (-math.inf, ROOT)
    frontier = [tree.root] if tree.root.children else []
    while frontier:
        scored: list[tuple[float, Node]] = []
        for node in frontier:
            near = cosines(
                node.slate.reshape(-1, node.slate.shape[-1]), node.slate_scale.ravel(), vector[None]
            )
            scores = near.reshape(len(node.children), -1).max(axis=1).tolist()
            children = tree.children(node)
            fitting = _fitting(children, key)
            scored += [
                (score, child)
                for score, child in zip(scores, children, strict=True)
                if child.id in fitting
            ]
        scored.sort(key=lambda pair: (-pair[0], pair[1].id))
        for score, node in scored:
            if node.is_leaf and score > best[0]:
                best = (score, node.id)
        frontier = [node for _, node in scored[:_BEAM] if not node.is_leaf]
    return best[1]


def _fitting(children: Sequence[Node], key: Key) -> set[int]:
    """The children that stand for the item's category; else those for none; else all."""
    named = {child.id for child in children if child.key and key[: len(child.key)] == child.key}
    open_to_all = {child.id for child in children if not child.key}
    return named or open_to_all or {child.id for child in children}


class _Work:
    """A tree under edit: node specs and leaf contents as they will be."""

    def __init__(self, tree: SemanticTree) -> None:
        self._tree = tree
        self._specs: dict[int, NodeSpec] = {}
        self._parents: dict[int, int] = {}
        self._items: dict[int, list[str]] = {}
        self._vector_of: dict[str, Int8Matrix] = {}
        self._keys: dict[str, Key] = {}
        self._spellings: dict[str, str] = {}
        self._home: dict[str, int] = {}
        self._dropped: set[int] = set()
        self._reshaped: set[int] = set()
        self._next_id = tree.next_node
        self._touched: dict[int, None] = {}  # leaves whose content changed, in order
        self.edits: list[Edit] = []

    # -- items

    def drop(self, item_id: str) -> None:
        self._leave(item_id)
        self.edits.append(DropItem(item_id))

    def put(self, item: Item, vector: Int8Matrix, leaf: int) -> None:
        self._leave(item.id)
        self._vector_of[item.id] = vector
        self._learn(item)
        self._home[item.id] = leaf
        self._content(leaf).append(item.id)
        self._touched[leaf] = None
        self.edits.append(put_edit(item, leaf, vector))

    def _learn(self, item: Item) -> None:
        self._keys[item.id] = item.key
        self._spellings.update(zip(item.key, (item.domain, *item.categories), strict=True))

    def _leave(self, item_id: str) -> None:
        home = self._home.pop(item_id, None)
        if home is None:
            node = self._tree.leaf_of(item_id)
            if node is None:
                return
            home = node.id
        self._content(home).remove(item_id)
        self._touched[home] = None

    # -- shape

    def regrow(self, top: int, records: Mapping[str, Item]) -> None:
        """Grow the subtree below `top` anew, with the keys and spellings of `records`."""
        for item in records.values():
            self._learn(item)
        self._regrow(top)

    def reshaped(self) -> Reshape | None:
        """Bring every touched leaf, and what hangs on it, back within its bounds."""
        capacity = self._tree.settings.leaf_capacity
        for leaf in list(self._touched):
            if leaf not in self._dropped and len(self._content(leaf)) > capacity:
                self._split_leaf(leaf)
        for leaf in list(self._touched):
            if leaf not in self._dropped and not self._spec(leaf).children:
                self._shrink(leaf)
        self._cut_depth()
        if not self._reshaped and not self._dropped:
            return None
        before = {node for node in self._dropped if node < self._tree.next_node}
        put = [
            msgspec.structs.replace(
                self._spec(node),
                items=() if self._spec(node).children else tuple(self._content(node)),
            )
            for node in sorted(self._reshaped - self._dropped)
        ]
        return Reshape(tuple(sorted(before)), tuple(put))

    def _split_leaf(self, leaf: int) -> None:
        members, settings = self._content(leaf), self._tree.settings
        parts = math.ceil(len(members) / leaf_target(settings))
        if leaf == ROOT:
            self._regrow(ROOT)
            return
        siblings = len(self._spec(self._parent(leaf)).children) - 1
        if parts > 2 and siblings + parts > settings.fan_out:  # a bulk insert
            self._regrow(leaf)
            return
        labels = balanced_parts(self._vectors(members), parts, settings.seed)
        spec = self._spec(leaf)
        fresh = []
        for part in range(parts):
            inside = [item for item, label in zip(members, labels, strict=True) if label == part]
            fresh.append(self._new(spec, items=inside))
        self._replace_child(leaf, fresh)
        self._split_inner(self._parent(fresh[0]))

    def _split_inner(self, node: int) -> None:
        """Where `node` has a child too many: two near-equal halves, and on to its parent.

        Below the root that is one level more.
        """
        spec, settings = self._spec(node), self._tree.settings
        if len(spec.children) <= settings.fan_out:
            return
        compass = np.stack([self._facets(child)[0] for child in spec.children])
        labels = balanced_parts(compass, 2, settings.seed)
        halves = []
        for half in range(2):
            inside = [
                child for child, label in zip(spec.children, labels, strict=True) if label == half
            ]
            halves.append(self._new(spec, children=inside))
        if node == ROOT:
            self._set_children(ROOT, halves)
        else:
            self._replace_child(node, halves)
            self._split_inner(self._parent(halves[0]))

    def _shrink(self, leaf: int) -> None:
        members = self._content(leaf)
        if leaf == ROOT or len(members) >= self._tree.settings.leaf_capacity * _UNDERFULL:
            return
        room = self._tree.settings.leaf_capacity - len(members)
        siblings = [
            child
            for child in self._spec(self._parent(leaf)).children
            if child != leaf
            and not self._spec(child).children
            and 0 < len(self._content(child)) <= room
        ]
        if members and not siblings:
            return
        if members:
            mine = self._facets(leaf)
            scale = inverse_norms(mine)
            best = max(siblings, key=lambda s: (cosines(mine, scale, self._facets(s)).max(), -s))
            self._set_content(best, self._content(best) + members)
            self._set_content(leaf, [])
        self._replace_child(leaf, [])
        self._collapse(self._parent(leaf))

    def _collapse(self, node: int) -> None:
        """A node with one child becomes that child."""
        children = self._spec(node).children
        if len(children) != 1:
            return
        only = children[0]
        inner, members = self._spec(only).children, self._content(only)
        if node == ROOT:
            self._dropped.add(only)
            if inner:
                self._set_children(ROOT, list(inner))
            else:
                self._set_children(ROOT, [])
                self._set_content(ROOT, members)
        else:
            self._replace_child(node, [only])

    def _cut_depth(self) -> None:
        """Grow anew the smallest subtree on a too deep path that can be made shallow enough."""
        settings = self._tree.settings
        if not self._reshaped and self._tree.root.height <= settings.depth_limit(self._count()):
            return
        limit = settings.depth_limit(self._count())
        while (height := self._height(ROOT)) > limit:
            path, node = [], ROOT
            for below in range(height, 0, -1):
                path.append((node, below))
                node = next(c for c in self._spec(node).children if self._height(c) == below - 1)
            for depth, (node, below) in reversed(list(enumerate(path))):
                needed = levels_needed(len(self._below(node)), settings)
                if node == ROOT or (needed < below and depth + needed <= limit):
                    self._regrow(node, levels=limit - depth)
                    break

    def _regrow(self, node: int, levels: int | None = None) -> None:
        members = self._below(node)
        keys = [self._key(item) for item in members]
        spec = self._spec(node)
        top = grow(
            self._vectors(members),
            keys,
            self._tree.settings,
            names=lambda part: titled(self._spellings.get(part, part)),
            levels=levels,
            depth=len(spec.key),
        )
        self._dropped.update(self._inside(node))
        specs, self._next_id = number(top, self._next_id, top_id=node)
        groups = iter(leaf_members(top))
        for grown in specs:
            label = (spec.label if grown.id == node else grown.label) or spec.label
            locked, signpost = (spec.locked, spec.signpost) if grown.id == node else (False, "")
            key = spec.key if grown.id == node else grown.key
            self._specs[grown.id] = msgspec.structs.replace(
                grown, label=label, key=key, locked=locked, signpost=signpost
            )
            for child in grown.children:
                self._parents[child] = grown.id
            inside = [] if grown.children else [members[i] for i in next(groups)]
            self._items[grown.id] = inside
            for item in inside:
                self._home[item] = grown.id
            self._mark(grown.id)

    # -- the working copy

    def _spec(self, node: int) -> NodeSpec:
        if node not in self._specs:
            self._specs[node] = self._tree.spec(self._tree.node(node), with_items=False)
        return self._specs[node]

    def _content(self, leaf: int) -> list[str]:
        if leaf not in self._items:
            known = leaf < self._tree.next_node
            rows = self._tree.node(leaf).rows.tolist() if known else []
            self._items[leaf] = [self._tree.rows.id(row) for row in rows]
        return self._items[leaf]

    def _parent(self, node: int) -> int:
        if node in self._parents:
            return self._parents[node]
        parent = self._tree.node(node).parent
        return ROOT if parent is None else parent

    def _new(
        self, like: NodeSpec, *, items: Sequence[str] = (), children: Sequence[int] = ()
    ) -> int:
        node = self._next_id
        self._next_id += 1
        self._specs[node] = NodeSpec(node, like.label, like.signpost, like.key)
        self._items[node] = []
        self._set_children(node, list(children))
        self._set_content(node, list(items))
        return node

    def _set_children(self, node: int, children: list[int]) -> None:
        self._specs[node] = msgspec.structs.replace(self._spec(node), children=tuple(children))
        for child in children:
            self._parents[child] = node
        if children:
            self._items[node] = []
        self._mark(node)

    def _set_content(self, leaf: int, items: list[str]) -> None:
        self._items[leaf] = items
        for item in items:
            self._home[item] = leaf
        self._mark(leaf)

    def _mark(self, node: int) -> None:
        """The node will be put; its ancestors are looked at afresh (their height may change)."""
        self._reshaped.add(node)
        while node != ROOT and (node in self._parents or node < self._tree.next_node):
            node = self._parent(node)
            self._spec(node)

    def _replace_child(self, node: int, others: list[int]) -> None:
        parent = self._parent(node)
        children = list(self._spec(parent).children)
        at = children.index(node)
        self._set_children(parent, [*children[:at], *others, *children[at + 1 :]])
        self._dropped.add(node)

    def _inside(self, node: int) -> list[int]:
        """Every node below `node`, itself left out."""
        found: list[int] = []
        pending = list(self._spec(node).children)
        while pending:
            child = pending.pop()
            found.append(child)
            pending.extend(self._spec(child).children)
        return found

    def _below(self, node: int) -> list[str]:
        leaves = [n for n in (node, *self._inside(node)) if not self._spec(n).children]
        return [item for leaf in sorted(leaves) for item in self._content(leaf)]

    def _touches(self, node: int) -> bool:
        return node in self._specs or node in self._items or node >= self._tree.next_node

    def _height(self, node: int) -> int:
        if not self._touches(node):
            return self._tree.node(node).height
        children = self._spec(node).children
        return 1 + max(map(self._height, children)) if children else 0

    def _count(self) -> int:
        puts = sum(item not in self._tree for item in self._vector_of)
        drops = sum(isinstance(e, DropItem) and e.id in self._tree for e in self.edits)
        return len(self._tree) + puts - drops

    def _vectors(self, items: Sequence[str]) -> Int8Matrix:
        rows = self._tree.rows
        if not items:
            return np.zeros((0, DIMENSIONS), np.int8)
        return np.stack(
            [
                self._vector_of[item] if item in self._vector_of else rows.vectors[self._row(item)]
                for item in items
            ]
        )

    def _row(self, item: str) -> int:
        row = self._tree.row(item)
        assert row is not None, item
        return row

    def _key(self, item: str) -> Key:
        """The item's key; of an item placed earlier, that of the category it was placed in."""
        if item in self._keys:
            return self._keys[item]
        leaf = self._tree.leaf_of(item)
        steps = self._tree.path(leaf.id) if leaf else []
        return next((step.key for step in reversed(steps) if step.key), ())

    def _facets(self, node: int) -> Int8Matrix:
        if not self._touches(node):
            return self._tree.facets_of(self._tree.node(node))
        children = self._spec(node).children
        members = (
            np.concatenate([self._facets(child) for child in children])
            if children
            else self._vectors(self._content(node))
        )
        if not len(members):  # emptied in this batch, about to go
            return np.zeros((FACETS, DIMENSIONS), np.int8)
        return facets(members)
