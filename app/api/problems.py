"""Errors as `application/problem+json` (RFC 9457): the one place where they get a status.

A problem's `type` is always `about:blank`; clients tell problems apart by the stable `code`.
"""

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

from app.catalogs import InvalidCatalogName, UnknownCatalog
from app.curate import TooManyWrites
from app.jobs import JobRunning
from app.llm import AnswerDegraded, ModelRejected
from app.recommend.recommender import DeadlineExceeded
from tree.errors import (
    CorruptSnapshot,
    EmbedderUnavailable,
    EmbedderUnusable,
    InvalidEdit,
    StaleVersion,
    StoreUnavailable,
    UnknownNode,
    UnknownVersion,
)

Source: TypeAlias = Literal["body", "query", "path"]

PROBLEM_JSON = "application/problem+json"

_RETRY_AFTER_S = 1
_STORE_IS_FULL = "the store is full"

_STATUS: Mapping[type[Exception], tuple[HTTPStatus, str]] = {
    UnknownCatalog: (HTTPStatus.NOT_FOUND, "unknown_catalog"),
    InvalidCatalogName: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
    UnknownNode: (HTTPStatus.NOT_FOUND, UnknownNode.code),
    UnknownVersion: (HTTPStatus.NOT_FOUND, UnknownVersion.code),
    TooManyWrites: (HTTPStatus.TOO_MANY_REQUESTS, "too_many_writes"),
    JobRunning: (HTTPStatus.CONFLICT, "job_running"),
    InvalidEdit: (HTTPStatus.CONFLICT, InvalidEdit.code),
    StaleVersion: (HTTPStatus.CONFLICT, StaleVersion.code),
    StoreUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, StoreUnavailable.code),
    CorruptSnapshot: (HTTPStatus.SERVICE_UNAVAILABLE, CorruptSnapshot.code),
    EmbedderUnusable: (HTTPStatus.BAD_GATEWAY, EmbedderUnusable.code),
    EmbedderUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, EmbedderUnavailable.code),
    DeadlineExceeded: (HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded"),
    AnswerDegraded: (HTTPStatus.SERVICE_UNAVAILABLE, "degraded"),
    ModelRejected: (HTTPStatus.BAD_GATEWAY, "model_rejected"),
    ClientDisconnect: (HTTPStatus.BAD_REQUEST, "incomplete_body"),
}
_CODE_OF_STATUS = {
    HTTPStatus.NOT_FOUND: "unknown_route",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}


class Flaw(BaseModel):
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
    errors: list[Flaw] | None = None
    job_id: str | None = None


class Refused(Exception):
    """A request that is answered with a problem."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[Flaw] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.errors = list(errors) or None
        self.headers = dict(headers or {})


def invalid(flaws: Iterable[Flaw]) -> Refused:
    """422 for a request that can be read but not be accepted."""
    errors = list(flaws)
    noun = "flaw" if len(errors) == 1 else "flaws"
    return Refused(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_request",
        f"the request has {len(errors)} {noun}: see errors",
        errors=errors,
    )


def unknown_item(item_id: str) -> Refused:
    """404 for an item that the catalogue does not hold."""
    return Refused(HTTPStatus.NOT_FOUND, "unknown_item", f"no item {item_id!r} in this catalogue")


def unknown_job(job_id: str) -> Refused:
    """404 for a job that is not there, or not any more."""
    return Refused(HTTPStatus.NOT_FOUND, "unknown_job", f"no job {job_id!r}, or not any more")


def flaws_of(
    errors: Iterable[ErrorDetails], source: Literal["body", "query", "path"]
) -> list[Flaw]:
    """pydantic's findings, without the input that they quote."""
    return [
        Flaw(source=source, pointer=_pointer(error["loc"]), message=_message(error))
        for error in errors
    ]


def problem_of(error: Exception) -> Problem:
    """The problem that answers an error, where no response can carry it any more."""
    if isinstance(error, Refused):
        return _problem(error)
    if isinstance(error, tuple(_STATUS)):
        return _problem(_translated(error))
    return _problem(_unexpected())


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answer every error of `app`, which has these `routes`, with a problem."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return _response(error)

    async def listed(_: Request, error: Exception) -> JSONResponse:
        return _response(_translated(error))

    async def parameters(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _response(invalid(_flaw(found) for found in error.errors()))

    async def unrouted(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _response(_unrouted(request, error, routes))

    async def unexpected(_: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - logged by the server
        return _response(_unexpected())

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(Exception, unexpected)
    for kind in _STATUS:
        app.add_exception_handler(kind, listed)


def _translated(error: Exception) -> Refused:
    status, code = next(found for kind, found in _STATUS.items() if isinstance(error, kind))
    headers = {}
    if isinstance(error, StoreUnavailable) and _STORE_IS_FULL in str(error):
        status, code = HTTPStatus.INSUFFICIENT_STORAGE, "store_full"
    elif isinstance(error, AnswerDegraded) and error.reason == "llm_timeout":
        status = HTTPStatus.GATEWAY_TIMEOUT
    elif isinstance(error, AnswerDegraded) and error.reason == "budget":
        pass  # another try would cost as much
    elif status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    translated = Refused(status, code, str(error), headers=headers)
    translated.__cause__ = error
    return translated


def _unrouted(request: Request, error: HTTPException, routes: Sequence[BaseRoute]) -> Refused:
    status = HTTPStatus(error.status_code)
    code = _CODE_OF_STATUS.get(status, status.name.lower())
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if status is HTTPStatus.NOT_FOUND:
        detail = f"there is no {request.url.path}: /docs lists what there is"
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first route of the path only.
        headers["Allow"] = ", ".join(_methods(request, routes)) or headers.get("Allow", "GET")
        detail = f"{request.method} is not for this path: it takes {headers['Allow']}"
    return Refused(status, code, detail, headers=headers)


def _methods(request: Request, routes: Sequence[BaseRoute]) -> list[str]:
    here = (
        route
        for route in routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    )
    return sorted({method for route in here for method in route.methods or ()})


def _unexpected() -> Refused:
    detail = "unexpected error; the log of the service has more"
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)


def _problem(refused: Refused) -> Problem:
    cause = refused.__cause__
    return Problem(
        title=refused.status.phrase,
        status=refused.status,
        code=refused.code,
        detail=str(refused),
        errors=refused.errors,
        job_id=cause.job_id if isinstance(cause, JobRunning) else None,
    )


def _response(refused: Refused) -> JSONResponse:
    return JSONResponse(
        _problem(refused).model_dump(exclude_none=True),
        refused.status,
        headers=refused.headers,
        media_type=PROBLEM_JSON,
    )


def _flaw(error: ErrorDetails) -> Flaw:
    """FastAPI's own finding, whose location starts with its source."""
    source, *place = error["loc"]
    where: Source = "path" if source == "path" else "query"
    return Flaw(source=where, pointer=_pointer(place), message=_message(error))


def _pointer(place: Iterable[int | str]) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in place)


def _message(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")
