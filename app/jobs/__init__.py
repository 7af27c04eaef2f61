"""Long work that a caller can watch, and that outlives the process that began it."""

from app.jobs.job import Job, JobFailed, JobRunning, JobState, JobType, Progress
from app.jobs.jobs import Jobs, Worker
from app.jobs.report import Report

__all__ = [
    "Job",
    "JobFailed",
    "JobRunning",
    "JobState",
    "JobType",
    "Jobs",
    "Progress",
    "Report",
    "Worker",
]
