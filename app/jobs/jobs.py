"""`Jobs`: starts, tracks, cancels and takes over long work. All that is known of it is stored."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from itertools import count
from random import SystemRandom
from typing import Protocol

from pydantic import JsonValue, ValidationError

from app.jobs.job import Job, JobFailed, JobRunning, JobState, JobType
from app.jobs.leases import Leases
from app.jobs.report import Report
from tree.errors import StoreUnavailable, StoreUnreachable, TreeError
from tree.store.documents import Documents

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_PATROL_S = 2.0
_TEND_EVERY = 5  # patrols
_CANCEL_TTL_S = 3_600.0
_POLL_S = 0.1
_PARTING_S = 1.0
# One at a time in a catalogue, of those that share a lease.
_SHARED: dict[JobType, str] = {"rebuild": "tree", "activation": "tree", "placement": "staged"}

_chance = SystemRandom()  # not to patrol in step


class Worker(Protocol):
    """Who does the jobs, also those that another process began."""

    async def able(self, job: Job) -> bool:
        """Whether what the job needs is within this process's reach."""
        ...

    async def tend(self) -> None:
        """See to what lost jobs have left behind; called now and then."""
        ...

    async def ended(self, job: Job) -> None:
        """The job has ended, however and wherever: let go of what only it needed."""
        ...

    async def work(self, job: Job, report: Report) -> dict[str, object]:
        """The result. Begun again after a crash, it goes on where it was, or repeats itself."""
        ...


class _Stop(Enum):
    """Why a job of this process does not go on."""

    CANCELLED = "somebody asked for it"
    RELEASED = "this process ends; another one may go on"
    OVERTAKEN = "another process is at it"


