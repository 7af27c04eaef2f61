"""The first step of the chain: from a request to a `Need`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.ranking import Interest, Need, no_need
from app.recommend.request import RecommendRequest
from app.settings import Settings
from tree.embedders import Embedder
from tree.place import route
from tree.snapshot import Node, SemanticTree
from tree.vectors import Int8Matrix

_HISTORY = 50  # entries that may tell something; older ones only count as seen
_NAMED_LEVELS = 2  # of a path: enough to recognise an interest by
PATH_SEPARATOR = " › "


@dataclass(frozen=True, slots=True)
class Known:
    """A request seen against one version of the tree."""

    need: Need
    seen: tuple[int, ...]  # rows of the history's items
    absent: tuple[str, ...]  # history ids that the tree does not hold


@dataclass(frozen=True, slots=True)
class _Direction:
    vector: Int8Matrix
    weight: float
    interest: str
    source: str
    is_wish: bool = False


def understand(
    tree: SemanticTree, request: RecommendRequest, embedder: Embedder, settings: Settings
) -> Known:
    """The need behind a request, its interests named by the tree's own paths.

    The newest `history_items` entries become one direction each, weighted by recency (newest 1,
    then · `history_decay`); the profile and the wish one each, with `wish_weight` of the whole
    where there is a history too. Entries of unknown ids say nothing and are reported.
    """
    rows = {entry.item_id: tree.row(entry.item_id) for entry in request.history if entry.item_id}
    absent = tuple(item_id for item_id, row in rows.items() if row is None)
    seen = tuple(row for row in rows.values() if row is not None)
    directions = _of_history(tree, request, embedder, settings)
    words = [text for text in (request.profile, request.instruction) if text]
    share = settings.wish_weight if directions else 1.0
    if words:
        directions = [
            _Direction(d.vector, d.weight * (1 - share), d.interest, d.source) for d in directions
        ]
        for text, vector in zip(words, embedder.encode(words), strict=True):
            if vector.any():
                directions.append(_Direction(vector, share / len(words), text, text, True))
    directions = [direction for direction in directions if direction.weight > 0]
    if not directions:
        return Known(no_need(), seen, absent)
    return Known(_need(directions), seen, absent)


def _of_history(
    tree: SemanticTree, request: RecommendRequest, embedder: Embedder, settings: Settings
) -> list[_Direction]:
    """Newest first; the weights sum to 1."""
    newest = list(dict.fromkeys(reversed(request.history)))[:_HISTORY]
    titles = [entry.title for entry in newest if entry.title]
    encoded = iter(embedder.encode(titles))
    found: list[tuple[Int8Matrix, list[Node], str]] = []
    for entry in newest:
        if entry.title:
            vector = next(encoded)
            nodes = tree.path(route(tree, (entry.domain.casefold(),), vector))
            source = entry.title
        else:
            row = tree.row(entry.item_id or "")
            if row is None:
                continue
            vector, nodes = tree.rows.vectors[row], tree.path(int(tree.rows.leaf[row]))
            source = entry.item_id or ""
        if vector.any() and len(found) < settings.history_items:
            found.append((vector, nodes, source))
    weights = settings.history_decay ** np.arange(len(found))
    return [
        _Direction(vector, float(weight), path_name(nodes), source)
        for (vector, nodes, source), weight in zip(
            found, weights / max(weights.sum(), 1.0), strict=True
        )
    ]


def path_name(nodes: Sequence[Node]) -> str:
    """The first steps of a path, as a reader is told of an interest."""
    return PATH_SEPARATOR.join(node.label for node in nodes[:_NAMED_LEVELS]) or "this catalogue"


def _need(directions: Sequence[_Direction]) -> Need:
    totals: dict[tuple[str, bool], float] = {}
    for direction in directions:
        key = (direction.interest, direction.is_wish)
        totals[key] = totals.get(key, 0.0) + direction.weight
    order = sorted(totals, key=lambda key: -totals[key])
    weights = np.array([direction.weight for direction in directions], np.float32)
    return Need(
        interests=tuple(Interest(name, round(totals[name, wish], 4), wish) for name, wish in order),
        directions=np.stack([direction.vector for direction in directions]),
        weights=weights / weights.sum(),
        owner=np.array([order.index((d.interest, d.is_wish)) for d in directions]),
        sources=tuple(direction.source for direction in directions),
    )
