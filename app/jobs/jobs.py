"""`Jobs`: starts, tracks, cancels and recovers long work. Its whole state is in the store."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from itertools import count
from random import SystemRandom

from pydantic import JsonValue

from app.jobs.job import Job, JobFailed, JobRunning, JobState, JobType
from app.jobs.job_leases import SHARED_LEASES, JobLeases, share_lease
from app.jobs.job_report import JobReport
from app.jobs.job_store import JobStore
from app.jobs.job_worker import JobWorker
from app.jobs.times import JobTimes
from app.storage.documents import Documents
from tree.errors import CatalogDeleted, StoreUnavailable, StoreUnreachable, TreeError
from tree.worker import Background, undivided

logger = logging.getLogger(__name__)

_HOUSEKEEP_EVERY = 5  # rounds of recovery
_POLL_S = 0.1
_LEASE_WAIT_S = 1.0  # for a job that has just ended to release its lease
_CLOSE_S = 4.0  # for jobs to write how they ended; without that, another process recovers them

_random = SystemRandom()  # so that processes do not look for lost jobs at the same moment


class _Stop(Enum):
    """Why this process stops running a job."""

    CANCELLED = "a client has cancelled the job"
    RELEASED = "this process ends, and another one may continue the job"
    OVERTAKEN = "another process runs it"


class Jobs:
    """The jobs of this process, and what the store knows of all others."""

    def __init__(
        self,
        documents: Documents,
        ttl_s: float,
        times: JobTimes = JobTimes(),  # noqa: B008 - frozen
    ) -> None:
        self._store = JobStore(documents, ttl_s)
        self._times = times
        self._leases = JobLeases(documents, times.lease_s)
        self._worker: JobWorker | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background = Background("jobs")
        self._reports: dict[str, JobReport] = {}
        self._stops: dict[str, _Stop] = {}
        self._recovers = False
        self._ended: Counter[tuple[JobType, JobState]] = Counter()

    def set_worker(self, worker: JobWorker) -> None:
        """From now on `worker` does the work of jobs."""
        self._worker = worker

    def counts(self) -> Mapping[tuple[JobType, JobState], int]:
        """How many jobs run in this process, and how many have ended here, by type and state."""
        running = Counter((report.job.type, report.job.state) for report in self._reports.values())
        return running + self._ended

    async def start(
        self,
        kind: JobType,
        catalog_id: str,
        params: dict[str, JsonValue],
        *,
        automatic: bool = False,
    ) -> Job:
        """A new job, begun in the background of this process.

        A lost job that holds the same lease is continued and returned when it has the same type
        and parameters. Otherwise the new job replaces it, unless the new job is `automatic`.
        Raises JobRunning while another job with the same lease runs.
        """
        job = Job.new(kind, catalog_id, params)
        if kind in SHARED_LEASES:
            orphan = await self._matching_orphan(job, automatic=automatic)
            if orphan is not None and (recovered := await self._recovered(orphan)):
                return recovered
        await self._take_lease(job)
        job = await self._store.save(job)
        await self._store.mark_open(job)
        return self._begun(job)

    async def _take_lease(self, job: Job) -> None:
        """Take the lease; wait a moment for a job that has just ended to release it.

        Raises JobRunning when its holder has not ended.
        """
        until = time.monotonic() + _LEASE_WAIT_S
        while not await self._leases.take(job):
            holder = await self._leases.holder(job)
            other = await self._store.read(holder) if holder else None
            if holder and not (other and other.ended and time.monotonic() < until):
                raise JobRunning(holder)
            await asyncio.sleep(_LEASE_WAIT_S / 50)

    async def get(self, job_id: str) -> Job | None:
        """The job; None when there is no job of that id, or no longer."""
        job = await self._store.read(job_id)
        if job is None or (shown := job.shown()) is job:
            return job
        return await self._with_result(shown)

    async def list(self, catalog: str | None = None) -> list[Job]:
        """Jobs without the long parts of their results, the newest first."""
        return await self._store.list(catalog)

    async def cancel(self, job_id: str) -> Job | None:
        """Ask a job to stop, in any process; a job that has ended stays as it is."""
        job = await self._store.read(job_id)
        if job is None or job.ended:
            return job
        if job_id in self._reports:  # it runs here and writes its own ending
            self._stop(job_id, _Stop.CANCELLED)
        elif await self._leases.take(job):  # no process runs it
            return await self._end(job, "cancelled")
        elif await self._leases.holder(job) == job.id:
            await self._store.request_cancel(job_id)
        else:  # no process runs it, and another job has the lease
            return await self._end(job, "cancelled")
        return job.model_copy(update={"state": "cancelling"})

    async def wait(self, job_id: str) -> Job:
        """The job, once it has ended or this process has given it up. Raises LookupError."""
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

    async def is_running(self, kind: JobType, catalog_id: str) -> bool:
        """Whether some process runs a job of this type for the catalogue."""
        async for job in self._store.open_jobs():
            same = (job.type, job.catalog_id) == (kind, catalog_id)
            if same and await self._leases.holder(job) == job.id:
                return True
        return False

    async def recover_orphans(self) -> None:
        """Continue the jobs whose process is gone, until cancelled."""
        self._recovers = True
        for round_ in count(1):
            try:
                async for job in self._store.open_jobs():
                    if job.id not in self._tasks and await self._can_recover(job):
                        await self._recovered(job)
                if self._worker is not None and round_ % _HOUSEKEEP_EVERY == 1:
                    await self._worker.housekeep()
            except StoreUnavailable as error:
                logger.debug("lost jobs are not looked for: %s", error)
            except Exception:  # one bad job must not end the recovery of the others
                logger.exception("a round of job recovery failed")
            await asyncio.sleep(self._times.recovery_s * _random.uniform(0.5, 1.5))

    async def aclose(self) -> None:
        """Stop what still runs; in a service, another process continues it."""
        await asyncio.sleep(0)  # a task that has not begun could not write its ending
        for job_id in list(self._tasks):
            self._stop(job_id, _Stop.RELEASED if self._recovers else _Stop.CANCELLED)
        await self._background.aclose(_CLOSE_S)

    # -- recovery

    async def _can_recover(self, job: Job) -> bool:
        if await self._leases.holder(job) is not None or self._worker is None:
            return False
        return await self._worker.can_run(job)

    async def _recovered(self, job: Job) -> Job | None:
        """The job, which continues here; None when another process was faster."""
        if not await self._leases.take(job):
            return None
        newest = await self._store.read(job.id)
        if newest is None or newest.ended:
            await self._leases.release(job)
            return None
        logger.warning("job %s (%s) continues here", job.id, job.type)
        update = {"attempt": newest.attempt + 1, "state": "running"}
        return self._begun(await self._store.save(newest.model_copy(update=update)))

    async def _matching_orphan(self, job: Job, *, automatic: bool) -> Job | None:
        """A lost job with the type and parameters of `job`; other lost jobs of its lease end.

        Raises JobRunning when a job of this lease runs, or is lost and `job` is `automatic`.
        """
        async for other in self._store.open_jobs():
            if not share_lease(other, job) or other.id in self._tasks:
                continue
            if await self._leases.holder(other):
                raise JobRunning(other.id)
            if (other.type, other.params) == (job.type, job.params):
                return other
            if automatic:
                raise JobRunning(other.id)
            if await self._leases.take(other):
                detail = f"its process was lost, and job {job.id} took its place"
                problem = {"code": "superseded", "detail": detail}
                await self._end(other.model_copy(update={"problem": problem}), "cancelled")
        return None

    # -- running

    def _begun(self, job: Job) -> Job:
        report = self._reports[job.id] = JobReport(job.model_copy(update={"state": "running"}))
        self._tasks[job.id] = self._background.start(self._run(report))
        return job

    async def _run(self, report: JobReport) -> None:
        job = report.job
        over = asyncio.Event()
        heartbeats = self._background.start(self._send_heartbeats(report, over))
        ending: dict[str, object]
        try:
            if self._worker is None:
                raise LookupError("no worker is set for jobs")
            ending = {"state": "succeeded", "result": await self._worker.work(job, report)}
        except asyncio.CancelledError:
            ending = {"state": "cancelled"}
        except JobFailed as error:
            problem = {"code": error.code, "detail": str(error)}
            ending = {"state": "failed", "result": error.result, "problem": problem}
        except CatalogDeleted as error:
            problem = {"code": error.code, "detail": str(error)}
            ending = {"state": "cancelled", "problem": problem}
        except StoreUnreachable as error:
            logger.warning("job %s waits for the store: %s", job.id, error)
            problem = {"code": error.code, "detail": str(error)}
            ending = {"state": "failed", "problem": problem}
            if self._recovers:  # it continues once the store is back
                self._stops[job.id] = _Stop.RELEASED
        except TreeError as error:
            problem = {"code": error.code, "detail": str(error)}
            ending = {"state": "failed", "problem": problem}
        except Exception:  # nothing above this frame would report it
            logger.exception("job %s failed", job.id)
            problem = {"code": "internal", "detail": "unexpected error; see the log"}
            ending = {"state": "failed", "problem": problem}
        report.stopped = True
        over.set()
        try:
            await undivided(self._finish(report, ending, heartbeats))
        except StoreUnavailable as error:  # its lease expires, and another process repeats it
            logger.warning("the ending of job %s could not be written: %s", job.id, error)
        finally:
            del self._tasks[job.id], self._reports[job.id]
            self._stops.pop(job.id, None)

    async def _finish(
        self, report: JobReport, ending: dict[str, object], heartbeats: asyncio.Task[None]
    ) -> None:
        await asyncio.gather(heartbeats, return_exceptions=True)  # none may be written later
        job, stop = report.job, self._stops.get(report.job.id)
        if stop is _Stop.OVERTAKEN or not await self._owns(job):
            logger.warning("job %s continues in another process", job.id)
        elif stop is _Stop.RELEASED and ending["state"] != "succeeded":
            await self._store.save(job.model_copy(update={"state": "queued"}))
            await self._leases.release(job)
        else:
            await self._end(job.model_copy(update=ending))

    async def _send_heartbeats(self, report: JobReport, over: asyncio.Event) -> None:
        """Write heartbeats with the progress until the job is over; see a cancellation."""
        while not over.is_set():
            try:
                await self._heartbeat(report)
            except StoreUnavailable as error:  # if it lasts, the work itself fails of it
                logger.debug("no heartbeat of job %s: %s", report.job.id, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._times.heartbeat_s):
                    await over.wait()

    async def _owns(self, job: Job) -> bool:
        """Whether no other process has taken the job over, while this one hung or was cut off."""
        if not await self._leases.renew(job):
            return False
        stored = await self._store.read(job.id)
        if stored is None or (not stored.ended and stored.attempt == job.attempt):
            return True
        await self._leases.release(job)
        return False

    async def _heartbeat(self, report: JobReport) -> None:
        job = report.job
        if not await self._owns(job):
            self._stop(job.id, _Stop.OVERTAKEN)
        elif await self._store.cancel_requested(job.id):
            self._stop(job.id, _Stop.CANCELLED)
        else:
            alive = report.job.model_copy(update={"heartbeat_at": datetime.now(UTC)})
            saved = await self._store.save(alive)
            report.job = report.job.model_copy(
                update={"heartbeat_at": saved.heartbeat_at, "revision": saved.revision}
            )

    def _stop(self, job_id: str, why: _Stop) -> None:
        """Cancel a job of this process, once: writing its ending must not be cancelled."""
        report = self._reports.get(job_id)
        if report is not None and not report.stopped:
            report.stopped = True
            self._stops[job_id] = why
            report.continues = why is not _Stop.CANCELLED
            self._tasks[job_id].cancel()

    # -- endings

    async def _with_result(self, job: Job) -> Job:
        """The job with what is stored of its work, when it has no result of its own."""
        if job.result is not None or self._worker is None:
            return job
        try:
            return job.model_copy(update={"result": await self._worker.stored_result(job)})
        except TreeError as error:  # the job can end without it
            logger.debug("the stored result of job %s is not known: %s", job.id, error)
            return job

    async def _end(self, job: Job, state: JobState | None = None) -> Job:
        """Write the ending of a job whose lease this process holds, and release the lease."""
        now = datetime.now(UTC)
        job = await self._with_result(job)
        update = {"state": state or job.state, "finished_at": now, "heartbeat_at": now}
        job = await self._store.save(job.model_copy(update=update))
        self._ended[job.type, job.state] += 1
        if self._worker is not None:
            await self._worker.on_ended(job)
        await self._store.remove_marks(job.id)
        await self._leases.release(job)
        return job
