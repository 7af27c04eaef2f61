"""Answers for readers: recommendations, how they came about, and neighbours of an item."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import TheCatalog
from app.api.bodies import json_body
from app.api.problems import Refused, unknown_item
from app.api.schema import READS_JSON, problems, takes
from app.recommend import Recommendation, RecommendRequest, SimilarItems
from tree.item import ItemId

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["recommend"])


class SimilarQuery(BaseModel):
    """Whose neighbours, and how many."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: ItemId
    limit: int = Field(default=10, ge=1, le=100)


@router.post(
    "/recommend",
    operation_id="recommend",
    responses=problems(*READS_JSON, HTTPStatus.GATEWAY_TIMEOUT),
    openapi_extra=takes(RecommendRequest),
)
async def recommend(
    catalog: TheCatalog,
    request: Annotated[RecommendRequest, Depends(json_body(RecommendRequest))],
) -> Recommendation:
    """A short ranked list for a reader, each item with its path and reason.

    Unknown history ids are no error: `absent_items` reports them. An empty request is a reader of
    whom nothing is known.
    """
    return await catalog.recommender.recommend(request)


@router.get(
    "/recommendations/{recommendation_id}",
    operation_id="get_recommendation",
    responses=problems(HTTPStatus.GONE),
)
async def trace(catalog: TheCatalog, recommendation_id: str) -> dict[str, object]:
    """How an answer came about. 410 once it is no longer kept."""
    found = await catalog.recommender.trace(recommendation_id)
    if found is None:
        detail = f"{recommendation_id!r} is not kept, or not any more"
        raise Refused(HTTPStatus.GONE, "recommendation_gone", detail)
    return found


@router.get("/similar", operation_id="similar_items", responses=problems())
async def similar(catalog: TheCatalog, query: Annotated[SimilarQuery, Query()]) -> SimilarItems:
    """The nearest neighbours of an item, over the tree, without a model."""
    found = await catalog.recommender.similar(query.item_id, query.limit)
    if found is None:
        raise unknown_item(query.item_id)
    return found
