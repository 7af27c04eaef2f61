"""Scoring options for a need: by similarity, by a model, and by both."""

from app.ranking.embedded import (
    EmbeddedRanker,
    Ranking,
    SharedScans,
    diversified,
    strongest,
)
from app.ranking.fusion import calibrated, fused_by_rank, reciprocal_rank
from app.ranking.model_ranker import ModelRanker, Question
from app.ranking.need import Direction, Interest, Need
from app.ranking.tilt import Tilt
from app.ranking.words import WordMix, Words, words_of

__all__ = [
    "Direction",
    "EmbeddedRanker",
    "Interest",
    "ModelRanker",
    "Need",
    "Question",
    "Ranking",
    "SharedScans",
    "Tilt",
    "WordMix",
    "Words",
    "calibrated",
    "diversified",
    "fused_by_rank",
    "reciprocal_rank",
    "strongest",
    "words_of",
]
