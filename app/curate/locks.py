"""Labels that an administrator has locked, on their way into another tree of a catalogue."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from tree.edits import Relabel
from tree.node import Node
from tree.snapshot import SemanticTree

_READ = 10_000


def locks_of(now: SemanticTree, draft: SemanticTree) -> tuple[list[Relabel], list[str]]:
    """Edits that give `draft` the locks of `now`, and the locked labels that find no node there.

    A locked node of the draft whose counterpart is not locked now gets that one's label; a lock
    that `now` has no node for stays. The counterpart of a node stands for the same category, or
    else holds more than half of its items, and not as many others.
    """
    given, own = ([node for node in tree.walk() if node.locked] for tree in (now, draft))
    edits: list[Relabel] = []
    lost: list[str] = []
    taken: set[int] = set()
    theirs = _Counterparts(now, draft) if given else None
    given.sort(key=lambda node: (-node.count, node.id))
    first = {node.id: theirs.namesake(node) for node in given} if theirs else {}
    taken.update(found.id for found in first.values() if found)
    heirs: set[int] = set()
    for node in given:
        found = first[node.id]
        if theirs and (found is None or found.id in heirs):
            found = theirs.likest(node, taken)
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
            found = ours.namesake(node) or ours.likest(node)
            if found is not None and not found.locked:
                edits.append(Relabel(node.id, found.label, found.signpost))
    return edits, sorted(lost)


class _Counterparts:
    """Nodes of one tree found again in another one of the same catalogue."""

    def __init__(self, here: SemanticTree, there: SemanticTree) -> None:
        self._here = here
        self._there = there
        self._by_key: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for node in there.walk():
            if node.key:
                self._by_key[node.key].append(node.id)

    def namesake(self, node: Node) -> Node | None:
        """What stands for the same category; of several, which a split leaves, the likest."""
        if node.parent is None:
            return self._there.root
        alike = self._by_key.get(node.key, ())
        if len(alike) > 1:
            shared, _ = self._shared(node)
            alike = [max(alike, key=lambda other: (shared[other], -other))]
        return self._there.node(alike[0]) if alike else None

    def likest(self, node: Node, besides: Collection[int] = ()) -> Node | None:
        """What has most of the items of `node` and hardly more others, but for those `besides`."""
        shared, size = self._shared(node)
        best, most = None, 0.0
        for other in sorted(shared.keys() - set(besides)):
            candidate, both = self._there.node(other), shared[other]
            overlap = both / (size + candidate.count - both)
            if 2 * both > max(size, candidate.count) and overlap > most:
                best, most = candidate, overlap
        return best

    def _shared(self, node: Node) -> tuple[Counter[int], int]:
        """By the nodes of the other tree below its root: how many items of `node` they hold.

        And how many of its items are there at all.
        """
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
