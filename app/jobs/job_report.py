"""`JobReport`: how the work of a job reports its progress, and learns that it must stop."""

import asyncio
import time
from collections.abc import Callable

from app.jobs.job import Job, Progress


class JobReport:
    """The state of a job while it runs; its work updates it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stopped = False
        self.continues = False  # stopped, but another process continues: keep what it needs
        self._cost_before = job.cost_usd
        self._own_cost = 0.0
        self.other_cost: Callable[[], float] = lambda: 0.0  # of work that does not report its own
        self._phase_began = time.monotonic()

    @classmethod
    def unwatched(cls) -> "JobReport":
        """A report for work outside of a job, which is not read."""
        return cls(Job.new("rebuild", "", {}))

    def phase(self, name: str, total: int | None = None, unit: str = "items") -> None:
        """Begin the next phase of the work."""
        self._phase_began = time.monotonic()
        self._set(Progress(phase=name, total=total, unit=unit))

    def advance(self, count: int) -> None:
        """Add `count` finished units to this phase."""
        progress = self.job.progress
        done = progress.done + count
        eta = None
        if progress.total:
            elapsed_s = time.monotonic() - self._phase_began
            eta = round(elapsed_s / done * max(0, progress.total - done), 1) if done else None
        self._set(progress.model_copy(update={"done": done, "eta_s": eta}))

    def set_cost(self, cost_usd: float) -> None:
        """Set what this attempt has cost so far; the cost of earlier attempts is added."""
        self._own_cost = cost_usd
        self.job = self.job.model_copy(update={"cost_usd": self._cost()})

    def _set(self, progress: Progress) -> None:
        if self.stopped:  # a client library may swallow a cancellation
            raise asyncio.CancelledError
        changes = {"progress": progress, "cost_usd": self._cost()}
        self.job = self.job.model_copy(update=changes)

    def update_cost(self) -> None:
        """Bring the cost of the job up to date."""
        self.set_cost(self._own_cost)

    def _cost(self) -> float:
        return self._cost_before + self._own_cost + self.other_cost()
