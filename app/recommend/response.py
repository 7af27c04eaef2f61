"""The answers of the recommend and similar endpoints."""

from collections import Counter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.llm import STAGES, Degraded, Stage
from app.llm.errors import ReplyFlaw
from app.variants import CONTROL


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
    fallbacks: int = Field(default=0, description="Slates that the embedded ranker answered.")
    invalid_replies: dict[ReplyFlaw, int] = Field(
        default={}, description="What was wrong with replies, by kind, repaired or not."
    )


class Usage(StageUsage):
    """The sum over the stages, and each of them. All zero without a model."""

    stages: dict[Stage, StageUsage] = Field(
        default_factory=lambda: dict.fromkeys(STAGES, StageUsage())
    )

    @classmethod
    def of(cls, stages: dict[Stage, StageUsage]) -> "Usage":
        """The usage of some stages, added up."""
        flaws: Counter[ReplyFlaw] = Counter()
        for usage in stages.values():
            flaws.update(usage.invalid_replies)
        return cls(
            stages=stages,
            calls=sum(usage.calls for usage in stages.values()),
            rounds=sum(usage.rounds for usage in stages.values()),
            input_tokens=sum(usage.input_tokens for usage in stages.values()),
            output_tokens=sum(usage.output_tokens for usage in stages.values()),
            cached_tokens=sum(usage.cached_tokens for usage in stages.values()),
            cost_usd=round(sum(usage.cost_usd for usage in stages.values()), 8),
            fallbacks=sum(usage.fallbacks for usage in stages.values()),
            invalid_replies=dict(flaws),
        )


class RecommendedItem(_Frozen):
    """One item of an answer."""

    item_id: str
    rank: int
    score: float
    fields: dict[str, object]
    path: list[str]
    reason: str | None
    folded: list[str] = Field(
        default=[],
        description="Ids of near-duplicates that this item stands for (other sizes, colours, "
        "editions): those that were met on the way, at most 50.",
    )


class AnswerWarning(_Frozen):
    """Something in a request that was not done as it says, though an answer could be given."""

    code: Literal[
        "unknown_field", "unknown_domain", "unknown_event_type", "fields_left_out", "llm_weak"
    ]
    message: str


class Recommendation(_Frozen):
    """A ranked list, best first, of at most `limit` allowed items."""

    recommendation_id: str
    catalog: str
    tree_version: int
    variant: str = Field(
        default=CONTROL, description="The variant of the catalogue that this user has."
    )
    items: list[RecommendedItem]
    next_cursor: str | None = Field(
        default=None,
        description="For `cursor` of the same request: the next page, as long as the trace is "
        "stored, up to 1,000 items in all. Null where no item is left.",
    )
    degraded: bool = False
    degraded_reason: Degraded | None = None
    absent_items: list[str] = Field(
        default=[], description="History ids that the catalogue does not hold."
    )
    warnings: list[AnswerWarning] = Field(
        default=[],
        description="What was asked for and is nowhere in the catalogue, or is too large to show; "
        "and `llm_weak` where the model ranks no better than chance, so that it was not asked.",
    )
    usage: Usage
    timing_ms: dict[str, float]


class SimilarItems(_Frozen):
    """The neighbours of an item, nearest first."""

    catalog: str
    tree_version: int
    item_id: str
    items: list[RecommendedItem]
    folded: list[str] = Field(
        default=[], description="Ids of near-duplicates of the item itself, which are left out."
    )
    next_cursor: str | None = Field(
        default=None,
        description="For `cursor` of the same POST: the next page. Null where no item is left.",
    )
    warnings: list[AnswerWarning] = []
