"""The chain of recommendation: need → search → recall → re-rank → answer."""

from app.recommend.answer import Recommendation, RecommendedItem, SimilarItems
from app.recommend.reading import Manner
from app.recommend.recommender import Recommender
from app.recommend.request import RecommendRequest

__all__ = [
    "Manner",
    "RecommendRequest",
    "Recommendation",
    "RecommendedItem",
    "Recommender",
    "SimilarItems",
]
