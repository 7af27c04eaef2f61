"""Metrics of recommendations: what came of them."""

from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import TheCatalog
from app.api.problems import FieldError, invalid
from app.api.schema import problems
from app.attribution import By, report, today
from app.attribution.metrics import RecommendationMetrics
from app.storage.attribution import TALLY_DAYS

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["recommend"])

_USUAL_DAYS = 30


class MetricsQuery(BaseModel):
    """Which days, and what the rows are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: date | None = Field(
        default=None, description="The first day, in UTC. Default: 29 days before `until`."
    )
    until: date | None = Field(default=None, description="The last day. Default: today.")
    by: By = "variant"


@router.get("/metrics/recommendations", operation_id="recommendation_metrics", responses=problems())
async def recommendation_metrics(
    catalog: TheCatalog, query: Annotated[MetricsQuery, Query()]
) -> RecommendationMetrics:
    """Get what came of recommendations: lists, impressions, clicks, conversions, with intervals.

    By variant, strategy, effort, scenario, whether degraded, or day; for at most 400 days. Events
    count for the list that their `recommendation_id` names.
    """
    until = query.until or today()
    since = query.since or until - min(timedelta(days=_USUAL_DAYS - 1), until - date.min)
    if not 0 <= (until - since).days < TALLY_DAYS:
        message = f"must be at most {TALLY_DAYS - 1} days before `until`, and not after it"
        raise invalid([FieldError(source="query", pointer="/since", message=message)])
    found = report(await catalog.attributor.store.tallies(since, until), query.by)
    return RecommendationMetrics.of(catalog.name, (since, until), query.by, found)