class Jobs:
    """The jobs of this process, and what the store knows of all others."""

    def __init__(self, documents: Documents, ttl_s: float) -> None:
        self._documents = documents
        self._ttl_s = ttl_s
        self._leases = Leases(documents)
        self._worker: Worker | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reports: dict[str, Report] = {}
        self._stops: dict[str, _Stop] = {}
        self._on_patrol = False

    def employ(self, worker: Worker) -> None:
        """From now on `worker` does the jobs."""
        self._worker = worker

    async def start(
        self,
        kind: JobType,
        catalog: str,
        params: dict[str, JsonValue],
        *,
        unasked: bool = False,
    ) -> Job:
        """A new job, begun in the background of this process.

        Raises JobRunning while another one works on the tree that this one would build. One
        whose process is gone gives way, but not to a job that nobody has asked for; if it was
        after the same, it is taken over and returned.
        """
        job = Job.new(kind, catalog, params)
        if kind in _SHARED:
            orphan = await self._orphan(job, unasked=unasked)
            if orphan is not None and (taken := await self._taken_over(orphan)):
                return taken
        await self._leased(job)
        job = await self._saved(job)
        await self._documents.put("open", job.id, b"", self._ttl_s)
        return self._begun(job)

    async def _leased(self, job: Job) -> None:
        """Take the lease; one of a job that has just ended is let go of in a moment.

        Raises JobRunning where its holder has not ended.
        """
        until = time.monotonic() + _PARTING_S
        while not await self._leases.take(_lease(job), job.id):
            holder = await self._leases.holder(_lease(job))
            other = await self._read(holder) if holder else None
            if holder and not (other and other.ended and time.monotonic() < until):
                raise JobRunning(holder)
            await asyncio.sleep(_PARTING_S / 50)

    async def get(self, job_id: str) -> Job | None:
        """The job, or None when there is none of that id any more."""
        job = await self._read(job_id)
        return job and job.shown()

    async def list(self, catalog: str | None = None) -> list[Job]:
        """Jobs, the newest first."""
        read = [_read(job_id, data) async for job_id, data in self._documents.list("job")]
        kept = [job.shown() for job in read if job and catalog in (None, job.catalog)]
        return sorted(kept, key=lambda job: job.created_at, reverse=True)

    async def cancel(self, job_id: str) -> Job | None:
        """Ask a job to stop, in whichever process it runs; one that ended stays as it is."""
        job = await self._read(job_id)
        if job is None or job.ended:
            return job
        if job_id in self._reports:  # here: its ending is written by itself
            self._stop(job_id, _Stop.CANCELLED)
        elif await self._leases.take(_lease(job), job.id):  # nobody is at it
            return await self._ended(job, "cancelled")
        elif await self._holder(job) == job.id:  # elsewhere: its next heartbeat finds this
            await self._documents.put("cancel", job_id, b"", _CANCEL_TTL_S)
        else:  # nobody is at it, and the lease is that of another job
            return await self._ended(job, "cancelled")
        return job.model_copy(update={"state": "cancelling"})

    async def wait(self, job_id: str) -> Job:
        """The job once it has ended, or once this process gave it up. Raises LookupError."""
        here = self._tasks.get(job_id)
        while True:
            if here is not None:
                await asyncio.wait([here])
            job = await self.get(job_id)
            if job is None:
                raise LookupError(job_id)
            if job.ended or here is not None:
                return job
            await asyncio.sleep(_POLL_S)

    async def under_way(self, kind: JobType, catalog: str) -> bool:
        """Whether some process is at such a job."""
        async for job in self._open():
            if (job.type, job.catalog) == (kind, catalog) and await self._holder(job) == job.id:
                return True
        return False

    async def patrol(self) -> None:
        """Take over the jobs whose process is gone, until cancelled."""
        self._on_patrol = True
        for round_ in count(1):
            try:
                async for job in self._open():
                    if job.id not in self._tasks and await self._able(job):
                        await self._taken_over(job)
                if self._worker is not None and round_ % _TEND_EVERY == 0:
                    await self._worker.tend()
            except StoreUnavailable as error:
                logger.debug("no patrol for lost jobs: %s", error)
            except Exception:  # one job that cannot be read must not end all patrols
                logger.exception("a patrol for lost jobs was cut short")
            await asyncio.sleep(_PATROL_S * _chance.uniform(0.5, 1.5))

    async def aclose(self) -> None:
        """Stop what still runs: for good, or for another process of a service to go on."""
        await asyncio.sleep(0)  # one that has not begun could not write its ending
        tasks = list(self._tasks.values())
        for job_id in list(self._tasks):
            self._stop(job_id, _Stop.RELEASED if self._on_patrol else _Stop.CANCELLED)
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- taking over

    async def _open(self) -> AsyncIterator[Job]:
        """The jobs that have not ended, wherever they run."""
        async for job_id, _ in self._documents.list("open"):
            job = await self._read(job_id)
            if job is None:  # not known yet, or not any more: the mark expires
                continue
            if job.ended:
                await self._documents.delete("open", job_id)
            else:
                yield job

    async def _able(self, job: Job) -> bool:
        held = await self._holder(job)
        return held is None and self._worker is not None and await self._worker.able(job)

    async def _holder(self, job: Job) -> str | None:
        return await self._leases.holder(_lease(job))

    async def _taken_over(self, job: Job) -> Job | None:
        """The job, which goes on here; None when somebody else was faster."""
        if not await self._leases.take(_lease(job), job.id):
            return None
        newest = await self._read(job.id)
        if newest is None or newest.ended:
            await self._leases.release(_lease(job), job.id)
            return None
        logger.warning("job %s (%s) goes on here", job.id, job.type)
        update = {"attempt": newest.attempt + 1, "state": "running"}
        return self._begun(await self._saved(newest.model_copy(update=update)))

    async def _orphan(self, job: Job, *, unasked: bool) -> Job | None:
        """A lost job that was after the same as `job`; one that was after something else ends."""
        async for other in self._open():
            if _lease(other) != _lease(job) or other.id in self._tasks:
                continue
            if await self._holder(other):
                raise JobRunning(other.id)
            if (other.type, other.params) == (job.type, job.params):
                return other
            if unasked:
                raise JobRunning(other.id)
            if await self._leases.take(_lease(other), other.id):
                detail = f"its process was lost, and job {job.id} took its place"
                problem = {"code": "superseded", "detail": detail}
                await self._ended(other.model_copy(update={"problem": problem}), "cancelled")
        return None

    # -- running

    def _begun(self, job: Job) -> Job:
        report = self._reports[job.id] = Report(job.model_copy(update={"state": "running"}))
        self._tasks[job.id] = asyncio.create_task(self._run(report))
        return job

    async def _run(self, report: Report) -> None:
        job = report.job
        over = asyncio.Event()
        pulse = asyncio.create_task(self._pulse(report, over))
        ending: dict[str, object]
        try:
            if self._worker is None:
                raise LookupError("nobody is employed for jobs")
            ending = {"state": "succeeded", "result": await self._worker.work(job, report)}
        except asyncio.CancelledError:
            ending = {"state": "cancelled"}
        except JobFailed as error:
            problem = {"code": error.code, "detail": str(error)}
            ending = {"state": "failed", "result": error.result, "problem": problem}
        except StoreUnreachable as error:
            logger.warning("job %s waits for the store: %s", job.id, error)
            problem = {"code": error.code, "detail": str(error)}
            ending = {"state": "failed", "problem": problem}
            if self._on_patrol:  # it goes on once the store is back
                self._stops[job.id] = _Stop.RELEASED
        except TreeError as error:
            problem = {"code": error.code, "detail": str(error)}
            ending = {"state": "failed", "problem": problem}
        except Exception:  # a job is the last frame that can tell of it
            logger.exception("job %s failed", job.id)
            problem = {"code": "internal", "detail": "unexpected error; see the log"}
            ending = {"state": "failed", "problem": problem}
        report.stopped = True
        over.set()
        try:
            await asyncio.shield(self._finish(report, ending, pulse))
        except StoreUnavailable as error:  # its lease runs out, and somebody does it again
            logger.warning("the ending of job %s could not be written: %s", job.id, error)
        finally:
            del self._tasks[job.id], self._reports[job.id]
            self._stops.pop(job.id, None)

    async def _finish(
        self, report: Report, ending: dict[str, object], pulse: asyncio.Task[None]
    ) -> None:
        await asyncio.gather(pulse, return_exceptions=True)  # its last write must not come after
        job, stop = report.job, self._stops.get(report.job.id)
        if stop is _Stop.OVERTAKEN or not await self._ours(job):
            logger.warning("job %s goes on elsewhere", job.id)
        elif stop is _Stop.RELEASED and ending["state"] != "succeeded":
            await self._saved(job.model_copy(update={"state": "queued"}))
            await self._leases.release(_lease(job), job.id)
        else:
            await self._ended(job.model_copy(update=ending))

    async def _pulse(self, report: Report, over: asyncio.Event) -> None:
        """Write progress and heartbeat until the job is over; notice a cancellation elsewhere."""
        while not over.is_set():
            try:
                await self._beat(report)
            except StoreUnavailable as error:  # the work itself will say so if it lasts
                logger.debug("no heartbeat of job %s: %s", report.job.id, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _HEARTBEAT_S)

    async def _ours(self, job: Job) -> bool:
        """Whether nobody has taken over what this process is at, while it hung or was cut off."""
        if not await self._leases.renew(_lease(job), job.id):
            return False
        stored = await self._read(job.id)
        if stored is None or (not stored.ended and stored.attempt == job.attempt):
            return True
        await self._leases.release(_lease(job), job.id)
        return False

    async def _beat(self, report: Report) -> None:
        job = report.job
        if not await self._ours(job):
            self._stop(job.id, _Stop.OVERTAKEN)
        elif await self._documents.get("cancel", job.id) is not None:
            self._stop(job.id, _Stop.CANCELLED)
        else:
            alive = report.job.model_copy(update={"heartbeat_at": datetime.now(UTC)})
            saved = await self._saved(alive)
            report.job = report.job.model_copy(
                update={"heartbeat_at": saved.heartbeat_at, "revision": saved.revision}
            )

    def _stop(self, job_id: str, why: _Stop) -> None:
        """Cancel a job of this process, once: its ending must not be cancelled in turn."""
        report = self._reports.get(job_id)
        if report is not None and not report.stopped:
            report.stopped = True
            self._stops[job_id] = why
            report.goes_on = why is not _Stop.CANCELLED
            self._tasks[job_id].cancel()

    # -- the store

    async def _read(self, job_id: str) -> Job | None:
        data = await self._documents.get("job", job_id)
        return None if data is None else _read(job_id, data)

    async def _saved(self, job: Job) -> Job:
        job = job.model_copy(update={"revision": job.revision + 1})
        await self._documents.put("job", job.id, job.model_dump_json().encode(), self._ttl_s)
        return job

    async def _ended(self, job: Job, state: JobState | None = None) -> Job:
        """Write the ending of a job whose lease is ours, and let go of it."""
        now = datetime.now(UTC)
        update = {"state": state or job.state, "finished_at": now, "heartbeat_at": now}
        job = await self._saved(job.model_copy(update=update))
        if self._worker is not None:
            await self._worker.ended(job)
        await self._documents.delete("open", job.id)
        await self._documents.delete("cancel", job.id)
        await self._leases.release(_lease(job), job.id)
        return job


def _read(job_id: str, data: bytes) -> Job | None:
    try:
        return Job.model_validate_json(data)
    except ValidationError as error:  # of another version of this service
        logger.warning("job %s cannot be read: %s", job_id, error)
        return None


def _lease(job: Job) -> str:
    return f"{_SHARED[job.type]}:{job.catalog}" if job.type in _SHARED else job.id
