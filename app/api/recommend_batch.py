"""Recommendations for many users in one request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.batches import INLINE_ROWS
from app.api.bodies import json_body
from app.api.dependencies import TheCatalogs, TheKeyBudget, TrustedCatalog
from app.api.disconnects import unless_gone
from app.api.metrics import TheMetrics
from app.api.problems import FieldError, Problem, field_errors, invalid, problem_of
from app.api.rates import count_requests
from app.api.recommend import with_newest
from app.api.schema import READS_JSON, problems, takes
from app.limits import BATCH_VALUES, TooMuch, check_fields
from app.recommend import Recommendation, RecommendRequest
from tree.redis.joined import joined_commands
from tree.worker import together

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["recommend"])

_MOST_REQUESTS = 200
_AT_ONCE = 32  # as many scans share one pass over the vectors; more would wait for each other


class RecommendBatch(BaseModel):
    """Requests as `recommend` takes them, at most 200."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"requests": [{"user_id": "u42", "limit": 5}, {"history": [{"item_id": "b1"}]}]}
            ]
        },
    )

    requests: Annotated[list[object], Field(max_length=_MOST_REQUESTS)]


class BatchAnswer(BaseModel):
    """The result of one request: an answer, or the problem that it would have had alone."""

    model_config = ConfigDict(frozen=True)

    answer: Recommendation | None = None
    problem: Problem | None = None


class BatchAnswers(BaseModel):
    """One result per request, in their order."""

    results: list[BatchAnswer]


_BODY = json_body(RecommendBatch, values=BATCH_VALUES, rows=True)


@router.post(
    "/recommend:batch",
    operation_id="recommend_batch",
    responses=problems(*READS_JSON),
    openapi_extra=takes(RecommendBatch),
)
async def recommend_batch(
    http: Request,
    catalogs: TheCatalogs,
    catalog: TrustedCatalog,
    metrics: TheMetrics,
    shared_budget: TheKeyBudget,
    batch: Annotated[RecommendBatch, Depends(_BODY)],
) -> BatchAnswers:
    """Get lists for many users at once; a request that fails does not fail the others.

    For the rate limit of a key, each request counts as one. Its `timeout_ms` begins when its turn
    comes: 32 are answered at once. When the client hangs up, the calls to the model stop.
    """
    await count_requests(http, len(batch.requests))
    if len(batch.requests) <= INLINE_ROWS:
        rows = _read(batch.requests)
    else:
        rows = await asyncio.to_thread(_read, batch.requests)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(request: RecommendRequest) -> Recommendation:
        async with turns:
            answer = await with_newest(
                catalogs,
                catalog,
                lambda newest: newest.recommender.recommend(request, shared_budget=shared_budget),
            )
        metrics.answered(answer)
        return answer

    with joined_commands():
        return BatchAnswers(results=await unless_gone(http, answers(rows, ask)))


async def answers(
    rows: Sequence[RecommendRequest | Problem],
    ask: Callable[[RecommendRequest], Awaitable[Recommendation]],
) -> list[BatchAnswer]:
    """The result of every row."""
    return await together(_answer(row, ask) for row in rows)


async def _answer(
    row: RecommendRequest | Problem, ask: Callable[[RecommendRequest], Awaitable[Recommendation]]
) -> BatchAnswer:
    if isinstance(row, Problem):
        return BatchAnswer(problem=row)
    try:
        return BatchAnswer(answer=await ask(row))
    except Exception as error:  # the others are answered
        problem = problem_of(error)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.exception("a recommendation of a batch failed")
        return BatchAnswer(problem=problem)


def _read(requests: Sequence[object]) -> list[RecommendRequest | Problem]:
    return [_row(row, f"/requests/{at}") for at, row in enumerate(requests)]


def _row(row: object, place: str) -> RecommendRequest | Problem:
    try:
        check_fields(row)
        return RecommendRequest.model_validate(row)
    except TooMuch as error:
        flaws = [FieldError(source="body", pointer=place, message=str(error))]
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        flaws = [
            flaw.model_copy(update={"pointer": place + flaw.pointer})
            for flaw in field_errors(found, "body")
        ]
    return problem_of(invalid(flaws))
