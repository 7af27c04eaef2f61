"""Views of a tree: checks, statistics, outlines, exports."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from tree.node import ROOT, Node
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix, centroids, inverse_norms

if TYPE_CHECKING:
    import networkx as nx

PATH_SEPARATOR = " › "
_THREADS = 2

_T = TypeVar("_T")

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Statistics:
    """The shape of a tree in numbers. Leaf sizes are 0 for an empty tree."""

    items: int
    leaves: int
    inner_nodes: int
    depth: int  # levels below the root
    depth_limit: int
    widest: int  # most children of one node
    largest_leaf: int
    smallest_leaf: int
    mean_leaf: float
    gini: float  # of the leaf sizes: 0 when all are equal


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two trees have in common."""

    items_in_both: int
    items_only_in_first: int
    items_only_in_second: int
    kept_together: float  # of the pairs that share a leaf of the first, how many do in the second


@dataclass(frozen=True, slots=True)
class Outline:
    """The upper levels of a tree; a node has its height also when its children are left out."""

    id: int
    label: str
    signpost: str
    count: int
    height: int
    children: tuple["Outline", ...] = ()


async def run_in_view_thread(work: Callable[[], _T]) -> _T:
    """The result of `work`, from threads that recommendations do not use."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), work)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="views")


def statistics(tree: SemanticTree) -> Statistics:
    """See Statistics. O(nodes)."""
    nodes = list(tree.walk())
    sizes = np.array([node.count for node in nodes if node.is_leaf])
    return Statistics(
        items=len(tree),
        leaves=len(sizes),
        inner_nodes=len(nodes) - len(sizes),
        depth=tree.root.height,
        depth_limit=tree.settings.depth_limit(len(tree)),
        widest=max(len(node.children) for node in nodes),
        largest_leaf=int(sizes.max()),
        smallest_leaf=int(sizes.min()),
        mean_leaf=float(sizes.mean()),
        gini=_gini(sizes),
    )


def compare(first: SemanticTree, second: SemanticTree) -> Comparison:
    """See Comparison; `kept_together` is 1 where no leaf holds a pair. O(items)."""
    both = pairs = kept = 0
    for leaf in first.leaves():
        homes: Counter[int] = Counter()
        for item_id in first.item_ids(leaf.id):
            row = second.row(item_id)
            if row is not None:
                homes[int(second.rows.leaf[row])] += 1
        here = homes.total()
        both += here
        pairs += here * (here - 1)
        kept += sum(count * (count - 1) for count in homes.values())
    return Comparison(both, len(first) - both, len(second) - both, kept / pairs if pairs else 1.0)


def within(tree: SemanticTree, top: int, depth: int, most: int) -> bool:
    """Whether `top` and `depth` levels below it are at most `most` nodes. Raises UnknownNode."""
    level, count = [tree.node(top)], 1
    for _ in range(depth):
        count += sum(len(node.children) for node in level)
        if count > most:
            return False
        level = [child for node in level for child in tree.children(node)]
    return True


def outline(tree: SemanticTree, top: int = ROOT, depth: int = 2) -> Outline:
    """`top` and at most `depth` levels below it. Raises UnknownNode."""
    node = tree.node(top)
    children = tree.children(node) if depth > 0 else []
    return Outline(
        node.id,
        node.label,
        node.signpost,
        node.count,
        node.height,
        tuple(outline(tree, child.id, depth - 1) for child in children),
    )


def as_graph(tree: SemanticTree, top: int = ROOT, depth: int | None = None) -> "nx.DiGraph[int]":
    """`top` and at most `depth` levels below it as a graph, edges from parent to child.

    Nodes carry label, signpost, count, height, leaf and path (labels from below the root down).
    Items are left out: a graph node costs about 1 kB. Raises UnknownNode.
    """
    import networkx as nx

    graph: nx.DiGraph[int] = nx.DiGraph(
        version=tree.version, items=len(tree), space=tree.space.fingerprint
    )
    start = tuple(step.label for step in tree.path(top))
    pending = [(tree.node(top), start, depth)]
    while pending:
        node, path, left = pending.pop()
        graph.add_node(
            node.id,
            label=node.label,
            signpost=node.signpost,
            count=node.count,
            height=node.height,
            leaf=node.is_leaf,
            path=PATH_SEPARATOR.join(path),
        )
        if left == 0:
            continue
        below = None if left is None else left - 1
        children = tree.children(node)
        graph.add_edges_from((node.id, child.id) for child in children)
        pending.extend((child, (*path, child.label), below) for child in reversed(children))
    return graph


def node_link(
    tree: SemanticTree, top: int = ROOT, depth: int | None = None
) -> dict[str, list[dict[str, object]]]:
    """`as_graph` in networkx' node-link form, ready for JSON: "nodes", "edges", "graph" …"""
    import networkx as nx

    data: dict[str, list[dict[str, object]]] = nx.node_link_data(
        as_graph(tree, top, depth), edges="edges"
    )
    return data


def graphml(tree: SemanticTree, top: int = ROOT, depth: int | None = None) -> str:
    """`as_graph` as a GraphML document; characters that XML cannot hold are left out."""
    import networkx as nx

    graph = as_graph(tree, top, depth)
    for attributes in graph.nodes.values():
        for name in ("label", "signpost", "path"):
            attributes[name] = _NOT_XML.sub("", attributes[name])
    return "\n".join(nx.generate_graphml(graph))


