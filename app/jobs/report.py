"""`Report`: how work tells how far it is, and learns that it should stop."""

import asyncio
import time

from app.jobs.job import Job, Progress


class Report:
    """The state of a job while it runs, as its work sets it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stopped = False
        self.goes_on = False  # stopped here, but not for good: leave what a successor needs
        self._cost_before = job.cost_usd
        self._phase_began = time.monotonic()

    @classmethod
    def unwatched(cls) -> "Report":
        """Progress that nobody follows."""
        return cls(Job.new("rebuild", "", {}))

    def phase(self, name: str, total: int | None = None, unit: str = "items") -> None:
        """The next phase begins."""
        self._phase_began = time.monotonic()
        self._set(Progress(phase=name, total=total, unit=unit))

    def advance(self, count: int) -> None:
        """`count` more units of this phase are done."""
        progress = self.job.progress
        done = progress.done + count
        eta = None
        if progress.total:
            spent = time.monotonic() - self._phase_began
            eta = round(spent / done * max(0, progress.total - done), 1) if done else None
        self._set(progress.model_copy(update={"done": done, "eta_s": eta}))

    def spent(self, cost_usd: float) -> None:
        """This attempt has cost so much by now; earlier ones are added."""
        self.job = self.job.model_copy(update={"cost_usd": self._cost_before + cost_usd})

    def _set(self, progress: Progress) -> None:
        if self.stopped:  # a cancellation may get lost on its way through a client library
            raise asyncio.CancelledError
        self.job = self.job.model_copy(update={"progress": progress})
