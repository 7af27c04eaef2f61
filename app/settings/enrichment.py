"""`EnrichmentSettings`: how a model describes the items of a catalogue."""

from typing import Literal, TypeAlias

from pydantic import Field
from pydantic_settings import BaseSettings

PictureWay: TypeAlias = Literal["fetch", "link"]


class EnrichmentSettings(BaseSettings):
    """A part of Settings."""

    llm_enrich_model: str | None = Field(
        default=None,
        description="Another model for the lines of items (enrichment), at the same endpoint.",
    )
    llm_enrich_cost_usd: float = Field(
        default=5.0,
        ge=0,
        description="Most that one enrichment may cost, unless it sets `max_cost_usd`.",
    )
    llm_enrich_day_usd: float = Field(
        default=1.0,
        ge=0,
        description="Most that the lines of new and changed items may cost in a day and catalogue, "
        "unless the catalogue sets `max_cost_usd_per_day`.",
    )
    llm_enrich_concurrency: int = Field(
        default=4,
        ge=1,
        description="Concurrent calls for lines of items, per process, apart from other calls.",
    )
    llm_enrich_timeout_s: float = Field(
        default=120.0,
        gt=0,
        le=600,
        description="Timeout of one call for lines, of thirty items.",
    )
    llm_enrich_pictures: PictureWay = Field(
        default="fetch",
        description="How a model sees the pictures of a catalogue with `enrichment.images`: "
        "`fetch`: the service fetches them and sends small copies; `link`: the provider gets "
        "their addresses.",
    )
    llm_picture_hosts: tuple[str, ...] = Field(
        default=(),
        description='Hosts of pictures inside your network, as `["images.internal:80", '
        '"10.0.0.7:80"]`: the name and its address, each with the port. Without them pictures '
        "are fetched over https from public addresses only.",
    )