def digest(tree: SemanticTree) -> str:
    """A hash of the content of a version, without its number: equal on every replica of it.

    Covers settings and space, every node with its label, and every leaf's items in their order with
    vectors and facts. O(items · dimensions).
    """
    found = hashlib.blake2b(digest_size=16)
    encode = msgspec.msgpack.Encoder(order="sorted").encode
    found.update(encode((tree.settings, tree.space.fingerprint, tree.next_node)))
    for node in tree.walk():
        found.update(encode(tree.spec(node)))
        held = tree.rows.columns(node.rows)
        for column in (held.vectors, held.popularity, held.expires_at, held.hidden):
            found.update(column.tobytes())
        for extra in (held.lines, held.terms):
            found.update(extra.tobytes() if extra is not None and extra.any() else b"")
        found.update(encode(held.domains))
    return found.hexdigest()


def violations(tree: SemanticTree) -> list[str]:
    """What is wrong with a tree, one line each; empty when every invariant holds.

    Recomputes the centroids of every node: O(items · dimensions).
    """
    try:
        found = [*_shape(tree), *_rows(tree)]
        return found or [*_centroids(tree)]
    except LookupError as error:
        return [f"a child is not there: {error}"]


def _shape(tree: SemanticTree) -> Iterator[str]:
    settings, root = tree.settings, tree.root
    if root.parent is not None:
        yield f"the root has a parent: {root.parent}"
    seen: set[int] = set()
    for node in tree.walk():
        if node.id in seen:
            yield f"node {node.id} is reached twice"
            return
        seen.add(node.id)
        yield from _node(tree, node)
        if node.is_leaf and node.count > settings.leaf_capacity:
            yield f"leaf {node.id} holds {node.count} items"
        if node.is_leaf and not node.count and node.id != ROOT:
            yield f"leaf {node.id} is empty"
        if not node.is_leaf and not 2 <= len(node.children) <= settings.fan_out:
            yield f"node {node.id} has {len(node.children)} children"
    if len(seen) != tree.node_count:
        yield f"{tree.node_count - len(seen)} nodes cannot be reached"
    if max(seen) >= tree.next_node:
        yield f"node {max(seen)} is there, but the next one would be {tree.next_node}"
    if root.height > settings.depth_limit(len(tree)):
        yield f"{root.height} levels, {settings.depth_limit(len(tree))} are allowed"


def _node(tree: SemanticTree, node: Node) -> Iterator[str]:
    """Flaws of a node: its counts and heights compared with those of its children."""
    children = tree.children(node)
    for child in children:
        if child.parent != node.id:
            yield f"node {child.id} hangs from {node.id} but names {child.parent}"
    if node.children and len(node.rows):
        yield f"node {node.id} has children and items"
    count = sum(child.count for child in children) if children else len(node.rows)
    if node.count != count:
        yield f"node {node.id} counts {node.count} items of {count}"
    height = 1 + max(child.height for child in children) if children else 0
    if node.height != height:
        yield f"node {node.id} says height {node.height}, it is {height}"


def _rows(tree: SemanticTree) -> Iterator[str]:
    """Flaws of live rows: each must be found by its id, and be in its leaf and no other."""
    rows, standing = tree.rows, np.zeros(tree.size, np.int64)
    for leaf in tree.leaves():
        standing[leaf.rows] += 1
        if (rows.leaf[leaf.rows] != leaf.id).any():
            yield f"leaf {leaf.id} holds rows of another leaf"
        for row in leaf.rows.tolist():
            if tree.row(rows.id(row)) != row:
                yield f"item {rows.id(row)!r} stands in row {row}, not {tree.row(rows.id(row))}"
    if (twice := np.flatnonzero(standing > 1)).size:
        yield f"rows {twice[:5]} stand in two leaves"
    live = rows.died[: tree.size] > tree.version
    if (lost := np.flatnonzero(live & (standing == 0))).size:
        yield f"rows {lost[:5]} are alive and in no leaf"
    if (dead := np.flatnonzero(~live & (standing > 0))).size:
        yield f"rows {dead[:5]} are dead and in a leaf"


def _centroids(tree: SemanticTree) -> Iterator[str]:
    """Flaws of stored centroids."""
    known: dict[int, Int8Matrix] = {}
    for node in reversed(list(tree.walk())):
        if node.is_leaf:
            members = tree.rows.vectors[node.rows]
        else:
            child_centroids = np.stack([known[child] for child in node.children])
            if not np.array_equal(child_centroids, node.child_centroids):
                yield f"the child centroids of node {node.id} are not its children's"
            if not np.array_equal(node.child_scale, inverse_norms(node.child_centroids)):
                yield f"the child centroids of node {node.id} are not scaled by their lengths"
            members = child_centroids.reshape(-1, tree.rows.dimensions)
        if len(members):
            known[node.id] = centroids(members)


def _gini(sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> float:
    """Half the mean absolute difference of two leaves, relative to their mean."""
    total = int(sizes.sum())
    if not total:
        return 0.0
    ranks = 2 * np.arange(1, len(sizes) + 1) - len(sizes) - 1
    return float((ranks * np.sort(sizes)).sum() / (len(sizes) * total))
