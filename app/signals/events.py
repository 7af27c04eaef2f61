"""Events and histories as clients and files give them, and how they are counted."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from app.event_types import EventRules, EventTypeName
from app.storage.feedback import Event, Feedback, microseconds
from tree.item import WHOLE, Id, Instant
from tree.snapshot import SemanticTree

_AHEAD_S = 86_400  # by which the clocks of two systems may differ

RecommendationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class UserEvent(BaseModel):
    """A user did something with an item: saw it, bought it, disliked it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    event_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    user_id: Id
    item_id: Id
    type: EventTypeName = Field(
        default="view",
        description="impression, view, click, cart, purchase, like, dislike, or one of the "
        "catalogue's own `event_types`.",
    )
    at: Instant | None = Field(default=None, description="Now, unless it is given.")
    value: float | None = Field(
        default=None, allow_inf_nan=False, description="What it is worth to you, in any unit."
    )
    recommendation_id: RecommendationId | None = Field(
        default=None, description="Of the answer that caused it."
    )
    rank: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = Field(
        default=None, description="The place of the item in that answer, from 1."
    )

    @field_validator("at")
    @classmethod
    def _in_time(cls, at: datetime | None) -> datetime | None:
        _check_time(at.timestamp() if at else 0.0)
        return at


class UserHistory(BaseModel):
    """All that a user had, oldest first. Other fields of the line are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)

    user_id: Id
    history: list[Id]
    timestamps: list[float] | None = Field(default=None, description="Seconds since the epoch.")

    @model_validator(mode="after")
    def _as_many_times(self) -> "UserHistory":
        if self.timestamps is not None and len(self.timestamps) != len(self.history):
            raise ValueError("timestamps must be as many as items, or be left out")
        for at in self.timestamps or ():
            _check_time(at)
        return self

    def events(self, now: int) -> Iterator[Event]:
        """One event an item; without times they are the latest before `now`, in microseconds.

        The same history makes the same event ids, so that it may be counted again within a day.
        """
        first = now - len(self.history)
        for place, item in enumerate(self.history):
            at = first + place
            if self.timestamps is not None:
                at = round(self.timestamps[place] * 1_000_000) + place
            yield Event(_event_id(self.user_id, item), self.user_id, item, at)


def _event_id(user_id: str, item_id: str) -> str:
    """Ids of events outlive an erasure by a day, so this one does not name the user."""
    return sha256(to_json(["history", user_id, item_id])).hexdigest()[:32]


def _check_time(at: float) -> None:
    """An event of the far future would stay the latest for good. Raises ValueError."""
    if not 0 <= at <= time.time() + _AHEAD_S:
        raise ValueError("must lie between 1970 and now")


def events_of(rows: Sequence[UserEvent], now: int) -> list[Event]:
    """Events of the same moment keep their order: each comes a microsecond after the last."""
    return [
        Event(
            row.event_id,
            row.user_id,
            row.item_id,
            (now if row.at is None else microseconds(row.at)) + place,
            row.type,
            row.value,
            row.recommendation_id,
            row.rank,
        )
        for place, row in enumerate(rows)
    ]


async def count_events(
    feedback: Feedback, tree: SemanticTree, events: Sequence[Event], rules: EventRules
) -> Counter[str]:
    """Count events of items that the tree holds; how many events had which outcome.

    Events of other items are `unknown_item`. Raises StoreUnavailable.
    """
    ids = list({event.item_id for event in events})
    known = {item for item, at in zip(ids, tree.rows_of(ids), strict=True) if at is not None}
    taken = [event for event in events if event.item_id in known]
    outcomes = Counter[str](await feedback.record(taken, rules))
    outcomes["unknown_item"] += len(events) - len(taken)
    return outcomes
