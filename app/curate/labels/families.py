"""Siblings that want labels: what a model is asked about them, and which signs tell them apart."""

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from app.curate.labels.signs import GROUPS, Groups, Sign, group_line
from tree.item import Item, normalise
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.vectors import cosines, inverse_norms

Records = Callable[[Collection[str]], Awaitable[Mapping[str, Item]]]
"""Reads item records; unknown ids are left out. `TreeStore.items` is one."""

_SECTION = 3  # names of a path that are shown
_TITLES = 5  # items shown of a leaf
_HELD = 6  # children shown of an inner node
_EXEMPLARS = " — e.g. "  # what an offline signpost ends with


@dataclass(slots=True, eq=False)
class Family:
    """Children of one node that want labels."""

    parent: Node
    nodes: list[Node]
    tries: int = 0
    answers_then: int = -1  # of all families, when this one failed last


def families_of(tree: SemanticTree, nodes: Iterable[int] | None) -> list[Family]:
    """Of some nodes (None: of all) those that may have another label, by parent.

    The top of the tree comes first, and there what holds the most.
    """
    wanted: dict[int, list[Node]] = {}
    chosen = tree.walk() if nodes is None else map(tree.node, filter(tree.has_node, set(nodes)))
    for node in chosen:
        if node.parent is not None and not node.locked:
            wanted.setdefault(node.parent, []).append(node)
    families = [Family(tree.node(parent), children) for parent, children in wanted.items()]
    return sorted(families, key=lambda f: (len(tree.path(f.parent.id)), -f.parent.count))


async def questions_of(
    tree: SemanticTree, family: Family, records: Records, language: str
) -> list[tuple[list[Node], Groups]]:
    """The questions for a family: one, or several of near-equal length for a large one."""
    shown = {node.id: _typical(tree, node) for node in family.nodes if node.is_leaf}
    items = await records([item_id for ids in shown.values() for item_id in ids]) if shown else {}
    lines = {}
    for node in family.nodes:
        words, _, titles = node.signpost.partition(_EXEMPLARS)
        inside = [items[item_id].title for item_id in shown.get(node.id, ()) if item_id in items]
        largest = sorted(tree.children(node), key=lambda child: (-child.count, child.label))
        lines[node.id] = group_line(
            node.label,
            words,
            stays=_own_category(tree, node),
            titles=inside or [title for title in titles.split("; ") if title],
            holds=[child.label for child in largest[:_HELD]],
        )
    nodes = sorted(family.nodes, key=lambda node: lines[node.id])
    section = [node.label for node in tree.path(family.parent.id)[-_SECTION:]]
    parts = -(-len(nodes) // GROUPS)
    bounds = [len(nodes) * part // parts for part in range(parts + 1)]
    questions = []
    for start, stop in pairwise(bounds):
        asked = nodes[start:stop]
        beside = {child.id: child.label for child in tree.children(family.parent)}
        for node in asked:
            del beside[node.id]
        groups = Groups(
            [lines[node.id] for node in asked],
            sorted(beside.values()),
            section or [tree.root.label],
            language,
        )
        questions.append((asked, groups))
    return questions


def halves(nodes: list[Node], groups: Groups) -> Iterator[tuple[list[Node], Groups]]:
    """A question in two; each half has the other as neighbours."""
    middle = len(nodes) // 2
    first, second = slice(None, middle), slice(middle, None)
    for part, rest in ((first, second), (second, first)):
        beside = sorted([*groups.neighbours, *(node.label for node in nodes[rest])])
        yield nodes[part], replace(groups, lines=groups.lines[part], neighbours=beside)


def _typical(tree: SemanticTree, leaf: Node) -> list[str]:
    """Ids of items that stand for a leaf, those nearest to its facets in turn; none hidden."""
    hidden, expires_at = tree.rows.hidden[leaf.rows], tree.rows.expires_at[leaf.rows]
    rows = leaf.rows[~hidden & (expires_at > time.time())]
    if not len(rows):
        return []
    vectors = tree.rows.vectors[rows]
    near = cosines(vectors, inverse_norms(vectors), tree.facets_of(leaf))
    ids = [tree.rows.id(row) for row in rows.tolist()]
    orders = [np.lexsort((ids, -column)).tolist() for column in near.T]  # equal ones by id
    turns = (at for turn in zip(*orders, strict=True) for at in turn)
    return [ids[at] for at in dict.fromkeys(turns)][:_TITLES]


def _own_category(tree: SemanticTree, node: Node) -> bool:
    """Whether a node has the name of the one category that it stands for."""
    name = normalise(node.label)
    if not node.key or name != node.key[-1]:
        return False
    return all(normalise(other.label) != name for other in tree.siblings(node.id))


def settled(
    tree: SemanticTree, family: Family, found: Mapping[int, Sign | None]
) -> dict[int, Sign]:
    """The signs that tell all siblings apart, those without one by the label that they keep.

    A sign is withdrawn whose title another node has; that node's own label may then be in the way
    of a third one's title, and so on until nothing moves.
    """
    signs = {node_id: sign for node_id, sign in found.items() if sign is not None}
    for node in family.nodes:
        if node.id in signs and _own_category(tree, node):
            signs[node.id] = Sign(node.label, signs[node.id].signpost)
    nodes = sorted(family.nodes, key=lambda n: (not _own_category(tree, n), -n.count, n.id))
    while True:
        taken = {normalise(n.label) for n in tree.children(family.parent) if n.id not in signs}
        for node in nodes:
            if node.id not in signs:
                continue
            title = normalise(signs[node.id].title)
            if title in taken:
                del signs[node.id]
                break
            taken.add(title)
        else:
            return signs
