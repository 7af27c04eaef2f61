"""Recommendations, their traces, and similar items."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import arrival_of, json_body
from app.api.dependencies import TheCatalog, TheCatalogs, TheKeyBudget, TrustedCatalog
from app.api.disconnects import unless_gone
from app.api.metrics import TheMetrics
from app.api.problems import ApiError, problem_of
from app.api.schema import READS_JSON, problems, takes
from app.catalogs import Catalog, Catalogs
from app.limits import RECOMMEND_VALUES
from app.recommend import Recommendation, RecommendRequest, SimilarItems, SimilarRequest
from tree.errors import CatalogDeleted
from tree.item import StoredId
from tree.worker import Background, Closed

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["recommend"])

_Answer = TypeVar("_Answer")


_BODY = json_body(RecommendRequest, values=RECOMMEND_VALUES)
_SIMILAR = json_body(SimilarRequest, values=RECOMMEND_VALUES)


class SimilarQuery(BaseModel):
    """Which item, and how many similar ones."""

    model_config = ConfigDict(frozen=True)

    item_id: StoredId
    limit: int = Field(default=10, ge=1, le=100)
    fold: bool = Field(
        default=True,
        description="Whether near-duplicates appear once, and those of the item itself not at all.",
    )


@router.post(
    "/recommend",
    operation_id="recommend",
    responses=problems(
        *READS_JSON, HTTPStatus.GONE, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT
    ),
    openapi_extra=takes(RecommendRequest),
)
async def recommend(
    http: Request,
    catalogs: TheCatalogs,
    catalog: TrustedCatalog,
    metrics: TheMetrics,
    shared_budget: TheKeyBudget,
    request: Annotated[RecommendRequest, Depends(_BODY)],
) -> Recommendation:
    """Get a short ranked list for a user, each item with its path and reason.

    Unknown ids in the history are no error: see `absent_items`. An empty request is for a user
    without any known data. When the client hangs up, the calls to the model stop.
    """
    work = with_newest(
        catalogs,
        catalog,
        lambda newest: newest.recommender.recommend(
            request, shared_budget=shared_budget, arrived=arrival_of(http)
        ),
    )
    answer = await unless_gone(http, work)
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
    http: Request,
    catalogs: TheCatalogs,
    catalog: TrustedCatalog,
    metrics: TheMetrics,
    shared_budget: TheKeyBudget,
    request: Annotated[RecommendRequest, Depends(_BODY)],
) -> AsyncIterator[ServerSentEvent]:
    """Stream a recommendation: `start`, `profile`, `node`…, `candidates`, `item`…, `usage`.

    The last event is always `done`, with the whole answer except its items, or `error`, with a
    problem document. When the client hangs up, the calls to the model stop.
    """
    events: asyncio.Queue[ServerSentEvent | None] = asyncio.Queue()

    def notify(name: str, data: object) -> None:
        events.put_nowait(ServerSentEvent(event=name, data=data))

    async def work() -> None:
        try:
            answer = await with_newest(
                catalogs,
                catalog,
                lambda newest: newest.recommender.recommend(
                    request, notify, shared_budget, arrival_of(http)
                ),
            )
            metrics.answered(answer)
            for item in answer.items:
                notify("item", item)
            notify("usage", answer.usage)
            notify("done", answer.model_dump(exclude={"items"}))
        except Exception as error:  # the status is already sent: the error becomes an event
            problem = problem_of(error)
            if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                logger.exception("a streamed recommendation failed")
            notify("error", problem.model_dump(exclude_none=True))
        finally:
            events.put_nowait(None)

    background = Background("a streamed recommendation")
    background.start(work())
    try:
        while (event := await events.get()) is not None:
            yield event
    finally:
        await background.aclose()


@router.get(
    "/recommendations/{recommendation_id}",
    operation_id="get_recommendation",
    responses=problems(HTTPStatus.GONE),
)
async def trace(catalog: TheCatalog, recommendation_id: str) -> dict[str, object]:
    """Get the trace of a recommendation. 410 after it has expired."""
    found = await catalog.recommender.trace(recommendation_id)
    if found is None:
        detail = f"there is no trace of {recommendation_id!r}, or no longer"
        raise ApiError(HTTPStatus.GONE, "recommendation_gone", detail)
    return found


@router.get(
    "/similar", operation_id="similar_items", responses=problems(HTTPStatus.GATEWAY_TIMEOUT)
)
async def similar(
    catalogs: TheCatalogs, catalog: TrustedCatalog, query: Annotated[SimilarQuery, Query()]
) -> SimilarItems:
    """Get the items most similar to an item, without a model.

    404 also for an item that is hidden or has expired.
    """
    request = SimilarRequest(item_id=query.item_id, limit=query.limit, fold=query.fold)
    return await _similar(catalogs, catalog, request, pages=False)


@router.post(
    "/similar",
    operation_id="search_similar",
    responses=problems(*READS_JSON, HTTPStatus.GONE, HTTPStatus.GATEWAY_TIMEOUT),
    openapi_extra=takes(SimilarRequest),
)
async def search_similar(
    http: Request,
    catalogs: TheCatalogs,
    catalog: TrustedCatalog,
    request: Annotated[SimilarRequest, Depends(_SIMILAR)],
) -> SimilarItems:
    """Get the items most similar to an item, filtered, with fields, page by page.

    404 also for an item that is hidden or has expired.
    """
    return await unless_gone(http, _similar(catalogs, catalog, request, pages=True))


async def _similar(
    catalogs: Catalogs, catalog: Catalog, request: SimilarRequest, *, pages: bool
) -> SimilarItems:
    found = await with_newest(
        catalogs, catalog, lambda newest: newest.recommender.similar(request, pages=pages)
    )
    if found is None:
        detail = f"there is no item {request.item_id!r}, or it is hidden or expired"
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_item", detail)
    return found


async def with_newest(
    catalogs: Catalogs, trusted: Catalog, ask: Callable[[Catalog], Awaitable[_Answer]]
) -> _Answer:
    """The answer of a catalogue; after its deletion, of the one that has its name now."""
    try:
        return await ask(trusted)
    except CatalogDeleted:
        return await ask(await catalogs.get(trusted.name))
    except Closed:
        await catalogs.check_exists(trusted)
        raise
