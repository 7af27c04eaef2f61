"""`EventSettings`: how long users, events and answers are kept, and how many events count."""

from pydantic import Field
from pydantic_settings import BaseSettings


class EventSettings(BaseSettings):
    """A part of Settings."""

    user_ttl_s: int = Field(
        default=31_536_000,
        ge=60,
        le=315_360_000,
        description="How long a user is stored after the last event or update.",
    )
    events_per_user_day: int = Field(
        default=100,
        ge=0,
        description="How many events of one user count for items on one day (UTC), when they come "
        "over HTTP; the others only enter the user's history. 0 for any number.",
    )
    attribution_ttl_s: int = Field(
        default=604_800,
        ge=0,
        le=2_592_000,
        description="How long an event may name the recommendation that caused it. Until then the "
        "ids of its items are kept, without the user: some 0.3 kB for ten items. 0 turns metrics "
        "of recommendations off.",
    )
