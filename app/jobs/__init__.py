"""Long work that a caller can watch, and that survives the process that began it."""

from app.jobs.job import ENDED, Job, JobFailed, JobRunning, JobState, JobType, Progress
from app.jobs.job_report import JobReport
from app.jobs.job_worker import JobWorker
from app.jobs.jobs import Jobs
from app.jobs.times import JobTimes

__all__ = [
    "ENDED",
    "Job",
    "JobFailed",
    "JobReport",
    "JobRunning",
    "JobState",
    "JobTimes",
    "JobType",
    "JobWorker",
    "Jobs",
    "Progress",
]
