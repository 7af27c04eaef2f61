"""Long work that a caller can watch: its state lives in the store, its doing in this process."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tree.errors import StoreUnavailable, TreeError
from tree.store.documents import Documents

logger = logging.getLogger(__name__)

JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
JobType = Literal["import", "rebuild"]

_ENDED = ("succeeded", "failed", "cancelled")
_HEARTBEAT_S = 1.0
_LOST_AFTER_S = 30.0


class Progress(BaseModel):
    """How far a job is. `total` is null while it is not known."""

    model_config = ConfigDict(frozen=True)

    phase: str = "queued"
    done: int = 0
    total: int | None = None
    unit: str = "items"
    eta_s: float | None = None


class Job(BaseModel):
    """A job as the API shows it."""

    model_config = ConfigDict(frozen=True)

    id: str
    type: JobType
    catalog: str
    state: JobState = "queued"
    progress: Progress = Progress()
    cost_usd: float = 0.0
    attempt: int = 1
    created_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None = None
    result: dict[str, object] | None = None
    problem: dict[str, object] | None = Field(
        default=None, description="Why it failed, as a problem document."
    )

    @property
    def ended(self) -> bool:
        return self.state in _ENDED


class JobRunning(Exception):
    """Another job of this kind works on the catalogue."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} is already at it: wait for it, or cancel it")
        self.job_id = job_id


