"""The configuration of each stage of the chain: the settings that it uses."""

from dataclasses import dataclass

from app.options import BranchChoice
from app.settings import Settings
from app.signals import SignalsConfig


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """The weights of a history and of words in the need."""

    history_items: int
    history_decay: float
    wish_weight: float
    cold_start_prior: float
    model_profile_ttl_s: int
    embedder_timeout_s: float


@dataclass(frozen=True, slots=True)
class RetrievalConfig:
    """How the embedded ranker scores items and finds the best ones; see EmbeddedRanker."""

    inverse_temperature: float
    popularity_weight: float
    exact_scan_items: int
    beam_leaves: int
    beam_breadth: int
    exact_words: float
    freshness_weight: float
    freshness_half_life_days: float


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How a model and the embedded ranker choose branches."""

    branches: BranchChoice
    anchors: int


@dataclass(frozen=True, slots=True)
class SlateConfig:
    """How the slates of recall and re-rank are judged, and what a model's scores weigh at most."""

    model_weight: float
    anchors: int


@dataclass(frozen=True, slots=True)
class AnswerConfig:
    """The diversity of an answer, and how long its trace is stored."""

    diversity: float
    inverse_temperature: float
    trace_ttl_s: int


@dataclass(frozen=True, slots=True)
class RecommendConfig:
    """The configuration of all stages."""

    profile: ProfileConfig
    retrieval: RetrievalConfig
    search: SearchConfig
    slates: SlateConfig
    answer: AnswerConfig
    signals: SignalsConfig

    @classmethod
    def of(cls, settings: Settings) -> "RecommendConfig":
        """The stages as the settings have them."""
        return cls(
            ProfileConfig(
                settings.history_items,
                settings.history_decay,
                settings.wish_weight,
                settings.cold_start_prior,
                settings.profile_ttl_s,
                settings.embedder_timeout_s,
            ),
            RetrievalConfig(
                settings.sharpness,
                settings.popularity_weight,
                settings.exact_scan_items,
                settings.beam_leaves,
                settings.beam_breadth,
                settings.exact_words,
                settings.freshness_weight,
                settings.freshness_half_life_days,
            ),
            SearchConfig(settings.llm_branches, settings.llm_anchors),
            SlateConfig(settings.llm_weight, settings.llm_anchors),
            AnswerConfig(settings.diversity, settings.sharpness, settings.trace_ttl_s),
            SignalsConfig(
                settings.cooccurrence_weight,
                settings.cooccurrence_shrinkage,
                settings.popularity_weight,
                settings.history_items,
                settings.history_decay,
            ),
        )
