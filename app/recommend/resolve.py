"""From a request to a `ResolvedRequest`: its need, on one version of the tree."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from app.event_types import DEFAULT_RULES, EventRules
from app.rank_weights import RankWeights
from app.ranking import Direction, Interest, Need, words_of
from app.ranking.need import NO_VECTORS, Origin
from app.recommend.past import PastEntry, past_of
from app.recommend.request import HistoryEntry, RecommendRequest
from tree.item import normalise
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix

_HISTORY = 50  # entries whose titles may get vectors
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
    seen: tuple[int, ...]  # rows of the history's items, without those that the user dislikes
    hidden: tuple[int, ...]  # rows that the history takes from the answer
    absent: tuple[str, ...]  # history ids that the tree does not hold
    disliked: tuple[str, ...]  # ids and titles, newest first


@dataclass(frozen=True, slots=True)
class _Signal:
    """A direction before its interest has a position."""

    vector: Int8Matrix
    weight: float
    interest: str
    source: str
    origin: Origin | None = None
    row: int | None = None


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
    rules: EventRules = DEFAULT_RULES,
) -> ResolvedRequest:
    """The need behind a request, its interests named by the tree's own paths.

    Texts without a vector are ignored.
    Negated words ("no horror") become dislikes. The newest `history_items` entries
    become one direction each, weighted by recency (newest 1, then · `history_decay`) and by the
    type of their events; the profile and the wish one each, with `wish_weight` of the whole where
    there is a history too. Entries with unknown ids are ignored and reported. What the user
    dislikes is no direction: it lowers the scores of what is like it.
    """
    past = past_of(request, rules)
    ids = list(dict.fromkeys(entry.item_id for entry in request.history if entry.item_id))
    rows = dict(zip(ids, tree.rows_of(ids), strict=True))
    absent = tuple(item_id for item_id, row in rows.items() if row is None)
    seen = tuple(row for item in past.had if (row := rows[item]) is not None)
    hidden = tuple(row for item in past.hidden if (row := rows[item]) is not None)
    directions = _of_history(tree, past.liked, vectors.titles, weights.history_decay, history_items)
    disliked = _signals(tree, past.disliked, vectors.titles)
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
        (direction.source if direction.row is None else direction.row, direction.weight)
        for direction in directions
        if direction.origin != "wish"
    ]
    texts = [_wanted(text) for text in _wishes(request)] if share else []
    words = words_of(tree, had, 1 - share if texts else 1.0, texts)
    need = replace(
        _need(directions),
        dislikes=dislikes,
        disliked=np.stack([one.vector for one in disliked]) if disliked else NO_VECTORS,
        words=words,
        rank_weights=weights,
    )
    return ResolvedRequest(need, seen, hidden, absent, tuple(one.source for one in disliked))


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
    liked: Sequence[PastEntry],
    titles: TextVectors,
    decay: float,
    history_items: int,
) -> list[_Signal]:
    """Newest first; the weights sum to 1."""
    found = _signals(tree, liked, titles)[:history_items]
    weights = decay ** np.arange(len(found)) * np.array([one.weight for one in found])
    weights /= weights.sum() or 1.0
    return [
        replace(direction, weight=float(weight))
        for direction, weight in zip(found, weights, strict=True)
    ]


def _signals(
    tree: SemanticTree, entries: Sequence[PastEntry], titles: TextVectors
) -> list[_Signal]:
    """The entries that have a vector, in their order, with the weights of their types."""
    found: list[_Signal] = []
    for past in entries:
        entry = past.entry
        if entry.title:
            if entry.title not in titles:
                continue
            signal = _Signal(titles[entry.title], past.weight, entry.title, entry.title, "title")
        else:
            row = tree.row(entry.item_id or "")
            if row is None:
                continue
            interest = path_name(tree.path(int(tree.rows.leaf[row])))
            signal = _Signal(
                tree.rows.vectors[row], past.weight, interest, tree.rows.id(row), row=row
            )
        if signal.vector.any():
            found.append(signal)
    return found


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
                signal.row,
            )
            for signal in signals
        ),
    )
