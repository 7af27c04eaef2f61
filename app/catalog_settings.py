"""`CatalogSettings`: what the owner of a catalogue chooses for it alone."""

from typing import Annotated

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.event_types import EVENT_TYPES, EventRules, EventType, EventTypeName
from app.variants import CatalogVariants
from prompts import GUIDANCE_CHARS, OBJECTIVE_CHARS, Perspective
from tree.item import NO_NUL, WHOLE
from tree.node import TreeSettings

_DAY_S = 86_400
_MOST_TYPES = 32

CatalogGuidance = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=GUIDANCE_CHARS, pattern=NO_NUL)
]
CatalogObjective = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=OBJECTIVE_CHARS, pattern=NO_NUL)
]

CatalogEventTypes = Annotated[dict[EventTypeName, EventType], Field(max_length=_MOST_TYPES)]
ExperimentName = Annotated[str, StringConstraints(max_length=100, pattern=NO_NUL)]
HalfLifeDays = Annotated[float, Field(ge=0.01, le=36_500, allow_inf_nan=False)]


class CatalogEnrichment(BaseModel):
    """How a model describes the items of a catalogue, one line each."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    enabled: bool = Field(
        default=False, description="Whether new and changed items get lines by themselves."
    )
    max_cost_usd_per_day: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Most that these lines cost in a day. Default: as the service."
    )
    images: bool = Field(default=False, description="Whether the model sees pictures of items.")


class CatalogSettings(BaseModel):
    """The shape of a catalogue's tree, and its wording in prompts.

    `guidance`, `objective`, `enrichment`, `event_types`, `half_life_days`, `variants` and
    `experiment` may change later; the others are fixed at its creation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    leaf_capacity: Annotated[int, Field(ge=2, le=50), WHOLE] = Field(
        default=20, description="Most items in a leaf."
    )
    fan_out: Annotated[int, Field(ge=3, le=64), WHOLE] = Field(
        default=16, description="Most children of a node."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] = 0
    embedder: str | None = Field(
        default=None,
        description="`hybrid`, `lexical`, or the embedder that this service was started with, "
        "which is the default.",
    )
    perspective: Perspective = "interest"
    language: str = Field(default="en", min_length=2, max_length=35)
    guidance: CatalogGuidance = Field(
        default="", description="What a model should know of this catalogue and its users."
    )
    objective: CatalogObjective = Field(
        default="",
        description="What a model should prefer among items that suit, in one or two sentences. "
        "Without a model it changes nothing.",
    )
    enrichment: CatalogEnrichment = CatalogEnrichment()
    event_types: CatalogEventTypes = Field(
        default={},
        description="Own types of events, and other meanings of `view`, `click`, `cart`, "
        "`purchase`, `like`, `dislike` and `impression`.",
    )
    half_life_days: HalfLifeDays | None = Field(
        default=None,
        description="The time in which what events say of an item's popularity loses half of its "
        "worth. Default: it keeps it.",
    )
    variants: CatalogVariants = Field(
        default={},
        description="Settings that shares of the users get, by name; all others have `default`, "
        "the settings of the service.",
    )
    experiment: ExperimentName = Field(
        default="", description="Stands for what is tried now: another name shuffles all users."
    )

    @property
    def tree(self) -> TreeSettings:
        shape = TreeSettings(self.leaf_capacity, self.fan_out, self.seed)
        return shape if self.embedder is None else replace(shape, embedder=self.embedder)

    @property
    def event_rules(self) -> EventRules:
        days = self.half_life_days
        return EventRules(
            {**EVENT_TYPES, **self.event_types}, None if days is None else days * _DAY_S
        )
