"""Jobs: list, get, stream, cancel."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import TheCaller, TheCatalogs, TheJobs, dependencies_of
from app.api.problems import ApiError, unknown_job
from app.api.schema import problems
from app.api.scopes import permit
from app.catalogs import Catalogs
from app.jobs import Job, Jobs
from app.keys import Caller
from tree.errors import StoreUnavailable

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

logger = logging.getLogger(__name__)

MOST_STREAMS = 32  # per key and process: each reads the store four times a second
_POLL_S = 0.25
_EPOCH = datetime.fromtimestamp(0, UTC)


class JobQuery(BaseModel):
    """Which jobs to list."""

    model_config = ConfigDict(frozen=True)

    catalog: str | None = Field(default=None, description="Only jobs of this catalogue.")
    cursor: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,18}/job_[0-9a-f]{16}$",
        description="`next_cursor` of the page before.",
    )
    limit: int = Field(default=100, ge=1, le=1_000)


class JobList(BaseModel):
    """Jobs, the newest first, without the lists of their results: `GET /v1/jobs/{id}` has them.

    Jobs stay for a while after their end. `next_cursor` is null on the last page.
    """

    jobs: list[Job]
    next_cursor: str | None


async def _seen(catalogs: Catalogs, caller: Caller, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that the caller's key may see: those of its existing catalogues.

    A key for a catalogue does not see the jobs of a deleted one of the same name.
    """
    if caller.reaches_all:
        return list(jobs)
    names = {job.catalog for job in jobs if caller.reaches(job.catalog)}
    now = {name: await catalogs.registry.look(name) for name in names}
    return [job for job in jobs if (entry := now.get(job.catalog)) and job.catalog_id == entry.id]


async def _job(catalogs: TheCatalogs, jobs: TheJobs, caller: TheCaller, job_id: str) -> Job:
    """The job. Raises ApiError, 404, also for a job that the caller may not see."""
    job = await jobs.get(job_id)
    if job is None or not await _seen(catalogs, caller, [job]):
        raise unknown_job(job_id)
    return job


async def _one_stream(request: Request, caller: TheCaller) -> AsyncIterator[None]:
    """Count a stream of the caller until its answer has ended. Raises ApiError."""
    streams = dependencies_of(request).streams
    if streams[caller.id] >= MOST_STREAMS:
        detail = (
            f"{MOST_STREAMS} streams of jobs are open with this key: close some, or poll the job"
        )
        headers = {"Retry-After": "5"}
        raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, "too_many_streams", detail, headers=headers)
    streams[caller.id] += 1
    try:
        yield
    finally:
        streams[caller.id] -= 1
        if not streams[caller.id]:
            del streams[caller.id]


TheJob = Annotated[Job, Depends(_job)]
_LastEventId = Annotated[str, Header(alias="Last-Event-ID", max_length=20)]


@router.get("", operation_id="list_jobs", responses=problems())
async def list_jobs(
    catalogs: TheCatalogs,
    jobs: TheJobs,
    caller: TheCaller,
    query: Annotated[JobQuery, Query()],
) -> JobList:
    """List the jobs of the catalogues of the caller's key, the newest first.

    Jobs of a deleted catalogue are shown only to keys for all catalogues; with `catalog`, only
    until a new catalogue has its name.
    """
    found = await jobs.list(query.catalog)
    if query.catalog and (entry := await catalogs.registry.look(query.catalog)):
        found = [job for job in found if job.catalog_id == entry.id]
    rest = await _seen(catalogs, caller, found)
    if query.cursor is not None:
        rest = [job for job in rest if _place(job) < _read_cursor(query.cursor)]
    page = rest[: query.limit]
    return JobList(jobs=page, next_cursor=_cursor(page[-1]) if len(rest) > len(page) else None)


def _place(job: Job) -> tuple[int, str]:
    """The position of a job in the list: its creation in microseconds, and its id."""
    return (job.created_at - _EPOCH) // timedelta(microseconds=1), job.id


def _cursor(job: Job) -> str:
    created, job_id = _place(job)
    return f"{created}/{job_id}"


def _read_cursor(cursor: str) -> tuple[int, str]:
    created, _, job_id = cursor.partition("/")
    return int(created), job_id


@router.get("/{job_id:segment}", operation_id="get_job", responses=problems())
async def get_job(job: TheJob) -> Job:
    """Get the state and progress of a job and, at its end, its result or problem."""
    return job


@router.get(
    "/{job_id:segment}/events",
    operation_id="job_events",
    response_class=EventSourceResponse,
    responses=problems(HTTPStatus.TOO_MANY_REQUESTS),
    dependencies=[Depends(_one_stream)],
)
async def job_events(
    request: Request, jobs: TheJobs, job: TheJob, last_event_id: _LastEventId = ""
) -> AsyncIterator[ServerSentEvent]:
    """Stream the job at every change, as server-sent events: `progress`…, then `done`.

    The id of an event is the revision of the job; with `Last-Event-ID`, older events are skipped.
    Every process can stream every job. When the stream ends without `done`, the store did not
    answer for some seconds: connect again.
    """
    seen = int(last_event_id) if last_event_id.isdecimal() else 0
    seen = min(seen, job.revision)
    state = None
    async for now in _changes(jobs, job, dependencies_of(request).stream_silence_s):
        if now.ended:
            yield ServerSentEvent(event="done", id=str(now.revision), data=now)
            return
        if now.revision > seen or state not in (None, now.state):  # a lost job keeps its revision
            seen = now.revision
            yield ServerSentEvent(event="progress", id=str(seen), data=now)
        state = now.state


async def _changes(jobs: Jobs, job: Job, silence_s: float) -> AsyncIterator[Job]:
    """The job, again and again; ends when it has expired, or the store is silent for so long."""
    now: Job | None = job
    answered_at = time.monotonic()
    while now is not None:
        yield now
        await asyncio.sleep(_POLL_S)
        try:
            now = await jobs.get(job.id)
            answered_at = time.monotonic()
        except StoreUnavailable as error:
            if time.monotonic() - answered_at > silence_s:
                logger.warning("a stream of job %s ends: %s", job.id, error)
                return


@router.post("/{job_id:segment}:cancel", operation_id="cancel_job", responses=problems())
async def cancel_job(jobs: TheJobs, caller: TheCaller, job: TheJob) -> Job:
    """Cancel a job; a job that has ended does not change.

    An import needs the scope that starts imports, all other jobs need `admin`.
    """
    permit(caller, () if job.type == "import" else ("admin",))
    cancelled = await jobs.cancel(job.id)
    if cancelled is None:
        raise unknown_job(job.id)
    return cancelled
