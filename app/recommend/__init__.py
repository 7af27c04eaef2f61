"""The chain of recommendation: need → search → recall → re-rank → answer."""

from app.recommend.answer import Recommendation, RecommendedItem, SimilarItems
from app.recommend.recommender import Recommender
from app.recommend.request import RecommendRequest

__all__ = [
    "RecommendRequest",
    "Recommendation",
    "RecommendedItem",
    "Recommender",
    "SimilarItems",
]
