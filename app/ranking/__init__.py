"""Scoring options for a need: by similarity, by a model, and by both."""

from app.ranking.embedded import (
    EmbeddedRanker,
    Interest,
    Need,
    Ranking,
    SharedScans,
    diversified,
    no_need,
    strongest,
)
from app.ranking.fusion import calibrated, reciprocal_rank
from app.ranking.model import ModelRanker, Question

__all__ = [
    "EmbeddedRanker",
    "Interest",
    "ModelRanker",
    "Need",
    "Question",
    "Ranking",
    "SharedScans",
    "calibrated",
    "diversified",
    "no_need",
    "reciprocal_rank",
    "strongest",
]
