"""Jobs: how far they are, and how to stop them."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import TheJobs
from app.api.problems import unknown_job
from app.api.schema import problems
from app.jobs import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class JobQuery(BaseModel):
    """Which jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalog: str | None = Field(default=None, description="Only those of this catalogue.")


class JobList(BaseModel):
    """Jobs, the newest first; those that ended are kept for a while."""

    jobs: list[Job]


@router.get("", operation_id="list_jobs", responses=problems())
async def list_jobs(jobs: TheJobs, query: Annotated[JobQuery, Query()]) -> JobList:
    """Jobs, the newest first."""
    return JobList(jobs=await jobs.list(query.catalog))


@router.get("/{job_id}", operation_id="get_job", responses=problems())
async def get_job(jobs: TheJobs, job_id: str) -> Job:
    """State, progress and, at its end, result or problem of a job."""
    job = await jobs.get(job_id)
    if job is None:
        raise unknown_job(job_id)
    return job


@router.post("/{job_id}:cancel", operation_id="cancel_job", responses=problems())
async def cancel_job(jobs: TheJobs, job_id: str) -> Job:
    """Ask a job to stop; one that has ended stays as it is."""
    job = await jobs.cancel(job_id)
    if job is None:
        raise unknown_job(job_id)
    return job
