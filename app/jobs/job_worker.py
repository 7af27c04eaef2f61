"""`JobWorker`: what does the work of jobs, for `Jobs`."""

from typing import Protocol

from app.jobs.job import Job
from app.jobs.job_report import JobReport


class JobWorker(Protocol):
    """Does the work of jobs, including those that another process began."""

    async def can_run(self, job: Job) -> bool:
        """Whether this process can reach everything that the job needs."""
        ...

    async def housekeep(self) -> None:
        """Clean up what lost jobs have left behind; called every few seconds."""
        ...

    async def stored_result(self, job: Job) -> dict[str, object] | None:
        """What is stored of the work of a job that has no result of its own."""
        ...

    async def on_ended(self, job: Job) -> None:
        """Remove what only this job needed; it has ended, in this process or another one."""
        ...

    async def work(self, job: Job, report: JobReport) -> dict[str, object]:
        """The result of the job. After a crash it continues where it was, or starts again."""
        ...
