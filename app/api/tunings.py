"""Tuning: a catalogue's vectors learn from what its users did, as a job."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import optional_json_body
from app.api.dependencies import TheCatalog
from app.api.schema import READS_JSON, problems, takes
from app.curate import TuningParams
from app.jobs import Job

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["tree"])


class TuningRequest(BaseModel):
    """What to learn from, and whether to use it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"dry_run": True}]},
    )

    dry_run: bool = Field(
        default=False, description="Only find out what a tuning would bring: nothing changes."
    )
    users: int = Field(
        default=50_000, ge=1, le=1_000_000, description="Most users whose histories are read."
    )


@router.post(
    "/tunings",
    operation_id="tune_vectors",
    status_code=HTTPStatus.ACCEPTED,
    responses=problems(*READS_JSON, HTTPStatus.CONFLICT),
    openapi_extra=takes(TuningRequest, required=False),
)
async def tune_vectors(
    response: Response,
    catalog: TheCatalog,
    tuning: Annotated[TuningRequest, Depends(optional_json_body(TuningRequest))],
) -> Job:
    """Learn from stored histories how vectors should change; 409 while the tree is rebuilt.

    What is learned is used only where it finds more on users and items that it has not learned
    from: then the tree is built anew with it. The job's `result` has the figures, and in `refused`
    why it is not used.
    """
    job = await catalog.curator.start_tuning(TuningParams(**tuning.model_dump()))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job
