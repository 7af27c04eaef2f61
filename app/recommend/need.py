"""The first step of the chain: from a request to a `Need`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from app.ranking import Interest, Need, no_need
from app.recommend.request import HistoryEntry, RecommendRequest
from app.settings import Settings
from tree.item import normalise
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix

_HISTORY = 50  # entries that may tell something; older ones only count as seen
_NAMED_LEVELS = 2  # of a path: enough to recognise an interest by
PATH_SEPARATOR = " › "

Words: TypeAlias = Mapping[str, Int8Matrix]
"""Vectors by text."""

# What a reader does not want: the words after a negation, up to the next break. A model reads
# this better; without one, "no horror" must at least not be taken for a wish for horror.
_NEGATION = re.compile(
    r"\b(?:no|not|never|without|except|avoid|kein\w*|nicht|ohne|pas de|sans|sin|senza|zonder|geen)"
    r"\s+(?:(?:too|so|any|more)\s+)?([^,.;:!?]+?)(?=\s+(?:and|but|or|und|et|y)\b|[,.;:!?]|$)",
    re.IGNORECASE,
)


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
    said: Literal["wish", "title"] | None = None


def words_of(request: RecommendRequest) -> list[str]:
    """The texts of a request that `understand` wants the vectors of, each once."""
    titles = [entry.title for entry in _newest(request) if entry.title]
    return list(dict.fromkeys([*titles, *(_wanted(text) for text in _positive(request))]))


def understand(
    tree: SemanticTree, request: RecommendRequest, words: Words, settings: Settings
) -> Known:
    """The need behind a request, its interests named by the tree's own paths.

    `words` are the vectors of `words_of(request)`; texts that have none there say nothing.
    What is negated ("no horror") is kept apart as a dislike. The newest `history_items` entries
    become one direction each, weighted by recency (newest 1, then · `history_decay`); the profile
    and the wish one each, with `wish_weight` of the whole where there is a history too. Entries
    of unknown ids say nothing and are reported.
    """
    rows = {entry.item_id: tree.row(entry.item_id) for entry in request.history if entry.item_id}
    absent = tuple(item_id for item_id, row in rows.items() if row is None)
    seen = tuple(row for row in rows.values() if row is not None)
    directions = _of_history(tree, request, words, settings)
    dislikes = tuple(normalise(hit) for text in _said(request) for hit in _NEGATION.findall(text))
    wishes = [
        (text, words[wanted]) for text in _positive(request) if (wanted := _wanted(text)) in words
    ]
    share = settings.wish_weight if directions else 1.0
    if wishes:
        directions = [
            replace(direction, weight=direction.weight * (1 - share)) for direction in directions
        ]
        for text, vector in wishes:
            if vector.any():
                directions.append(_Direction(vector, share / len(wishes), text, text, "wish"))
    directions = [direction for direction in directions if direction.weight > 0]
    need = _need(directions) if directions else no_need()
    return Known(replace(need, dislikes=dislikes), seen, absent)


def _said(request: RecommendRequest) -> list[str]:
    return [text for text in (request.profile, request.instruction) if text]


def _positive(request: RecommendRequest) -> list[str]:
    """What is said but for what only says no."""
    return [text for text in _said(request) if _wanted(text).strip(" ,.;:!?")]


def _wanted(text: str) -> str:
    return _NEGATION.sub(" ", text)


def _newest(request: RecommendRequest) -> list[HistoryEntry]:
    return list(dict.fromkeys(reversed(request.history)))[:_HISTORY]


def _of_history(
    tree: SemanticTree, request: RecommendRequest, words: Words, settings: Settings
) -> list[_Direction]:
    """Newest first; the weights sum to 1."""
    found: list[_Direction] = []
    for entry in _newest(request):
        if entry.title:
            if entry.title not in words:
                continue
            direction = _Direction(words[entry.title], 1.0, entry.title, entry.title, "title")
        else:
            row = tree.row(entry.item_id or "")
            if row is None:
                continue
            interest = path_name(tree.path(int(tree.rows.leaf[row])))
            direction = _Direction(tree.rows.vectors[row], 1.0, interest, tree.rows.id(row))
        if direction.vector.any() and len(found) < settings.history_items:
            found.append(direction)
    weights = settings.history_decay ** np.arange(len(found))
    weights /= max(weights.sum(), 1.0)
    return [
        replace(direction, weight=float(weight))
        for direction, weight in zip(found, weights, strict=True)
    ]


def disliked(tree: SemanticTree, dislikes: Sequence[str]) -> list[int]:
    """Leaves under a category whose name a dislike contains, or the other way round."""
    if not dislikes:
        return []
    found: list[int] = []
    pending = [tree.root]
    while pending:
        node = pending.pop()
        name = node.key[-1] if node.key else ""
        if name and any(_mentions(words, name) for words in dislikes):
            found += [leaf.id for leaf in tree.leaves(node.id)]
        else:
            pending += [child for child in tree.children(node) if child.key]
    return found


def _mentions(words: str, name: str) -> bool:
    return f" {name} " in f" {words} " or f" {words} " in f" {name} "


def path_name(nodes: Sequence[Node]) -> str:
    """The first steps of a path, as a reader is told of an interest."""
    return PATH_SEPARATOR.join(node.label for node in nodes[:_NAMED_LEVELS]) or "this catalogue"


def _need(directions: Sequence[_Direction]) -> Need:
    totals: dict[tuple[str, Literal["wish", "title"] | None], float] = {}
    for direction in directions:
        key = (direction.interest, direction.said)
        totals[key] = totals.get(key, 0.0) + direction.weight
    order = sorted(totals, key=lambda key: -totals[key])
    weights = np.array([direction.weight for direction in directions], np.float32)
    return Need(
        interests=tuple(Interest(name, round(totals[name, said], 4), said) for name, said in order),
        directions=np.stack([direction.vector for direction in directions]),
        weights=weights / weights.sum(),
        owner=np.array([order.index((d.interest, d.said)) for d in directions]),
        sources=tuple(direction.source for direction in directions),
    )
