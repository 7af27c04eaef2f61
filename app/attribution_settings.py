"""`AttributionSettings`: how long answers are kept for the events that name them."""

from pydantic import Field
from pydantic_settings import BaseSettings


class AttributionSettings(BaseSettings):
    """A part of Settings."""

    attribution_ttl_s: int = Field(
        default=604_800,
        ge=0,
        le=2_592_000,
        description="How long an event may name the recommendation that caused it. Until then the "
        "ids of its items are kept, without the user: some 0.3 kB for ten items. 0 turns metrics "
        "of recommendations off.",
    )
