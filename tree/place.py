"""Incremental placement: the edits that add items, remove items, and keep the tree in shape.

No model is asked. An item goes down by its categories, then by the most similar centroids with a
small beam.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tree import reshape
from tree.build import Key
from tree.edits import DropItem, Edit, PutItem
from tree.item import Item
from tree.node import ROOT, Node
from tree.snapshot import SemanticTree
from tree.terms import TermMatrix, terms_of
from tree.vectors import FloatArray, Int8Matrix, cosines, inverse_norms
from tree.working_copy import WorkingCopy

_BEAM = 3

_Numbers = npt.NDArray[np.int64]


class _Sorted(NamedTuple):
    """The distinct keys of items, and the key of each item."""

    distinct: list[Key]
    kinds: _Numbers


_Reached = tuple[_Numbers, FloatArray, _Numbers, npt.NDArray[np.bool_]]


def plan(
    tree: SemanticTree,
    items: Sequence[Item] = (),
    vectors: Int8Matrix | None = None,
    drops: Collection[str] = (),
    *,
    leaves: Sequence[int] | None = None,
) -> list[Edit]:
    """Edits on `tree` that put `items` (with one row of `vectors` each) and drop `drops`.

    `leaves` are the results of `route`, if the caller has them. The ids of `items` are distinct and
    not in `drops`. The edits keep every invariant of the tree. O(items · depth · fan-out), plus the
    size of the subtrees that are grown anew.
    """
    work = WorkingCopy(tree)
    work.look_up([*drops, *(item.id for item in items)])
    edits: list[Edit] = []
    for item_id in drops:
        work.drop(item_id)
        edits.append(DropItem(item_id))
    if vectors is not None:
        if leaves is None:
            leaves = route(tree, [item.key for item in items], vectors)
        terms = terms_of(items, partial(tree.rows.words.idf, size=tree.size))
        for item, vector, leaf, row in zip(items, vectors, leaves, terms, strict=True):
            work.put(item, vector, leaf)
            edits.append(put_edit(item, leaf, vector, row))
    reshape.rebalance(work)
    return edits + _shape_edits(work)


def regrow(tree: SemanticTree, top: int, records: Mapping[str, Item]) -> list[Edit]:
    """Edits that grow the subtree below `top` anew, by the keys in the records of its items."""
    work = WorkingCopy(tree)
    for item in records.values():
        work.learn(item)
    reshape.regrow(work, top)
    reshape.rebalance(work)
    return _shape_edits(work)


def put_edit(item: Item, leaf: int, vector: Int8Matrix, terms: TermMatrix) -> PutItem:
    """The edit that puts `item` in `leaf` with its `vector` (int8[dimensions]) and its `terms`."""
    return PutItem(
        item.id,
        leaf,
        vector.tobytes(),
        item.domain,
        item.popularity or 0.0,
        item.expires_at.timestamp() if item.expires_at else None,
        item.hidden,
        item.record(),
        item.line_code,
        terms.tobytes(),
    )


def route(tree: SemanticTree, keys: Sequence[Key], vectors: Int8Matrix) -> list[int]:
    """The leaf for each item with these keys and vectors.

    All items go down level by level, so each node is read once for all items that reach it.
    """
    scale = inverse_norms(vectors)
    kinds = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    sort = _Sorted(list(kinds), np.array([kinds[key] for key in keys], np.int64))
    best = np.full(len(keys), -np.inf, np.float32)
    leaves = np.full(len(keys), ROOT, np.int64)
    frontier = {ROOT: np.arange(len(keys))} if tree.root.children and len(keys) else {}
    while frontier:
        found = []
        for at, who in frontier.items():
            node = tree.node(at)
            found.append(_reached(node, tree.children(node), sort, vectors, scale, who))
        items, scores, nodes, inner = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        order = np.lexsort((nodes, -scores, items))
        items, scores, nodes, inner = items[order], scores[order], nodes[order], inner[order]
        ends = np.flatnonzero(~inner)
        item, first = np.unique(items[ends], return_index=True)  # each item's best leaf
        better = scores[ends[first]] > best[item]
        best[item[better]] = scores[ends[first[better]]]
        leaves[item[better]] = nodes[ends[first[better]]]
        rank = np.arange(len(items)) - np.searchsorted(items, items)
        onward = np.flatnonzero((rank < _BEAM) & inner)
        onward = onward[np.argsort(nodes[onward], kind="stable")]
        into, starts = np.unique(nodes[onward], return_index=True)
        groups = np.split(items[onward], starts[1:])
        frontier = dict(zip(into.tolist(), groups, strict=True)) if len(into) else {}
    return leaves.tolist()


def _reached(
    node: Node,
    children: Sequence[Node],
    keys: _Sorted,
    vectors: Int8Matrix,
    scale: FloatArray,
    items: _Numbers,
) -> _Reached:
    """Items, scores, children, and whether these are inner nodes, of all pairs that fit."""
    child_centroids = node.child_centroids.reshape(-1, node.child_centroids.shape[-1])
    similarity = cosines(child_centroids, node.child_scale.ravel(), vectors[items], scale[items])
    scores = similarity.reshape(len(node.children), -1, len(items)).max(axis=1)
    fitting = _fitting(children, keys, items)
    child, item = np.nonzero(fitting)
    inner = np.array([bool(each.children) for each in children])
    return items[item], scores[child, item], np.array(node.children)[child], inner[child]


def _fitting(children: Sequence[Node], keys: _Sorted, items: _Numbers) -> npt.NDArray[np.bool_]:
    """bool[children, items]: children of the item's category; else without one; else all."""
    if not any(child.key for child in children):
        return np.ones((len(children), len(items)), bool)
    named: dict[Key, list[int]] = defaultdict(list)
    for at, child in enumerate(children):
        named[child.key].append(at)
    depths = sorted({len(key) for key in named} - {0})
    everyone = list(range(len(children)))

    def fit(key: Key) -> list[int]:
        known = [at for depth in depths if depth <= len(key) for at in named.get(key[:depth], ())]
        return known or named.get((), everyone)

    kinds, which = np.unique(keys.kinds[items], return_inverse=True)
    fitting = np.zeros((len(children), len(kinds)), bool)
    for at, kind in enumerate(kinds.tolist()):
        fitting[fit(keys.distinct[kind]), at] = True
    return fitting[:, which]


def _shape_edits(work: WorkingCopy) -> list[Edit]:
    edit = work.reshape()
    return [edit] if edit else []
