"""Recommendation runs: lists for all stored users, or for a file of requests, as JSON Lines."""

from app.lists.answers import AnsweredPart, ListAnswers, OwnAnswers, RequestLines, RunLimits
from app.lists.run import ListRun
from app.lists.run_files import RunFiles, RunProgress, catalogs_of, new_folder
from app.lists.run_params import RunParams
from app.lists.runs import RecommendationRuns, folder_of, forget_requests

__all__ = [
    "AnsweredPart",
    "ListAnswers",
    "ListRun",
    "OwnAnswers",
    "RecommendationRuns",
    "RequestLines",
    "RunFiles",
    "RunLimits",
    "RunParams",
    "RunProgress",
    "catalogs_of",
    "folder_of",
    "forget_requests",
    "new_folder",
]
