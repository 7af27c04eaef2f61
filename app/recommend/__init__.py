"""The chain of recommendation: need → search → recall → re-rank → answer."""

from app.recommend.config import RecommendConfig
from app.recommend.context import PromptConfig
from app.recommend.recommender import Recommender
from app.recommend.request import RecommendRequest
from app.recommend.response import Recommendation, RecommendedItem, SimilarItems
from app.recommend.similar import SimilarRequest

__all__ = [
    "PromptConfig",
    "RecommendConfig",
    "RecommendRequest",
    "Recommendation",
    "RecommendedItem",
    "Recommender",
    "SimilarItems",
    "SimilarRequest",
]
