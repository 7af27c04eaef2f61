"""Where candidates come from: each source is a `Retriever`, in a module of its own."""

from app.recommend.retrievers.branches import BranchRetriever
from app.recommend.retrievers.protocol import Retriever
from app.recommend.retrievers.trending import TrendingRetriever
from app.recommend.retrievers.vectors import VectorRetriever

__all__ = ["BranchRetriever", "Retriever", "TrendingRetriever", "VectorRetriever"]
