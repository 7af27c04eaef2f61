"""Recommendation runs: lists for all users, or for a file of requests, as a job."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.api.bodies import JSON, expect_type, json_body, media_type, spool
from app.api.dependencies import TheCatalog, TheCatalogs, dependencies_of
from app.api.jobs import TheJob
from app.api.problems import ApiError, FieldError, invalid
from app.api.schema import READS_JSON, problems
from app.api.transfer import JSONL, continued
from app.catalogs import Catalog, UnknownCatalog
from app.jobs import Job
from app.limits import BATCH_VALUES
from app.lists import RunFiles, RunParams, folder_of, new_folder
from app.recommend import RecommendRequest
from app.storage.feedback import Feedback
from tree.item import StoredId

router = APIRouter(tags=["recommend"])

_FILES = (JSONL, "application/jsonl", "application/gzip", "application/x-gzip")
_LINES = {"schema": {"type": "string", "format": "binary"}}
_LINES_AT_ONCE = 200


class RunRequest(BaseModel):
    """Whose lists are wanted, and what each request has beside the user."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"request": {"limit": 20, "strategy": "embedded"}, "max_cost_usd": 5}]
        },
    )

    user_ids: Annotated[list[StoredId], Field(max_length=100_000)] | None = Field(
        default=None, description="Null: all users of whom something is stored."
    )
    request: RecommendRequest = Field(
        default=RecommendRequest(),
        description="What each request has, beside `user_id`; no `cursor`.",
    )
    max_cost_usd: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Most that models may cost; further lists come without a model.",
    )


class RunQuery(BaseModel):
    """Options of a run over a file."""

    model_config = ConfigDict(frozen=True)

    max_cost_usd: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="The same for a file of requests.",
    )


_BODY = json_body(RunRequest, values=BATCH_VALUES)


@router.post(
    "/v1/catalogs/{catalog}/recommendation-runs",
    operation_id="start_recommendation_run",
    status_code=HTTPStatus.ACCEPTED,
    responses=problems(*READS_JSON, HTTPStatus.INSUFFICIENT_STORAGE),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/RunRequest"}},
                **dict.fromkeys(_FILES, _LINES),
            },
        }
    },
)
async def start_recommendation_run(
    request: Request,
    response: Response,
    catalog: TheCatalog,
    query: Annotated[RunQuery, Query()],
) -> Job:
    """Make the lists of many users: a JSON body says which users, JSON Lines are requests.

    Each line of a file, gzipped or not, is a request as `recommend` takes it. The job answers them
    one after the other; its `result` counts lists and problems. `GET /v1/jobs/{id}/result` has one
    line for each, in the same order: `line`, `user_id`, `stored_user`, and `answer` or `problem`.
    After a crash, a process with the same data folder goes on where the run was. The answers have
    no trace.
    """
    expect_type(request, (*JSON, *_FILES))
    settings = dependencies_of(request).settings
    if media_type(request) in JSON:
        body = await _BODY(request)
        _check_each(body.request)
        async with _folder(settings.runs, catalog) as folder:
            if body.user_ids is not None:
                await asyncio.to_thread(_write_users, folder, body.user_ids)
            params = RunParams(
                folder=folder.name,
                request=body.request.model_dump(mode="json", by_alias=True, exclude_unset=True),
                stored_users=body.user_ids is None,
                max_cost_usd=body.max_cost_usd,
            )
            job = await _started(request, catalog, params)
    else:
        async with _folder(settings.runs, catalog) as folder:
            upload = await spool(request, settings.uploads)
            await asyncio.to_thread(upload.replace, RunFiles.within(folder).requests)
            params = RunParams(folder=folder.name, max_cost_usd=query.max_cost_usd)
            job = await _started(request, catalog, params)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


@router.get(
    "/v1/jobs/{job_id:segment}/result",
    operation_id="get_job_result",
    response_class=StreamingResponse,
    responses={
        **problems(HTTPStatus.CONFLICT, HTTPStatus.GONE),
        200: {"description": "One list a line", "content": {JSONL: _LINES}},
    },
)
async def get_job_result(request: Request, catalogs: TheCatalogs, job: TheJob) -> StreamingResponse:
    """Download the lists of a recommendation run that has ended, also of one that was cancelled.

    Lines whose `stored_user` is true are left out once nothing is stored of the user. 409 for
    another job, or before its end; 410 where the lists are gone, or on another machine: they stay
    in the data folder of the process that ran it.
    """
    if job.type != "recommendation" or not job.ended:
        detail = "only a recommendation run that has ended has lists to download"
        raise ApiError(HTTPStatus.CONFLICT, "no_lists", detail)
    path = RunFiles.within(folder_of(dependencies_of(request).settings.runs, job)).lists
    catalog = await _catalog_of(job, catalogs)
    if not await asyncio.to_thread(path.exists):
        detail = "the lists are not in the data folder of this process, or no longer"
        raise ApiError(HTTPStatus.GONE, "lists_gone", detail)
    lines = _lines(path, catalog.feedback)
    first = await anext(lines, b"")
    return StreamingResponse(continued(first, lines), media_type=JSONL)


def _check_each(request: RecommendRequest) -> None:
    """Raises ApiError, 422, for fields that the requests of a run cannot have in common."""
    each = {"user_id": request.user_id, "cursor": request.cursor}
    flaws = [
        FieldError(
            source="body", pointer=f"/request/{name}", message="each request of a run has its own"
        )
        for name, value in each.items()
        if value is not None
    ]
    if flaws:
        raise invalid(flaws)


@asynccontextmanager
async def _folder(runs: Path, catalog: Catalog) -> AsyncIterator[Path]:
    """A new folder for a run; it is removed if the run is not started."""
    folder = await asyncio.to_thread(new_folder, runs, catalog.id)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


async def _started(request: Request, catalog: Catalog, params: RunParams) -> Job:
    asked: dict[str, JsonValue] = params.model_dump(mode="json")
    return await dependencies_of(request).jobs.start("recommendation", catalog.id, asked)


async def _catalog_of(job: Job, catalogs: TheCatalogs) -> Catalog:
    found = await catalogs.get(job.catalog)
    if found.id != job.catalog_id:
        raise UnknownCatalog(job.catalog)
    return found


def _write_users(folder: Path, user_ids: Sequence[str]) -> None:
    lines = (msgspec.json.encode({"user_id": user_id}) + b"\n" for user_id in user_ids)
    RunFiles.within(folder).requests.write_bytes(b"".join(lines))


class _Whose(msgspec.Struct):
    user_id: str | None = None
    stored_user: bool = True


async def _lines(path: Path, feedback: Feedback) -> AsyncIterator[bytes]:
    """The lists, without those of users who were erased since they were made."""
    with path.open("rb") as file:
        while some := await asyncio.to_thread(lambda: list(islice(file, _LINES_AT_ONCE))):
            rows = [msgspec.json.decode(line, type=_Whose) for line in some]
            users = [row.user_id for row in rows if row.stored_user and row.user_id is not None]
            known = await feedback.known(users) if users else set()
            yield b"".join(
                line
                for line, row in zip(some, rows, strict=True)
                if row.user_id is None or not row.stored_user or row.user_id in known
            )
