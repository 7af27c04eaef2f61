"""`EventType`: what an event of a type means; `EventRules`: how a catalogue counts events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

EventTypeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,64}$")]


class EventType(BaseModel):
    """What an event of this type means for its item, and for the lists of its user."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    weight: float = Field(
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="What it says for the item: 1 like a purchase, 0 nothing; below 0 it speaks "
        "against what is like the item.",
    )
    hides: bool = Field(
        default=False, description="Whether it takes the item from the lists of this user."
    )


EVENT_TYPES: Mapping[str, EventType] = {
    "impression": EventType(weight=0),
    "view": EventType(weight=0.25),
    "click": EventType(weight=0.5),
    "cart": EventType(weight=0.75),
    "purchase": EventType(weight=1, hides=True),
    "like": EventType(weight=1, hides=True),
    "dislike": EventType(weight=-1, hides=True),
}
"""The types that every catalogue has, unless its settings change them."""

HAD = "purchase"  # the type of a history's items, where nothing says another one

_UNKNOWN = EventType(weight=0)


@dataclass(frozen=True, slots=True)
class EventRules:
    """How events of one catalogue count.

    Counts lose half of their worth in `half_life_s`; None: none of it. A user counts for at most
    `most_per_day` items on one day; None: for any number.
    """

    types: Mapping[str, EventType] = field(default_factory=lambda: EVENT_TYPES)
    half_life_s: float | None = None
    most_per_day: int | None = None

    def of(self, name: str) -> EventType:
        """The type of that name; one that is not known any more says nothing."""
        return self.types.get(name, _UNKNOWN)


DEFAULT_RULES = EventRules()
