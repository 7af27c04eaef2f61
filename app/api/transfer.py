"""Whole catalogues in and out, as JSON Lines."""

from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import TheCatalog, access_of
from app.api.bodies import expect_type, spool
from app.api.problems import Refused
from app.api.schema import problems
from app.catalogs import Catalog
from app.curate import ImportParams
from app.jobs import Job

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
_LINES = {"schema": {"type": "string", "format": "binary"}}


class ImportQuery(BaseModel):
    """How to import."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_error: Literal["skip", "abort"] = Field(
        default="skip", description="Leave bad lines out, or import nothing if there is one."
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
        "requestBody": {"required": True, "content": dict.fromkeys(_IMPORT_TYPES, _LINES)}
    },
)
async def import_items(
    request: Request,
    response: Response,
    catalog: TheCatalog,
    query: Annotated[ImportQuery, Query()],
) -> Job:
    """Create or replace items from JSON Lines, one item a line, gzipped or not.

    The upload is kept on disk; a job reads it. Its `result` tells how many lines were accepted
    and what is wrong with the others. Of two lines with one id the later stays.
    """
    expect_type(request, _IMPORT_TYPES)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        detail = f"the content encoding is {encoding!r}: send gzip, or no encoding"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
    path = await spool(request, access_of(request).settings.uploads)
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
    """Every item as JSON Lines, in the order of the tree; `imports` takes it back.

    Items that wait for their place in the tree come last. A connection that breaks off means
    that the export is not whole.
    """
    lines = exported(catalog)
    first = await anext(lines, b"")  # the store's refusals while there still is a status to send
    return StreamingResponse(_from(first, lines), media_type=JSONL)


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def exported(catalog: Catalog) -> AsyncIterator[bytes]:
    """Every item of a catalogue as whole lines of JSON, some hundred at once."""
    waiting = {item_id async for ids in catalog.store.staged() for item_id in ids}
    tree = await catalog.store.load()  # after that, so that nothing slips between the two
    for source in (tree.item_ids(), (one for one in sorted(waiting) if one not in tree)):
        async for chunk in _records(catalog, source):
            yield chunk


async def exported_records(catalog: Catalog) -> AsyncIterator[bytes]:
    """Every record that can be read, whether or not the tree can be loaded, as `exported` does."""
    async for ids in catalog.store.recorded():
        async for chunk in _records(catalog, iter(ids)):
            yield chunk


async def _records(catalog: Catalog, ids: Iterator[str]) -> AsyncIterator[bytes]:
    while batch := list(islice(ids, _EXPORTED_AT_ONCE)):
        records = await catalog.store.items(batch)
        lines = [records[item_id].record() for item_id in batch if item_id in records]
        if lines:
            yield b"\n".join(lines) + b"\n"
