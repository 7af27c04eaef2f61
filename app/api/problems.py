"""Errors as `application/problem+json` (RFC 9457): the only place where they get a status.

A problem's `type` is always `about:blank`; clients tell problems apart by the stable `code`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Literal, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match, Route

from app.api.headers import SAFE_HEADERS
from app.catalogs import BeingDeleted, InvalidCatalogName, UnknownCatalog
from app.curate import TooManyWrites
from app.jobs import JobRunning
from app.llm import AnswerDegraded, ModelRejected
from app.recommend.fields import FilterTooLarge
from app.recommend.pages import CursorExpired, CursorOfAnother
from app.recommend.recommender import DeadlineExceeded
from app.throttled_log import ThrottledLog
from app.variants import UnknownVariant
from tree.errors import (
    CatalogDeleted,
    CorruptSnapshot,
    EmbedderBudgetSpent,
    EmbedderUnavailable,
    EmbedderUnusable,
    InvalidEdit,
    StaleVersion,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
    TooManyDomains,
    UnknownNode,
    UnknownVersion,
)

Source: TypeAlias = Literal["body", "query", "path"]

PROBLEM_JSON = "application/problem+json"

_outages = ThrottledLog(logging.getLogger(__name__))

SHOWN_ERRORS = 100
_RETRY_AFTER_S = 1
_LONGEST_DETAIL = 1_000  # a detail may quote the request
_LONGEST_STEP = 100  # of a pointer: field names may be of any length

_STATUS: Mapping[type[Exception], tuple[HTTPStatus, str]] = {
    UnknownCatalog: (HTTPStatus.NOT_FOUND, "unknown_catalog"),
    CatalogDeleted: (HTTPStatus.NOT_FOUND, CatalogDeleted.code),
    BeingDeleted: (HTTPStatus.CONFLICT, "being_deleted"),
    InvalidCatalogName: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
    UnknownNode: (HTTPStatus.NOT_FOUND, UnknownNode.code),
    UnknownVersion: (HTTPStatus.NOT_FOUND, UnknownVersion.code),
    TooManyWrites: (HTTPStatus.TOO_MANY_REQUESTS, "too_many_writes"),
    JobRunning: (HTTPStatus.CONFLICT, "job_running"),
    InvalidEdit: (HTTPStatus.CONFLICT, InvalidEdit.code),
    TooManyDomains: (HTTPStatus.UNPROCESSABLE_ENTITY, TooManyDomains.code),
    StaleVersion: (HTTPStatus.CONFLICT, StaleVersion.code),
    StoreFull: (HTTPStatus.INSUFFICIENT_STORAGE, StoreFull.code),
    StoreBusy: (HTTPStatus.SERVICE_UNAVAILABLE, StoreBusy.code),
    StoreUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, StoreUnavailable.code),
    CorruptSnapshot: (HTTPStatus.SERVICE_UNAVAILABLE, CorruptSnapshot.code),
    EmbedderUnusable: (HTTPStatus.BAD_GATEWAY, EmbedderUnusable.code),
    EmbedderBudgetSpent: (HTTPStatus.SERVICE_UNAVAILABLE, EmbedderBudgetSpent.code),
    EmbedderUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, EmbedderUnavailable.code),
    UnknownVariant: (HTTPStatus.UNPROCESSABLE_ENTITY, "unknown_variant"),
    FilterTooLarge: (HTTPStatus.UNPROCESSABLE_ENTITY, "filter_too_large"),
    CursorExpired: (HTTPStatus.GONE, "cursor_expired"),
    CursorOfAnother: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_cursor"),
    DeadlineExceeded: (HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded"),
    AnswerDegraded: (HTTPStatus.SERVICE_UNAVAILABLE, "degraded"),
    ModelRejected: (HTTPStatus.BAD_GATEWAY, "model_rejected"),
    ClientDisconnect: (HTTPStatus.BAD_REQUEST, "incomplete_body"),
}
_CODE_OF_STATUS = {
    HTTPStatus.NOT_FOUND: "unknown_route",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(frozen=True)

    source: Source
    pointer: str  # a JSON pointer (RFC 6901) into the body, or "/" and the name of a parameter
    message: str


class Problem(BaseModel):
    """Why a request was refused."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "code": "invalid_request",
                    "detail": "the request has 1 flaw: see errors",
                    "errors": [
                        {"source": "body", "pointer": "/limit", "message": "must be at most 100"}
                    ],
                }
            ]
        },
    )

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | None = None
    job_id: str | None = None


