"""Incremental placement: which edits put items in, take items out, and keep the tree in shape.

No model is asked. An item follows its categories down, then the nearest facets with a small beam.
"""

import math
from collections.abc import Collection, Mapping, Sequence

from tree import reshape
from tree.build import Key
from tree.edits import DropItem, Edit, PutItem
from tree.item import Item
from tree.node import ROOT, Node
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix, cosines
from tree.working_copy import WorkingCopy

_BEAM = 3


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
    work = WorkingCopy(tree)
    edits: list[Edit] = []
    for item_id in drops:
        work.drop(item_id)
        edits.append(DropItem(item_id))
    if vectors is not None:
        for item, vector in zip(items, vectors, strict=True):
            leaf = route(tree, item.key, vector)
            work.put(item, vector, leaf)
            edits.append(put_edit(item, leaf, vector))
    reshape.rebalance(work)
    return edits + _shape_edits(work)


def regrow(tree: SemanticTree, top: int, records: Mapping[str, Item]) -> list[Edit]:
    """Edits that grow the subtree below `top` anew, by the keys of its items' records."""
    work = WorkingCopy(tree)
    for item in records.values():
        work.learn(item)
    reshape.regrow(work, top)
    reshape.rebalance(work)
    return _shape_edits(work)


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


def _shape_edits(work: WorkingCopy) -> list[Edit]:
    edit = work.reshape()
    return [edit] if edit else []
