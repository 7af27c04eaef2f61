"""Events and histories as clients and files give them, and how they are counted."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from app.data_files import id_text, seconds
from app.event_types import EventRules, EventTypeName
from app.storage.feedback import Event, Feedback, microseconds
from tree.item import WHOLE, Id
from tree.snapshot import SemanticTree

_AHEAD_S = 86_400  # by which the clocks of two systems may differ

RecommendationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def _moment(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    at = seconds(value)
    if not 0 <= at <= time.time() + _AHEAD_S:  # it would stay the latest for good
        raise ValueError("must lie between 1970 and now")
    return datetime.fromtimestamp(at, UTC)


_WRITTEN_ID = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 256}, {"type": "integer"}]}

# As in files: a whole number is an id, too, and a time is written in one of three ways.
GivenId = Annotated[Id, BeforeValidator(id_text), WithJsonSchema(_WRITTEN_ID)]
GivenTime = Annotated[
    AwareDatetime,
    BeforeValidator(_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]}),
]


class UserEvent(BaseModel):
    """A user did something with an item: saw it, bought it, disliked it."""

    # The context of its validation are the EventRules of the catalogue, which knows the types.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    user_id: GivenId
    item_id: GivenId
    type: EventTypeName = Field(
        default="view",
        description="impression, view, click, cart, purchase, like, dislike, or one of the "
        "catalogue's own `event_types`.",
    )
    at: GivenTime | None = Field(
        default=None,
        description="ISO 8601, or seconds or milliseconds since 1970. Default: now.",
    )
    value: float | None = Field(
        default=None, allow_inf_nan=False, description="What it is worth to you, in any unit."
    )
    recommendation_id: RecommendationId | None = Field(
        default=None, description="Of the answer that caused it."
    )
    rank: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = Field(
        default=None, description="The place of the item in that answer, from 1."
    )
    event_id: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = Field(
        default=None,
        validate_default=True,
        description="An event with the same id counts once within a day. It may be left out where "
        "`at` or `recommendation_id` is given: the id is then a hash of these, the user, the item "
        "and the type.",
    )

    @field_validator("type")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        _check_types((name,), info)
        return name

    @field_validator("event_id")
    @classmethod
    def _same_again(cls, event_id: str | None, info: ValidationInfo) -> str | None:
        known = info.data
        if event_id is None and known.get("at", "") is None and not known.get("recommendation_id"):
            raise ValueError("give event_id, at or recommendation_id, to tell events apart")
        return event_id

    @property
    def id(self) -> str:
        """The id of the event, given or made of the other fields."""
        if self.event_id is not None:
            return self.event_id
        at = None if self.at is None else microseconds(self.at)
        return hashed("event", self.user_id, self.item_id, self.type, at, self.recommendation_id)

    def counted_at(self, at: int) -> Event:
        """The event at this time, in microseconds since the epoch."""
        return Event(
            self.id,
            self.user_id,
            self.item_id,
            at,
            self.type,
            self.value,
            self.recommendation_id,
            self.rank,
        )


class UserHistory(BaseModel):
    """All that a user had, oldest first. Other fields are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)

    user_id: GivenId
    history: list[GivenId]
    timestamps: list[GivenTime] | None = None
    types: list[EventTypeName] | None = None

    @model_validator(mode="after")
    def _as_many(self) -> "UserHistory":
        for values, name in ((self.timestamps, "timestamps"), (self.types, "types")):
            if values is not None and len(values) != len(self.history):
                raise ValueError(f"{name} must be as many as items, or be left out")
        return self

    @field_validator("types")
    @classmethod
    def _known(cls, names: list[str] | None, info: ValidationInfo) -> list[str] | None:
        _check_types(names or (), info)
        return names

    def events(self, now: int) -> Iterator[Event]:
        """One event an item; without times they are the latest before `now`, in microseconds.

        The same history makes the same event ids, so that it may be counted again within a day.
        """
        first = now - len(self.history)
        for place, item in enumerate(self.history):
            at = first + place
            if self.timestamps is not None:
                at = microseconds(self.timestamps[place]) + place
            if self.types is None:
                yield Event(hashed("history", self.user_id, item), self.user_id, item, at)
            else:
                kind = self.types[place]
                name = hashed("history", self.user_id, item, kind)
                yield Event(name, self.user_id, item, at, kind)


def _check_types(names: Iterable[str], info: ValidationInfo) -> None:
    rules = info.context
    if isinstance(rules, EventRules) and not rules.types.keys() >= set(names):
        raise ValueError(f"this catalogue has the types {', '.join(rules.types)}")


def hashed(*parts: str | int | None) -> str:
    """An id of an event; it outlives an erasure by a day, so it does not name the user."""
    return sha256(to_json(parts)).hexdigest()[:32]


def events_of(rows: Sequence[UserEvent], now: int) -> list[Event]:
    """Events of the same moment keep their order: each comes a microsecond after the last."""
    return [
        row.counted_at((now if row.at is None else microseconds(row.at)) + place)
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
