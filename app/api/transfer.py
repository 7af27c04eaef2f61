"""Import and export of whole catalogues as JSON Lines."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import expect_type, spool
from app.api.dependencies import TheCatalog, dependencies_of
from app.api.disconnects import CutShort
from app.api.problems import ApiError
from app.api.schema import problems
from app.catalogs import Catalog
from app.curate import ImportParams
from app.jobs import Job
from app.signals import user_lines
from tree.errors import TreeError

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["transfer"])

JSONL = "application/x-ndjson"

_IMPORT_TYPES = (
    JSONL,
    "application/jsonl",
    "application/json",
    "application/gzip",
    "application/x-gzip",
    "application/octet-stream",
)
_EXPORTED_AT_ONCE = 500
_WRITTEN_AT_ONCE = 262_144  # bytes; they take some milliseconds
_LINES = {"schema": {"type": "string", "format": "binary"}}


class ImportQuery(BaseModel):
    """Options of an import."""

    model_config = ConfigDict(frozen=True)

    on_error: Literal["skip", "abort"] = Field(
        default="skip", description="Skip bad lines, or import nothing if there is one."
    )
    dry_run: bool = Field(default=False, description="Only check the lines.")


@router.post(
    "/imports",
    operation_id="import_items",
    status_code=HTTPStatus.ACCEPTED,
    responses=problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.INSUFFICIENT_STORAGE,
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {**dict.fromkeys(_IMPORT_TYPES, _LINES), "application/json": {"schema": {}}},
        }
    },
)
async def import_items(
    request: Request,
    response: Response,
    catalog: TheCatalog,
    query: Annotated[ImportQuery, Query()],
) -> Job:
    """Create or replace items from JSON Lines, one item a line, gzipped or not.

    The upload is stored on disk, and a job reads it. The job's `result` contains the number of
    accepted lines, the errors of the others, and in `stored` whether the accepted ones stay, also
    when the job fails. Of two lines with the same id, the later one counts.
    """
    expect_type(request, _IMPORT_TYPES)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        detail = f"the content encoding is {encoding[:100]!r}: send gzip, or no encoding"
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
    path = await spool(request, dependencies_of(request).settings.uploads)
    try:
        params = ImportParams(upload=path.name, on_error=query.on_error, dry_run=query.dry_run)
        job = await catalog.curator.start_import(params)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


@router.get(
    "/exports/items",
    operation_id="export_items",
    response_class=StreamingResponse,
    responses={**problems(), 200: {"description": "One item a line", "content": {JSONL: _LINES}}},
)
async def export_items(catalog: TheCatalog) -> StreamingResponse:
    """Download every item as JSON Lines, in the order of the tree; `imports` accepts the file.

    Items without a place in the tree yet come last. When the connection breaks off, the export
    is not complete.
    """
    lines = exported(catalog)
    first = await anext(lines, b"")  # an error of the store can still change the status
    return StreamingResponse(continued(first, lines), media_type=JSONL)


@router.get(
    "/exports/users",
    operation_id="export_users",
    response_class=StreamingResponse,
    responses={**problems(), 200: {"description": "One user a line", "content": {JSONL: _LINES}}},
)
async def export_users(catalog: TheCatalog) -> StreamingResponse:
    """Download every user as JSON Lines: history with times and types, profile and attributes.

    `unillmrec events` counts such a file. A user who was erased before the export reached them is
    not in it. When the connection breaks off, the export is not complete.
    """
    lines = user_lines(catalog.feedback)
    first = await anext(lines, b"")  # an error of the store can still change the status
    return StreamingResponse(continued(first, lines), media_type=JSONL)


async def continued(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream whose first piece is there already. Raises CutShort."""
    yield first
    try:
        async for chunk in rest:
            yield chunk
    except TreeError as error:
        logger.warning("an answer was cut short: %s", error)
        raise CutShort from error


async def exported(catalog: Catalog) -> AsyncIterator[bytes]:
    """Every item of a catalogue as whole lines of JSON, some hundred at once."""
    waiting = {item_id async for ids in catalog.store.staged_ids() for item_id in ids}
    tree = await catalog.store.load()  # loaded second, so that no item is missed between the two
    for source in (tree.item_ids(), (one for one in sorted(waiting) if one not in tree)):
        async for chunk in _records(catalog, source):
            yield chunk


async def exported_records(catalog: Catalog) -> AsyncIterator[bytes]:
    """Like `exported`, for every readable record, also when the tree cannot be loaded."""
    async for ids in catalog.store.record_ids():
        async for chunk in _records(catalog, iter(ids)):
            yield chunk


async def _records(catalog: Catalog, ids: Iterator[str]) -> AsyncIterator[bytes]:
    while batch := list(islice(ids, _EXPORTED_AT_ONCE)):
        records = await catalog.store.items(batch)
        lines = bytearray()
        for item_id in batch:
            if item_id in records:
                lines += records[item_id].record() + b"\n"
            if len(lines) > _WRITTEN_AT_ONCE:
                yield bytes(lines)
                lines.clear()
                await asyncio.sleep(0)
        if lines:
            yield bytes(lines)
