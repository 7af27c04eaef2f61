"""What a caller gets: the answers of the recommend and similar endpoints."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Stage = Literal["profile", "search", "recall", "rerank"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class StageUsage(_Frozen):
    """What one stage asked of a model."""

    calls: int = 0
    rounds: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    fallbacks: int = 0


class Usage(StageUsage):
    """The sum over the stages, and each of them. All zero without a model."""

    stages: dict[Stage, StageUsage] = Field(
        default_factory=lambda: dict.fromkeys(get_args(Stage), StageUsage())
    )


class RecommendedItem(_Frozen):
    """One item of an answer."""

    item_id: str
    rank: int
    score: float
    fields: dict[str, object]
    path: list[str]
    reason: str | None


class Recommendation(_Frozen):
    """A ranked list, best first, of at most `limit` allowed items."""

    recommendation_id: str
    catalog: str
    tree_version: int
    items: list[RecommendedItem]
    degraded: bool = False
    degraded_reason: str | None = None
    absent_items: list[str] = Field(
        default=[], description="History ids that the catalogue does not hold."
    )
    usage: Usage
    timing_ms: dict[str, float]


class SimilarItems(_Frozen):
    """The neighbours of an item, nearest first."""

    catalog: str
    tree_version: int
    item_id: str
    items: list[RecommendedItem]
