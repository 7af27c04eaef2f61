"""`RankWeights`: what counts how much in the ranking of one answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

HistoryDecay: TypeAlias = Annotated[
    float,
    Field(gt=0, le=1, description="Weight of a history item relative to the next newer one."),
]
WishWeight: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Share of the wish and the profile in what is looked for; the history has the "
        "rest.",
    ),
]
ExactWords: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        le=4,
        description="Weight of the very words of history and wish beside their meaning: they find "
        "names, series and model numbers. 0 turns it off.",
    ),
]
PopularityWeight: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        le=10,
        description="Weight of ln(1 + popularity) in the score. Popularity is what an item states, "
        "and how many users had it.",
    ),
]
ColdStartPrior: TypeAlias = Annotated[
    float,
    Field(
        ge=1,
        le=100,
        description="Popularity multiplier p for users without history; with n history items it is "
        "1 + (p − 1)/(1 + n).",
    ),
]
CooccurrenceWeight: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        le=1_000,
        description="Weight of co-occurrence in the score: how often users had an item together "
        "with the items of the history. It needs events; 0 turns it off.",
    ),
]
FreshnessWeight: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        le=10,
        description="Weight of freshness in the score, for items with `published_at`. Freshness "
        "is 1 at that time, and halves with each half-life.",
    ),
]
ModelWeight: TypeAlias = Annotated[
    float,
    Field(
        ge=0, le=1, description="Share of the model's ranking; the rest is the ranking by vectors."
    ),
]
Diversity: TypeAlias = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankWeights:
    """The weights of one answer; by default similarity and words alone.

    The settings of the same names say what each means. A request starts with those of the settings,
    times what a tuning has found; its variant and then the request itself change some of them.
    """

    history_decay: float = 1.0
    wish_weight: float = 0.5
    exact_words: float = 1.0
    popularity_weight: float = 0.0
    cold_start_prior: float = 1.0
    cooccurrence_weight: float = 0.0
    freshness_weight: float = 0.0
    llm_weight: float = 1.0
    diversity: float = 0.0

    def times(self, factors: Mapping[str, float]) -> "RankWeights":
        """The weights, some of them multiplied by what a tuning has found for the catalogue."""
        if not factors:
            return self
        return replace(self, **{name: getattr(self, name) * by for name, by in factors.items()})

    def changed(
        self, changes: "WeightChanges | None", diversity: float | None = None
    ) -> "RankWeights":
        """The weights with those that are given in place of their own."""
        given: dict[str, float] = {} if changes is None else changes.model_dump(exclude_none=True)
        if diversity is not None:
            given["diversity"] = diversity
        return replace(self, **given) if given else self


class WeightChanges(BaseModel):
    """Weights of the ranking that differ; those that are not given stay as they are.

    Each is the setting of the same name, for one variant or one request: see docs/settings.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    history_decay: HistoryDecay | None = None
    wish_weight: WishWeight | None = None
    exact_words: ExactWords | None = None
    popularity_weight: PopularityWeight | None = None
    cold_start_prior: ColdStartPrior | None = None
    cooccurrence_weight: CooccurrenceWeight | None = None
    freshness_weight: FreshnessWeight | None = None
    llm_weight: ModelWeight | None = None
