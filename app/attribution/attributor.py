"""`Attributor`: keeps which lists were shown, and joins events with them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from secrets import randbelow

from app.attribution.list_ids import is_list_id
from app.event_types import EVENT_TYPES, EventRules
from app.storage.attribution import (
    BUCKETS,
    Attributed,
    Attribution,
    ListEvent,
    Measure,
    ShownList,
)
from app.storage.feedback import Event

NONE = "-"  # the label of a list without a scenario
_LABEL_CHARS = 100
_MOST_VALUE = 1e9
_CLICKS = ("click", "view")  # both say that the user opened the item


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What is kept of an answer. `strategy` and `effort` are those that really ran.

    `is_shown`: whether a user sees it now. One of a run counts with the first event that names it.
    """

    list_id: str
    user_id: str | None
    variant: str
    strategy: str
    effort: str
    scenario: str | None
    degraded: bool
    tree_version: int
    items: Sequence[str]
    is_shown: bool = True


class Attributor:
    """Joins the answers and the events of one catalogue.

    An answer is kept for `ttl_s` without its user: of the user's id only the bucket is kept, one of
    64. With a `ttl_s` of 0 nothing is kept or counted.
    """

    def __init__(self, catalog_id: str, store: Attribution, ttl_s: int) -> None:
        self.store = store
        self._catalog_id = catalog_id
        self._ttl_s = ttl_s

    async def keep(self, answered: Answered) -> None:
        """Count an answer that is shown, and keep it for events. Raises StoreUnavailable."""
        if not self._ttl_s or not answered.items:
            return
        labels = (
            answered.variant,
            answered.strategy,
            answered.effort,
            answered.scenario or NONE,
            "yes" if answered.degraded else "no",
        )
        shown = ShownList(
            answered.list_id,
            today(),
            _bucket_of(answered.user_id),
            tuple(label.replace("\0", " ")[:_LABEL_CHARS] for label in labels),
            answered.tree_version,
            answered.items,
            answered.is_shown,
        )
        await self.store.keep(shown, self._ttl_s)

    async def attribute(
        self, events: Sequence[Event], rules: EventRules
    ) -> list[Attributed | None]:
        """Count the events that name a list; one outcome for each event, None for the others.

        Also None for types that no metric counts. Events may be sent again, in any order.
        Raises StoreUnavailable.
        """
        outcomes: list[Attributed | None] = [None] * len(events)
        if not self._ttl_s:
            return outcomes
        found = {}
        for place, event in enumerate(events):
            measure = measure_of(event.type, rules)
            if event.recommendation_id is not None and measure is not None:
                found[place] = self._list_event(event, event.recommendation_id, measure)
        if found:
            some = await self.store.attribute(list(found.values()), today(), self._ttl_s)
            for place, outcome in zip(found, some, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _list_event(self, event: Event, list_id: str, measure: Measure) -> ListEvent:
        # Two types of conversions may come of one item, but a view and a click are one thing. An
        # own type may have the name of a measure.
        mark = f"type:{event.type}" if measure == "conversions" else measure
        value = (event.value or 0.0) if measure == "conversions" else 0.0
        return ListEvent(
            list_id,
            event.item_id,
            measure,
            mark,
            max(-_MOST_VALUE, min(_MOST_VALUE, value)),
            is_list_id(self._catalog_id, list_id),
        )


def measure_of(name: str, rules: EventRules) -> Measure | None:
    """What an event of a type counts as, for a list; None for nothing.

    A purchase is a conversion, and so is an own type of the catalogue with the weight of one.
    """
    if name == "impression":
        return "impressions"
    if name in _CLICKS:
        return "clicks"
    own = name not in EVENT_TYPES and rules.of(name).weight >= 1
    return "conversions" if name == "purchase" or own else None


def today() -> date:
    """The day by which lists are counted, in UTC."""
    return datetime.fromtimestamp(time.time(), UTC).date()


def _bucket_of(user_id: str | None) -> int:
    """One of the buckets: always the same for a user, and any where there is none."""
    if user_id is None:
        return randbelow(BUCKETS)
    return int.from_bytes(sha256(f"bucket\0{user_id}".encode()).digest()[:8]) % BUCKETS
