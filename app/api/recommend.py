"""Answers for readers: recommendations, how they came about, and neighbours of an item."""

import asyncio
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import TheCatalog
from app.api.bodies import json_body
from app.api.metrics import TheMetrics
from app.api.problems import Refused, problem_of
from app.api.schema import READS_JSON, problems, takes
from app.recommend import Recommendation, RecommendRequest, SimilarItems
from tree.item import ItemId

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["recommend"])


class SimilarQuery(BaseModel):
    """Whose neighbours, and how many."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: ItemId
    limit: int = Field(default=10, ge=1, le=100)


@router.post(
    "/recommend",
    operation_id="recommend",
    responses=problems(*READS_JSON, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT),
    openapi_extra=takes(RecommendRequest),
)
async def recommend(
    catalog: TheCatalog,
    metrics: TheMetrics,
    request: Annotated[RecommendRequest, Depends(json_body(RecommendRequest))],
) -> Recommendation:
    """A short ranked list for a reader, each item with its path and reason.

    Unknown history ids are no error: `absent_items` reports them. An empty request is a reader of
    whom nothing is known.
    """
    answer = await catalog.recommender.recommend(request)
    metrics.answered(answer)
    return answer


@router.post(
    "/recommend/stream",
    operation_id="recommend_stream",
    response_class=EventSourceResponse,
    responses=problems(*READS_JSON),
    openapi_extra=takes(RecommendRequest),
)
async def stream(
    catalog: TheCatalog,
    metrics: TheMetrics,
    request: Annotated[RecommendRequest, Depends(json_body(RecommendRequest))],
) -> AsyncIterator[ServerSentEvent]:
    """The same as it comes about: `start`, `profile`, `node`…, `candidates`, `item`…, `usage`.

    The last event is always `done`, with the whole answer but its items, or `error`, with a
    problem document. Whoever hangs up stops the calls to the model.
    """
    events: asyncio.Queue[ServerSentEvent | None] = asyncio.Queue()

    def tell(name: str, data: object) -> None:
        events.put_nowait(ServerSentEvent(event=name, data=data))

    async def work() -> None:
        try:
            answer = await catalog.recommender.recommend(request, tell)
            metrics.answered(answer)
            for item in answer.items:
                tell("item", item)
            tell("usage", answer.usage)
            tell("done", answer.model_dump(exclude={"items"}))
        except Exception as error:  # the status is already sent: the stream has to say it
            problem = problem_of(error)
            if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                logger.exception("a streamed recommendation failed")
            tell("error", problem.model_dump(exclude_none=True))
        finally:
            events.put_nowait(None)

    task = asyncio.create_task(work())
    try:
        while (event := await events.get()) is not None:
            yield event
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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
    """The nearest neighbours of an item, over the tree, without a model.

    404 also for an item that is hidden or has expired: to readers it is gone.
    """
    found = await catalog.recommender.similar(query.item_id, query.limit)
    if found is None:
        detail = f"no item {query.item_id!r} that may be shown: it is not there, hidden or expired"
        raise Refused(HTTPStatus.NOT_FOUND, "unknown_item", detail)
    return found
