"""Enrichment: a model writes the lines of items, as a job."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import optional_json_body
from app.api.dependencies import TheCatalog
from app.api.schema import READS_JSON, problems, takes
from app.curate import EnrichmentParams
from app.curate.enrichment.line_scan import Choice
from app.jobs import Job

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["items"])


class EnrichmentRequest(BaseModel):
    """Which lines a model writes, and what they may cost."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"only": "missing", "max_cost_usd": 2.5}]},
    )

    only: Choice = Field(
        default="missing",
        description="`missing`: items without a line; `stale`: those, and items whose line the "
        "model wrote with another prompt, `guidance` or language; `all`: all items. A line of "
        "yours is never replaced.",
    )
    max_cost_usd: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Most that the lines may cost. Null: `UNILLMREC_LLM_ENRICH_COST_USD`.",
    )
    dry_run: bool = Field(
        default=False, description="Only estimate calls, tokens and cost: no model is asked."
    )
    batch_api: bool = Field(
        default=False,
        description="Ask by the batch API of the provider: half the price, within a day. Lines "
        "that come back unusable are asked for again one call at a time. The job fails with "
        "`no_batch_api` where the endpoint has none.",
    )


@router.post(
    "/enrichments",
    operation_id="enrich_items",
    status_code=HTTPStatus.ACCEPTED,
    responses=problems(*READS_JSON, HTTPStatus.CONFLICT),
    openapi_extra=takes(EnrichmentRequest, required=False),
)
async def enrich_items(
    response: Response,
    catalog: TheCatalog,
    enrichment: Annotated[EnrichmentRequest, Depends(optional_json_body(EnrichmentRequest))],
) -> Job:
    """Let a model write one line per item; 409, with its `job_id`, while another job does.

    Writes and answers continue. What is paid for is kept: a job that ends early, for its budget or
    with its process, is continued by the next one. The job's `result` counts the lines, and why
    items have none.
    """
    params = EnrichmentParams(**enrichment.model_dump())
    job = await catalog.curator.start_enrichment(params)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job
