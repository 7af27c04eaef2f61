"""The configuration of each stage of the chain: the settings that it uses."""

from dataclasses import dataclass

from app.options import BranchChoice
from app.rank_weights import RankWeights
from app.settings import Settings
from app.signals import SignalsConfig


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """How the need of a request is found."""

    history_items: int
    model_profile_ttl_s: int
    embedder_timeout_s: float


@dataclass(frozen=True, slots=True)
class RetrievalConfig:
    """How the embedded ranker scores items and finds the best ones; see EmbeddedRanker."""

    inverse_temperature: float
    exact_scan_items: int
    beam_leaves: int
    beam_breadth: int
    freshness_half_life_days: float


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How a model and the embedded ranker choose branches."""

    branches: BranchChoice
    anchors: int


@dataclass(frozen=True, slots=True)
class SlateConfig:
    """How the slates of recall and re-rank are judged."""

    anchors: int


@dataclass(frozen=True, slots=True)
class AnswerConfig:
    """How reasons are found, and how long the trace of an answer is stored."""

    inverse_temperature: float
    trace_ttl_s: int


@dataclass(frozen=True, slots=True)
class RecommendConfig:
    """The configuration of all stages, and the weights that a request starts with."""

    weights: RankWeights
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
            settings.rank_weights,
            ProfileConfig(
                settings.history_items,
                settings.profile_ttl_s,
                settings.embedder_timeout_s,
            ),
            RetrievalConfig(
                settings.sharpness,
                settings.exact_scan_items,
                settings.beam_leaves,
                settings.beam_breadth,
                settings.freshness_half_life_days,
            ),
            SearchConfig(settings.llm_branches, settings.llm_anchors),
            SlateConfig(settings.llm_anchors),
            AnswerConfig(settings.sharpness, settings.trace_ttl_s),
            SignalsConfig(settings.cooccurrence_shrinkage, settings.history_items),
        )
