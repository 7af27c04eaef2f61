"""Siblings that want labels: what a model is asked about them, and which of its labels are used."""

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from app.curate.labels.label_prompt import GROUPS, LabelQuestion, NodeLabel, group_line
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
class Siblings:
    """Children of one node that want labels."""

    parent: Node
    nodes: list[Node]
    tries: int = 0
    answers_before: int = -1  # of the model to any question, when this one failed last


def siblings_to_label(tree: SemanticTree, nodes: Iterable[int] | None) -> list[Siblings]:
    """The nodes (None: all) that may have another label, by parent.

    The top of the tree comes first, and on a level the parents with the most items.
    """
    wanted: dict[int, list[Node]] = {}
    chosen = tree.walk() if nodes is None else map(tree.node, filter(tree.has_node, set(nodes)))
    for node in chosen:
        if node.parent is not None and not node.locked:
            wanted.setdefault(node.parent, []).append(node)
    found = [Siblings(tree.node(parent), children) for parent, children in wanted.items()]
    return sorted(found, key=lambda s: (len(tree.path(s.parent.id)), -s.parent.count))


async def questions_of(
    tree: SemanticTree, siblings: Siblings, records: Records, language: str, guidance: str = ""
) -> list[tuple[list[Node], LabelQuestion]]:
    """The questions about some siblings, each with its nodes, of near-equal length."""
    shown = {node.id: _typical(tree, node) for node in siblings.nodes if node.is_leaf}
    items = await records([item_id for ids in shown.values() for item_id in ids]) if shown else {}
    lines = {}
    for node in siblings.nodes:
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
    nodes = sorted(siblings.nodes, key=lambda node: lines[node.id])
    section = [node.label for node in tree.path(siblings.parent.id)[-_SECTION:]]
    parts = -(-len(nodes) // GROUPS)
    bounds = [len(nodes) * part // parts for part in range(parts + 1)]
    questions = []
    for start, stop in pairwise(bounds):
        asked = nodes[start:stop]
        others = {child.id: child.label for child in tree.children(siblings.parent)}
        for node in asked:
            del others[node.id]
        question = LabelQuestion(
            [lines[node.id] for node in asked],
            sorted(others.values()),
            section or [tree.root.label],
            language,
            guidance,
        )
        questions.append((asked, question))
    return questions


def halves(
    nodes: list[Node], question: LabelQuestion
) -> Iterator[tuple[list[Node], LabelQuestion]]:
    """A question in two; each half has the nodes of the other half as neighbours."""
    middle = len(nodes) // 2
    first, second = slice(None, middle), slice(middle, None)
    for part, rest in ((first, second), (second, first)):
        neighbours = sorted([*question.neighbours, *(node.label for node in nodes[rest])])
        yield nodes[part], replace(question, lines=question.lines[part], neighbours=neighbours)


def _typical(tree: SemanticTree, leaf: Node) -> list[str]:
    """Ids of shown items that are most similar to the centroids of a leaf, in turn."""
    hidden, expires_at = tree.rows.hidden[leaf.rows], tree.rows.expires_at[leaf.rows]
    rows = leaf.rows[~hidden & (expires_at > time.time())]
    if not len(rows):
        return []
    vectors = tree.rows.vectors[rows]
    similarity = cosines(vectors, inverse_norms(vectors), tree.centroids_of(leaf))
    ids = [tree.rows.id(row) for row in rows.tolist()]
    orders = [np.lexsort((ids, -column)).tolist() for column in similarity.T]  # ties by id
    turns = (at for turn in zip(*orders, strict=True) for at in turn)
    return [ids[at] for at in dict.fromkeys(turns)][:_TITLES]


def _own_category(tree: SemanticTree, node: Node) -> bool:
    """Whether a node has the name of the one category that it stands for."""
    name = normalise(node.label)
    if not node.key or name != node.key[-1]:
        return False
    return all(normalise(other.label) != name for other in tree.siblings(node.id))


def distinct_labels(
    tree: SemanticTree, siblings: Siblings, found: Mapping[int, NodeLabel | None]
) -> dict[int, NodeLabel]:
    """The labels to use, by node: with them, and the old ones of the others, all siblings differ.

    A label is dropped when another node has its title. The node then keeps its old label, which
    may be the title of a third node, and so on until nothing changes.
    """
    labels = {node_id: label for node_id, label in found.items() if label is not None}
    for node in siblings.nodes:
        if node.id in labels and _own_category(tree, node):
            labels[node.id] = NodeLabel(node.label, labels[node.id].signpost)
    nodes = sorted(siblings.nodes, key=lambda n: (not _own_category(tree, n), -n.count, n.id))
    while True:
        taken = {normalise(n.label) for n in tree.children(siblings.parent) if n.id not in labels}
        for node in nodes:
            if node.id not in labels:
                continue
            title = normalise(labels[node.id].title)
            if title in taken:
                del labels[node.id]
                break
            taken.add(title)
        else:
            return labels
