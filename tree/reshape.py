"""Brings a changed tree back within its limits: split, merge, collapse, grow anew.

An over-full leaf splits into near-equal parts, an over-full inner node splits in two, an under-full
leaf joins its most similar sibling. Where the tree is too deep, the smallest subtree that restores
the limit is grown anew (the scapegoat tree's rule, Galperin & Rivest 1993).
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import numpy as np

from tree.build import grow, leaf_members, leaf_target, levels_needed, number
from tree.clustering import Labels, balanced_parts, unit
from tree.node import ROOT
from tree.vectors import Int8Matrix, cosines, inverse_norms
from tree.working_copy import WorkingCopy

_UNDERFULL = 0.25  # of a leaf

_Member = TypeVar("_Member")


def rebalance(work: WorkingCopy) -> None:
    """Bring every touched leaf and its ancestors back within their limits."""
    for leaf in work.touched_leaves():
        _split_leaf(work, leaf)
    for leaf in work.touched_leaves():
        _merge_leaf(work, leaf)
    _cut_depth(work)


def regrow(work: WorkingCopy, top: int, *, levels: int | None = None) -> None:
    """Grow the subtree below `top` anew, by the keys of its items; at most `levels` deep."""
    members = work.items_below(top)
    spec = work.spec(top)
    branch = grow(
        work.vectors(members),
        [work.key(item_id) for item_id in members],
        work.settings,
        names=work.spelled,
        levels=levels,
        depth=len(spec.key),
    )
    (first, *others), _ = number(branch, work.next_node, top_id=top)
    work.regraft(
        [
            msgspec.structs.replace(spec, children=first.children),
            *(msgspec.structs.replace(each, label=each.label or spec.label) for each in others),
        ],
        [[members[at] for at in inside] for inside in leaf_members(branch)],
    )


def _split_leaf(work: WorkingCopy, leaf: int) -> None:
    members, settings = work.content(leaf), work.settings
    if len(members) <= settings.leaf_capacity:
        return
    parts = math.ceil(len(members) / leaf_target(settings))
    bulky = parts > 2 and len(work.siblings(leaf)) + parts > settings.fan_out
    if leaf == ROOT or bulky:
        regrow(work, leaf)
        return
    first, *others = _parted(members, work.vectors(members), parts, settings.seed)
    spec = work.spec(leaf)
    work.fill(leaf, first)  # it keeps its id: half as many items move, and a locked label stays
    work.add_siblings(leaf, [work.add(spec, items=some) for some in others])
    _split_inner(work, work.parent(leaf))


def _split_inner(work: WorkingCopy, node: int) -> None:
    """Split `node` in two near-equal halves if it has too many children, then its parent.

    A split of the root adds a level.
    """
    spec, settings = work.spec(node), work.settings
    if len(spec.children) <= settings.fan_out:
        return
    centroids = work.centroids_of(spec.children)[:, 0]
    kept, other = _parted(spec.children, centroids, 2, settings.seed)
    if node == ROOT:
        work.hang(ROOT, [work.add(spec, children=half) for half in (kept, other)])
    else:
        work.hang(node, kept)
        work.add_siblings(node, [work.add(spec, children=other)])
        _split_inner(work, work.parent(node))


def _parted(
    members: Sequence[_Member], vectors: Int8Matrix, parts: int, seed: int
) -> list[list[_Member]]:
    labels = _halves(vectors) if parts == 2 else balanced_parts(vectors, parts, seed)
    groups: list[list[_Member]] = [[] for _ in range(parts)]
    for member, label in zip(members, labels.tolist(), strict=True):
        groups[label].append(member)
    return groups


def _halves(vectors: Int8Matrix) -> Labels:
    """0 or 1 for every row, equally often: two-means from the farthest pair, cut at the median.

    For a leaf this takes a twentieth of the time of `balanced_parts`, with nearly the same halves.
    """
    points = unit(vectors)
    first = int(np.argmin(points @ points.sum(axis=0)))
    second = int(np.argmin(points @ points[first]))
    axis = points[second] - points[first]
    labels = np.zeros(len(points), np.int64)
    for _ in range(3):
        order = np.argsort(points @ axis, kind="stable")
        lower, upper = np.split(order, [len(points) // 2])
        axis = points[upper].mean(axis=0) - points[lower].mean(axis=0)
    labels[upper] = 1
    return labels


def _merge_leaf(work: WorkingCopy, leaf: int) -> None:
    """Merge an under-full leaf into the most similar sibling that has room, if there is one."""
    members, capacity = work.content(leaf), work.settings.leaf_capacity
    if leaf == ROOT or len(members) >= capacity * _UNDERFULL:
        return
    if members:
        hosts = [
            sibling
            for sibling in work.siblings(leaf)
            if not work.spec(sibling).children
            and 0 < len(work.content(sibling)) <= capacity - len(members)
        ]
        if not hosts:
            return
        mine = work.centroids(leaf)
        scale = inverse_norms(mine)
        best = max(
            hosts, key=lambda host: (cosines(mine, scale, work.centroids(host)).max(), -host)
        )
        work.fill(best, work.content(best) + members)
        work.fill(leaf, [])
    work.substitute(leaf, [])
    _collapse(work, work.parent(leaf))


def _collapse(work: WorkingCopy, node: int) -> None:
    """A node with one child becomes that child."""
    children = work.spec(node).children
    if len(children) != 1:
        return
    only = children[0]
    if node != ROOT:
        work.substitute(node, [only])
        return
    inner, members = work.spec(only).children, work.content(only)
    work.remove(only)
    work.hang(ROOT, inner)
    if not inner:
        work.fill(ROOT, members)


def _cut_depth(work: WorkingCopy) -> None:
    """Grow anew the smallest subtree on a too deep path that can be made shallow enough."""
    limit = work.settings.depth_limit(work.count)
    while (height := work.height(ROOT)) > limit:
        for depth, node in reversed(list(enumerate(_deepest_path(work)))):
            needed = levels_needed(len(work.items_below(node)), work.settings)
            if node == ROOT or (needed < height - depth and depth + needed <= limit):
                regrow(work, node, levels=limit - depth)
                break


def _deepest_path(work: WorkingCopy) -> list[int]:
    """The inner nodes from the root to one of the deepest leaves."""
    path, node = [], ROOT
    while children := work.spec(node).children:
        path.append(node)
        node = max(children, key=work.height)
    return path
