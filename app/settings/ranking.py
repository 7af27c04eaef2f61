"""`RankingSettings`: what counts how much in the ranking, unless a variant or a request differs."""

from pydantic import Field
from pydantic_settings import BaseSettings

from app.rank_weights import (
    ColdStartPrior,
    CooccurrenceWeight,
    ExactWords,
    FreshnessWeight,
    HistoryDecay,
    ModelWeight,
    PopularityWeight,
    RankWeights,
    WishWeight,
)


class RankingSettings(BaseSettings):
    """A part of Settings."""

    history_decay: HistoryDecay = 0.8
    wish_weight: WishWeight = 0.5
    exact_words: ExactWords = 1.0
    popularity_weight: PopularityWeight = 0.025
    cold_start_prior: ColdStartPrior = 8.0
    cooccurrence_weight: CooccurrenceWeight = 30.0
    freshness_weight: FreshnessWeight = 0.0
    llm_weight: ModelWeight = 0.85
    diversity: float = Field(
        default=0.1, ge=0, le=1, description="Diversity of an answer, unless the request sets it."
    )

    @property
    def rank_weights(self) -> RankWeights:
        """These settings as the weights of an answer."""
        return RankWeights(
            history_decay=self.history_decay,
            wish_weight=self.wish_weight,
            exact_words=self.exact_words,
            popularity_weight=self.popularity_weight,
            cold_start_prior=self.cold_start_prior,
            cooccurrence_weight=self.cooccurrence_weight,
            freshness_weight=self.freshness_weight,
            llm_weight=self.llm_weight,
            diversity=self.diversity,
        )
