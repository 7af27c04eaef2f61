"""`Past`: what a history says for its user, what it says against, and what it leaves out."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.event_types import HAD, EventRules
from app.recommend.request import HistoryEntry, RecommendRequest

_LIKED = 50  # that may become directions; older ones only count as seen
_DISLIKED = 20  # the newest; with 50, lists on films had no fewer disliked items


@dataclass(frozen=True, slots=True)
class PastEntry:
    """Something of the history, with the weight of the strongest type that it has there."""

    entry: HistoryEntry
    weight: float


@dataclass(frozen=True, slots=True)
class Past:
    """The history of a request, each thing once.

    `liked` and `disliked` are things with a weight above and below 0, newest first. `had` are the
    ids of liked items, oldest first. `hidden` are the ids that are left out of the answer: what the
    types hide, unless the request says something else, and always what is disliked.
    """

    liked: Sequence[PastEntry]
    disliked: Sequence[PastEntry]
    had: Sequence[str]
    hidden: Sequence[str]


def past_of(request: RecommendRequest, rules: EventRules) -> Past:
    """The history of a request by the types of its catalogue; an entry without one was had."""
    strongest: dict[tuple[str | None, str | None], tuple[tuple[bool, float], HistoryEntry]] = {}
    for entry in request.history:  # the last place decides how old it is
        kind = rules.of(entry.type or HAD)
        strength = kind.hides, abs(kind.weight)
        key = entry.item_id, entry.title
        known = strongest.pop(key, None)
        if known is not None and known[0] > strength:
            strength, entry = known  # noqa: PLW2901
        strongest[key] = strength, entry
    had, hidden = [], []
    liked: list[PastEntry] = []
    disliked: list[PastEntry] = []
    for (hides, _), entry in strongest.values():
        weight = rules.of(entry.type or HAD).weight
        if weight:
            (liked if weight > 0 else disliked).append(PastEntry(entry, weight))
        if entry.item_id is not None:
            if weight > 0:
                had.append(entry.item_id)
            if weight < 0 or _leaves_out(request, hides=hides):
                hidden.append(entry.item_id)
    return Past(liked[: -_LIKED - 1 : -1], disliked[: -_DISLIKED - 1 : -1], had, hidden)


def unknown_types(request: RecommendRequest, rules: EventRules) -> list[str]:
    """The types in the history that the catalogue does not have, each once."""
    named = dict.fromkeys(entry.type for entry in request.history if entry.type)
    return [name for name in named if name not in rules.types]


def _leaves_out(request: RecommendRequest, *, hides: bool) -> bool:
    if request.exclude_history is None:
        return hides and request.task != "search"
    return request.exclude_history