class JobFailed(Exception):
    """The job cannot go on; the message is for whoever started it."""

    def __init__(self, code: str, detail: str, result: dict[str, object] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.result = result


class Report:
    """The handle by which work tells how far it is, and learns that it should stop."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stopped = False
        self._phase_began = time.monotonic()

    @classmethod
    def unwatched(cls) -> "Report":
        """Progress that nobody follows."""
        now = datetime.now(UTC)
        return cls(Job(id="", type="rebuild", catalog="", created_at=now, heartbeat_at=now))

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

    def _set(self, progress: Progress) -> None:
        if self.stopped:  # a cancellation may get lost on its way through a client library
            raise asyncio.CancelledError
        self.job = self.job.model_copy(update={"progress": progress})


Work = Callable[[Report], Awaitable[dict[str, object]]]


class Jobs:
    """Starts, tracks and cancels the jobs of this process; reads those of any."""

    def __init__(self, documents: Documents, ttl_s: float) -> None:
        self._documents = documents
        self._ttl_s = ttl_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reports: dict[str, Report] = {}

    async def start(self, kind: JobType, catalog: str, work: Work, *, alone: bool = False) -> Job:
        """Run `work` in the background. Raises JobRunning when `alone` and another one runs."""
        now = datetime.now(UTC)
        job = Job(
            id=f"job_{secrets.token_hex(8)}",
            type=kind,
            catalog=catalog,
            created_at=now,
            heartbeat_at=now,
        )
        if alone:
            await self._claim(job)
        await self._save(job)
        self._tasks[job.id] = asyncio.create_task(self._run(job, work, alone=alone))
        return job

    async def get(self, job_id: str) -> Job | None:
        """The job, or None when there is none of that id any more."""
        data = await self._documents.get("job", job_id)
        if data is None or job_id.startswith(_CLAIM):
            return None
        return _without_lost(Job.model_validate_json(data))

    async def list(self, catalog: str | None = None) -> list[Job]:
        """Jobs, the newest first."""
        jobs = [
            _without_lost(Job.model_validate_json(data))
            async for job_id, data in self._documents.list("job")
            if not job_id.startswith(_CLAIM)
        ]
        kept = [job for job in jobs if catalog in (None, job.catalog)]
        return sorted(kept, key=lambda job: job.created_at, reverse=True)

    async def cancel(self, job_id: str) -> Job | None:
        """Ask a job to stop, in whichever process it runs; one that ended stays as it is."""
        job = await self.get(job_id)
        if job is None or job.ended:
            return job
        job = job.model_copy(update={"state": "cancelling"})
        if job_id in self._reports:  # here: its ending is written by itself
            self._stop(job_id)
        else:
            await self._save(job)  # elsewhere: its next heartbeat finds this
        return job

    async def wait(self, job_id: str) -> Job:
        """The job once it has ended, if this process runs it; else as it is now."""
        if task := self._tasks.get(job_id):
            await asyncio.wait([task])
        job = await self.get(job_id)
        if job is None:
            raise LookupError(job_id)
        return job

    async def aclose(self) -> None:
        """Cancel what still runs and wait for it."""
        await asyncio.sleep(0)  # one that has not begun could not write its ending
        tasks = list(self._tasks.values())
        for job_id in list(self._tasks):
            self._stop(job_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job, work: Work, *, alone: bool) -> None:
        report = Report(job.model_copy(update={"state": "running"}))
        self._reports[job.id] = report
        over = asyncio.Event()
        pulse = asyncio.create_task(self._pulse(report, over, alone=alone))
        ending: dict[str, object]
        try:
            ending = {"state": "succeeded", "result": await work(report)}
        except asyncio.CancelledError:
            ending = {"state": "cancelled"}
        except JobFailed as error:
            ending = {
                "state": "failed",
                "result": error.result,
                "problem": {"code": error.code, "detail": str(error)},
            }
        except TreeError as error:
            ending = {
                "state": "failed",
                "problem": {"code": type(error).__name__, "detail": str(error)},
            }
        except Exception:  # a job is the last frame that can tell of it
            logger.exception("job %s failed", job.id)
            ending = {
                "state": "failed",
                "problem": {"code": "internal", "detail": "unexpected error; see the log"},
            }
        now = datetime.now(UTC)
        last = report.job.model_copy(update={**ending, "finished_at": now, "heartbeat_at": now})
        report.stopped = True
        over.set()
        try:
            await asyncio.shield(self._finish(last, pulse, alone=alone))
        finally:
            del self._tasks[job.id], self._reports[job.id]

    async def _finish(self, job: Job, pulse: asyncio.Task[None], *, alone: bool) -> None:
        await asyncio.gather(pulse, return_exceptions=True)  # its last write must not come after
        await self._save(job)
        if alone:
            await self._documents.delete("job", _claim_of(job))

    async def _pulse(self, report: Report, over: asyncio.Event, *, alone: bool) -> None:
        """Write progress and heartbeat until the job is over; notice a cancellation elsewhere."""
        while not over.is_set():
            with suppress(StoreUnavailable):  # the work itself will say so if it lasts
                await self._beat(report, alone=alone)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _HEARTBEAT_S)

    def _stop(self, job_id: str) -> None:
        """Cancel a job of this process, once: its ending must not be cancelled in turn."""
        report = self._reports.get(job_id)
        if report is not None and not report.stopped:
            report.stopped = True
            self._tasks[job_id].cancel()

    async def _beat(self, report: Report, *, alone: bool) -> None:
        stored = await self._documents.get("job", report.job.id)
        if stored and Job.model_validate_json(stored).state == "cancelling":
            self._stop(report.job.id)
            return
        report.job = report.job.model_copy(update={"heartbeat_at": datetime.now(UTC)})
        await self._save(report.job)
        if alone:
            claim = _claim_of(report.job)
            await self._documents.put("job", claim, report.job.id.encode(), _LOST_AFTER_S)

    async def _claim(self, job: Job) -> None:
        claim = _claim_of(job)
        if not await self._documents.put_new("job", claim, job.id.encode(), _LOST_AFTER_S):
            holder = await self._documents.get("job", claim)
            raise JobRunning((holder or b"unknown").decode())

    async def _save(self, job: Job) -> None:
        await self._documents.put("job", job.id, job.model_dump_json().encode(), self._ttl_s)


_CLAIM = "claim:"


def _claim_of(job: Job) -> str:
    return f"{_CLAIM}{job.type}:{job.catalog}"


def _without_lost(job: Job) -> Job:
    """A job whose process is gone says so."""
    if job.ended or datetime.now(UTC) - job.heartbeat_at < timedelta(seconds=_LOST_AFTER_S):
        return job
    return job.model_copy(
        update={
            "state": "failed",
            "problem": {
                "code": "lost",
                "detail": "the process that ran this job is gone; what it had stored is kept: "
                "start the job again",
            },
        }
    )
