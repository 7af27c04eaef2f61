"""From a request to a `ResolvedRequest`: its need, on one version of the tree."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from app.rank_weights import RankWeights
from app.ranking import Direction, Interest, Need, words_of
from app.ranking.need import Origin
from app.recommend.request import HistoryEntry, RecommendRequest
from tree.item import normalise
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix

_HISTORY = 50  # entries that may become directions; older ones only count as seen
_DISLIKES = 50  # the last of them; all stand in prompts and are compared with all categories
_NAMED_LEVELS = 2  # of a path: enough to recognise an interest by
PATH_SEPARATOR = " › "

TextVectors: TypeAlias = Mapping[str, Int8Matrix]
"""Vectors by text."""

# What a user does not want: the words after a negation, up to the next break. A model reads
# this better; without one, "no horror" must at least not be taken for a wish for horror. It is
# for text whose blanks are single ones: runs of them would take quadratic time.
_NEGATION = re.compile(
    r"\b(?:no|not|never|without|except|avoid|kein\w*|nicht|ohne|pas de|sans|sin|senza|zonder|geen)"
    r" (?:(?:too|so|any|more) )?([^,.;:!?]+?)(?= (?:and|but|or|und|et|y)\b|[,.;:!?]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RequestVectors:
    """The vectors of `titles_of` and of `wishes_of` a request: one text may be both."""

    titles: TextVectors = field(default_factory=dict)
    wishes: TextVectors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A request on one version of the tree."""

    need: Need
    seen: tuple[int, ...]  # rows of the history's items
    absent: tuple[str, ...]  # history ids that the tree does not hold


@dataclass(frozen=True, slots=True)
class _Signal:
    """A direction before its interest has a position."""

    vector: Int8Matrix
    weight: float
    interest: str
    source: str
    origin: Origin | None = None


def titles_of(request: RecommendRequest) -> list[str]:
    """The titles in the history, each once; `resolve_request` needs their vectors."""
    return list(dict.fromkeys(entry.title for entry in _newest(request) if entry.title))


def wishes_of(request: RecommendRequest) -> list[str]:
    """The words that describe what the user wants, each text once; see `titles_of`."""
    return list(dict.fromkeys(_wanted(text) for text in _wishes(request)))


def resolve_request(
    tree: SemanticTree,
    request: RecommendRequest,
    vectors: RequestVectors,
    weights: RankWeights,
    history_items: int,
) -> ResolvedRequest:
    """The need behind a request, its interests named by the tree's own paths.

    Texts without a vector are ignored.
    Negated words ("no horror") become dislikes. The newest `history_items` entries
    become one direction each, weighted by recency (newest 1, then · `history_decay`); the profile
    and the wish one each, with `wish_weight` of the whole where there is a history too. Entries
    with unknown ids are ignored and reported.
    """
    ids = list(dict.fromkeys(entry.item_id for entry in request.history if entry.item_id))
    rows = dict(zip(ids, tree.rows_of(ids), strict=True))
    absent = tuple(item_id for item_id, row in rows.items() if row is None)
    seen = tuple(row for row in rows.values() if row is not None)
    directions = _of_history(tree, request, vectors.titles, weights.history_decay, history_items)
    unwanted = [normalise(hit) for text in _texts(request) for hit in _unwanted(text)]
    dislikes = tuple(dict.fromkeys(unwanted))[-_DISLIKES:]
    wishes = [
        (text, vectors.wishes[wanted])
        for text in _wishes(request)
        if (wanted := _wanted(text)) in vectors.wishes
    ]
    share = weights.wish_weight if directions else 1.0
    if wishes:
        directions = [
            replace(direction, weight=direction.weight * (1 - share)) for direction in directions
        ]
        for text, vector in wishes:
            if vector.any():
                directions.append(_Signal(vector, share / len(wishes), text, text, "wish"))
    directions = [direction for direction in directions if direction.weight > 0]
    had = [
        (direction.source if direction.origin else rows[direction.source] or 0, direction.weight)
        for direction in directions
        if direction.origin != "wish"
    ]
    texts = [_wanted(text) for text in _wishes(request)] if share else []
    words = words_of(tree, had, 1 - share if texts else 1.0, texts)
    need = replace(_need(directions), dislikes=dislikes, words=words, rank_weights=weights)
    return ResolvedRequest(need, seen, absent)


def _texts(request: RecommendRequest) -> list[str]:
    return [text for text in (request.profile, request.instruction) if text]


def _wishes(request: RecommendRequest) -> list[str]:
    """The texts that ask for something, and do not only reject."""
    return [text for text in _texts(request) if _wanted(text).strip(" ,.;:!?")]


def _wanted(text: str) -> str:
    return _NEGATION.sub(" ", _single_blanks(text))


def _unwanted(text: str) -> list[str]:
    return _NEGATION.findall(_single_blanks(text))


def _single_blanks(text: str) -> str:
    return " ".join(text.split())


def _newest(request: RecommendRequest) -> list[HistoryEntry]:
    newest: dict[HistoryEntry, None] = {}
    for entry in reversed(request.history):
        newest[entry] = None
        if len(newest) == _HISTORY:
            break
    return list(newest)


def _of_history(
    tree: SemanticTree,
    request: RecommendRequest,
    titles: TextVectors,
    decay: float,
    most: int,
) -> list[_Signal]:
    """The newest `most`, newest first; the weights sum to 1."""
    found: list[_Signal] = []
    for entry in _newest(request):
        if entry.title:
            if entry.title not in titles:
                continue
            direction = _Signal(titles[entry.title], 1.0, entry.title, entry.title, "title")
        else:
            row = tree.row(entry.item_id or "")
            if row is None:
                continue
            interest = path_name(tree.path(int(tree.rows.leaf[row])))
            direction = _Signal(tree.rows.vectors[row], 1.0, interest, tree.rows.id(row))
        if direction.vector.any() and len(found) < most:
            found.append(direction)
    weights = decay ** np.arange(len(found))
    weights /= max(weights.sum(), 1.0)
    return [
        replace(direction, weight=float(weight))
        for direction, weight in zip(found, weights, strict=True)
    ]


def path_name(nodes: Sequence[Node]) -> str:
    """The first labels of a path: the name of an interest."""
    return PATH_SEPARATOR.join(node.label for node in nodes[:_NAMED_LEVELS]) or "this catalogue"


def _need(signals: Sequence[_Signal]) -> Need:
    """The need with the interests in the order of their weights."""
    totals: dict[tuple[str, Origin | None], float] = {}
    for signal in signals:
        key = (signal.interest, signal.origin)
        totals[key] = totals.get(key, 0.0) + signal.weight
    order = sorted(totals, key=lambda key: -totals[key])
    return Need(
        tuple(Interest(name, round(totals[name, origin], 4), origin) for name, origin in order),
        tuple(
            Direction(
                signal.vector,
                signal.weight,
                order.index((signal.interest, signal.origin)),
                signal.source,
            )
            for signal in signals
        ),
    )
