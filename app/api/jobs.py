"""Jobs: how far they are, and how to stop them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import TheJobs
from app.api.problems import unknown_job
from app.api.schema import problems
from app.jobs import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_POLL_S = 0.25


class JobQuery(BaseModel):
    """Which jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalog: str | None = Field(default=None, description="Only those of this catalogue.")


class JobList(BaseModel):
    """Jobs, the newest first; those that ended are kept for a while."""

    jobs: list[Job]


async def _job(jobs: TheJobs, job_id: str) -> Job:
    job = await jobs.get(job_id)
    if job is None:
        raise unknown_job(job_id)
    return job


_TheJob = Annotated[Job, Depends(_job)]
_LastEventId = Annotated[str, Header(alias="Last-Event-ID", max_length=20)]


@router.get("", operation_id="list_jobs", responses=problems())
async def list_jobs(jobs: TheJobs, query: Annotated[JobQuery, Query()]) -> JobList:
    """Jobs, the newest first."""
    return JobList(jobs=await jobs.list(query.catalog))


@router.get("/{job_id}", operation_id="get_job", responses=problems())
async def get_job(job: _TheJob) -> Job:
    """State, progress and, at its end, result or problem of a job."""
    return job


@router.get(
    "/{job_id}/events",
    operation_id="job_events",
    response_class=EventSourceResponse,
    responses=problems(),
)
async def job_events(
    jobs: TheJobs, job: _TheJob, last_event_id: _LastEventId = ""
) -> AsyncIterator[ServerSentEvent]:
    """The job at every change, as server-sent events: `progress`…, then `done`.

    The id of an event is the revision of the job; `Last-Event-ID` leaves out what was seen.
    Whichever process runs the job, any can be asked.
    """
    seen = int(last_event_id) if last_event_id.isdecimal() else 0
    seen = min(seen, job.revision)
    state = None
    now: Job | None = job
    while now is not None:
        if now.ended:
            yield ServerSentEvent(event="done", id=str(now.revision), data=now)
            return
        if now.revision > seen or state not in (None, now.state):  # a lost one is not written
            seen = now.revision
            yield ServerSentEvent(event="progress", id=str(seen), data=now)
        state = now.state
        await asyncio.sleep(_POLL_S)
        now = await jobs.get(job.id)


@router.post("/{job_id}:cancel", operation_id="cancel_job", responses=problems())
async def cancel_job(jobs: TheJobs, job_id: str) -> Job:
    """Ask a job to stop; one that has ended stays as it is."""
    job = await jobs.cancel(job_id)
    if job is None:
        raise unknown_job(job_id)
    return job
