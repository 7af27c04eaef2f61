"""`PendingLabels`: labels that wait for the next commit."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tree.edits import Edit, Relabel, Reshape
from tree.node import Node
from tree.snapshot import SemanticTree

Labelled: TypeAlias = Mapping[int, tuple[Node, Relabel]]
"""By node: how it was when its label was made, and that label."""


class PendingLabels:
    """Labels that were made for one version, until a commit of a later one includes them."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Node, Relabel]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, tree: SemanticTree, edits: Sequence[Relabel]) -> None:
        """Keep labels that were made for nodes of `tree`."""
        self._waiting.update((edit.node, (tree.node(edit.node), edit)) for edit in edits)

    def take(self) -> Labelled:
        """All that wait; they wait no longer."""
        taken, self._waiting = self._waiting, {}
        return taken


def fitting(tree: SemanticTree, labels: Labelled, edits: Sequence[Edit]) -> list[Relabel]:
    """The labels for nodes whose name is still the same, and that `edits` do not reshape."""
    reshaped = {
        node
        for edit in edits
        if isinstance(edit, Reshape)
        for node in (*edit.drop, *(spec.id for spec in edit.put))
    }
    return [
        edit
        for node, (was, edit) in labels.items()
        if node not in reshaped and tree.has_node(node) and _named_alike(tree.node(node), was)
    ]


def _named_alike(now: Node, was: Node) -> bool:
    return (now.label, now.signpost, now.locked) == (was.label, was.signpost, was.locked)
