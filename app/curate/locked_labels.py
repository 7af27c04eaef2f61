"""Labels that an administrator has locked, carried over to another tree of the catalogue."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from tree.edits import Relabel
from tree.node import Node
from tree.snapshot import SemanticTree

_READ = 10_000


def carried_locks(now: SemanticTree, draft: SemanticTree) -> tuple[list[Relabel], list[str]]:
    """Edits that give `draft` the locks of `now`, and the locked labels that have no node there.

    A locked node of the draft whose counterpart is no longer locked gets the label of the
    counterpart; without a counterpart it stays locked. The counterpart of a node stands for the
    same category, or else holds more than half of its items and fewer others.
    """
    given, own = ([node for node in tree.walk() if node.locked] for tree in (now, draft))
    edits: list[Relabel] = []
    lost: list[str] = []
    taken: set[int] = set()
    theirs = _Counterparts(now, draft) if given else None
    given.sort(key=lambda node: (-node.count, node.id))
    first = {node.id: theirs.by_category(node) for node in given} if theirs else {}
    taken.update(found.id for found in first.values() if found)
    heirs: set[int] = set()
    for node in given:
        found = first[node.id]
        if theirs and (found is None or found.id in heirs):
            found = theirs.by_items(node, taken)
        if found is None:
            lost.append(node.label)
            continue
        taken.add(found.id)
        heirs.add(found.id)
        if (found.label, found.signpost, found.locked) != (node.label, node.signpost, True):
            edits.append(Relabel(found.id, node.label, node.signpost, locked=True))
    if older := [node for node in own if node.id not in taken]:
        ours = _Counterparts(draft, now)
        for node in older:
            found = ours.by_category(node) or ours.by_items(node)
            if found is not None and not found.locked:
                edits.append(Relabel(node.id, found.label, found.signpost))
    return edits, sorted(lost)


class _Counterparts:
    """Finds the counterparts of nodes in another tree of the same catalogue."""

    def __init__(self, here: SemanticTree, there: SemanticTree) -> None:
        self._here = here
        self._there = there
        self._by_key: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for node in there.walk():
            if node.key:
                self._by_key[node.key].append(node.id)

    def by_category(self, node: Node) -> Node | None:
        """The node of the same category; of several, as after a split, the most similar."""
        if node.parent is None:
            return self._there.root
        alike = self._by_key.get(node.key, ())
        if len(alike) > 1:
            shared, _ = self._shared(node)
            alike = [max(alike, key=lambda other: (shared[other], -other))]
        return self._there.node(alike[0]) if alike else None

    def by_items(self, node: Node, taken: Collection[int] = ()) -> Node | None:
        """The node with most of the items of `node` and fewer others; none of those `taken`."""
        shared, size = self._shared(node)
        best, most = None, 0.0
        for other in sorted(shared.keys() - set(taken)):
            candidate, both = self._there.node(other), shared[other]
            overlap = both / (size + candidate.count - both)
            if 2 * both > max(size, candidate.count) and overlap > most:
                best, most = candidate, overlap
        return best

    def _shared(self, node: Node) -> tuple[Counter[int], int]:
        """How many items of `node` each node of the other tree holds, and how many are there."""
        shared: Counter[int] = Counter()
        total = 0
        ids = list(self._here.item_ids(node.id))
        for start in range(0, len(ids), _READ):
            rows = self._rows(ids[start : start + _READ])
            total += len(rows)
            leaves, counts = np.unique(self._there.rows.leaf[rows], return_counts=True)
            for leaf, count in zip(leaves.tolist(), counts.tolist(), strict=True):
                for step in self._there.path(leaf):
                    shared[step.id] += count
        return shared, total

    def _rows(self, ids: Sequence[str]) -> list[int]:
        return [row for row in self._there.rows_of(ids) if row is not None]