class ApiError(Exception):
    """A request is answered with a problem."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.errors = list(errors) or None
        self.headers = dict(headers or {})


def invalid(flaws: Iterable[FieldError]) -> ApiError:
    """422 for a request that can be parsed but is not valid."""
    found = list(flaws)
    noun = "flaw" if len(found) == 1 else "flaws"
    left = len(found) - SHOWN_ERRORS
    rest = f"the first {SHOWN_ERRORS} are listed" if left > 0 else "see errors"
    return ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_request",
        f"the request has {len(found):,} {noun}: {rest}",
        errors=found[:SHOWN_ERRORS],
    )


def unknown_item(item_id: str) -> ApiError:
    """404 for an item that the catalogue does not hold."""
    return ApiError(HTTPStatus.NOT_FOUND, "unknown_item", f"no item {item_id!r} in this catalogue")


def unknown_job(job_id: str) -> ApiError:
    """404 for a job that does not exist, or no longer."""
    return ApiError(
        HTTPStatus.NOT_FOUND, "unknown_job", f"there is no job {job_id!r}, or no longer"
    )


def field_errors(
    errors: Iterable[ErrorDetails], source: Literal["body", "query", "path"]
) -> list[FieldError]:
    """The errors of pydantic, without the input that they quote."""
    return [
        FieldError(source=source, pointer=pointer(error["loc"]), message=_message(error))
        for error in errors
    ]


def problem_of(error: Exception) -> Problem:
    """The problem for an error in a stream whose status is already sent."""
    if isinstance(error, ApiError):
        return _problem(error)
    if isinstance(error, tuple(_STATUS)):
        return _problem(_translated(error))
    return _problem(_unexpected())


def answer_to(error: Exception) -> JSONResponse:
    """The response to an error that was raised before any route was called."""
    return response(error if isinstance(error, ApiError) else _translated(error))


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answer every error of `app`, which has these `routes`, with a problem."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return response(error)

    async def listed(_: Request, error: Exception) -> JSONResponse:
        return response(_translated(error))

    async def parameters(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return response(invalid(_field_error(found) for found in error.errors()))

    async def unrouted(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return response(_unrouted(request, error, routes))

    async def unexpected(_: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - the server logs it
        problem = _unexpected()
        problem.headers |= SAFE_HEADERS  # no middleware adds them to this answer
        return response(problem)

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(Exception, unexpected)
    for kind in _STATUS:
        app.add_exception_handler(kind, listed)


def _translated(error: Exception) -> ApiError:
    status, code = next(found for kind, found in _STATUS.items() if isinstance(error, kind))
    headers = {}
    if isinstance(error, AnswerDegraded) and error.reason == "llm_timeout":
        status = HTTPStatus.GATEWAY_TIMEOUT
    elif isinstance(error, AnswerDegraded) and error.reason == "budget":
        pass  # a retry would cost as much
    elif isinstance(error, BeingDeleted) or status in (
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.TOO_MANY_REQUESTS,
    ):
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    detail = str(error)
    if isinstance(error, StoreUnavailable):
        _outages.warning("a request was refused: %s", error)
        detail = error.advice
    translated = ApiError(status, code, detail, headers=headers)
    translated.__cause__ = error
    return translated


def _unrouted(request: Request, error: HTTPException, routes: Sequence[BaseRoute]) -> ApiError:
    status = HTTPStatus(error.status_code)
    code = _CODE_OF_STATUS.get(status, status.name.lower())
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if status is HTTPStatus.NOT_FOUND:
        detail = f"there is no {request.url.path[:_LONGEST_STEP]}: /docs lists all routes"
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first route of the path only.
        headers["Allow"] = ", ".join(_methods(request, routes)) or headers.get("Allow", "GET")
        detail = f"{request.method} is not allowed for this path: use {headers['Allow']}"
    return ApiError(status, code, detail, headers=headers)


def _methods(request: Request, routes: Sequence[BaseRoute]) -> list[str]:
    here = (
        route
        for route in routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    )
    methods = {method for route in here for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _unexpected() -> ApiError:
    detail = "unexpected error: see the log of the service"
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)


def _problem(refused: ApiError) -> Problem:
    cause = refused.__cause__
    return Problem(
        title=refused.status.phrase,
        status=refused.status,
        code=refused.code,
        detail=str(refused)[:_LONGEST_DETAIL],
        errors=refused.errors,
        job_id=cause.job_id if isinstance(cause, JobRunning) else None,
    )


def response(refused: ApiError) -> JSONResponse:
    """The response for an error."""
    return JSONResponse(
        _problem(refused).model_dump(exclude_none=True),
        refused.status,
        headers=refused.headers,
        media_type=PROBLEM_JSON,
    )


def _field_error(error: ErrorDetails) -> FieldError:
    """An error of FastAPI; its location starts with its source."""
    source, *place = error["loc"]
    where: Source = "path" if source == "path" else "query"
    return FieldError(source=where, pointer=pointer(place), message=_message(error))


def pointer(place: Iterable[int | str]) -> str:
    """A JSON pointer (RFC 6901) to a place in the request."""
    return "".join(f"/{_step(str(step))}" for step in place)


def _step(step: str) -> str:
    shown = step if len(step) <= _LONGEST_STEP else f"{step[:_LONGEST_STEP]}…"
    return shown.replace("~", "~0").replace("/", "~1")


def _message(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")
