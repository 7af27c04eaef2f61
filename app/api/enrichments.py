"""Lines of items: one says in plain words what an item is, for whom and what for."""

import asyncio
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Literal, TypeAlias

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.api.batches import INLINE_ROWS, RowProblem, readable_id, row_problem
from app.api.bodies import json_body
from app.api.dependencies import TheCatalog
from app.api.items import EnrichmentView, read_item
from app.api.problems import ApiError, FieldError, invalid, unknown_item
from app.api.rates import count_rows
from app.api.schema import READS_JSON, WRITES, id_in_path, problems, takes
from app.curate import LineResult
from app.limits import BATCH_VALUES, ITEM_VALUES
from tree.item import StoredId
from tree.item_line import LINE_CHARS, InvalidLine, ItemLine, line_text

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["items"])

_BATCH_ROWS = 1_000

_Id = Annotated[StoredId, id_in_path("items")]


class EnrichmentContent(BaseModel):
    """A line that was written elsewhere."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"text": "Waterproof boots for long walks; goes with wool socks."}]
        },
    )

    text: str = Field(
        description=f"What the item is in plain words, for whom and what for: one line of 1 to "
        f"{LINE_CHARS} characters, without markup."
    )


class EnrichmentRow(BaseModel):
    """The line of one item."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    item_id: StoredId
    text: str | None = Field(description="As in `PUT`; null removes the line.")


class EnrichmentBatch(BaseModel):
    """Lines of at most 1,000 items: objects with `item_id` and `text`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"lines": [{"item_id": "b1", "text": "Boots for long walks in rain."}]}]
        },
    )

    lines: Annotated[list[object], Field(max_length=_BATCH_ROWS)]


_Status: TypeAlias = Literal["set", "removed", "unchanged", "unknown_item", "rejected"]
_STATUS: Mapping[LineResult, _Status] = {
    "set": "set",
    "removed": "removed",
    "unchanged": "unchanged",
    "unknown": "unknown_item",
}


class EnrichmentResult(BaseModel):
    """The result of one row."""

    item_id: str | None  # null when the row has no readable one
    status: _Status
    problem: RowProblem | None = None


class EnrichmentResults(BaseModel):
    """One result per row, in their order."""

    results: list[EnrichmentResult]


_CONTENT = json_body(EnrichmentContent, values=ITEM_VALUES)
_BATCH = json_body(EnrichmentBatch, values=BATCH_VALUES, rows=True)
_row = TypeAdapter(EnrichmentRow)


@router.put(
    "/items/{item_id:path}/enrichment",
    operation_id="put_enrichment",
    responses=problems(*READS_JSON, *WRITES),
    openapi_extra=takes(EnrichmentContent),
)
async def put_enrichment(
    catalog: TheCatalog, item_id: _Id, content: Annotated[EnrichmentContent, Depends(_CONTENT)]
) -> EnrichmentView:
    """Set the line of an item; the next request can find the item by it.

    The line is yours: it stays when the item is put again, also with another text, until you
    replace or remove it.
    """
    try:
        line = ItemLine(line_text(content.text))
    except InvalidLine as error:
        flaw = FieldError(source="body", pointer="/text", message=f"the line {error}")
        raise invalid([flaw]) from error
    if (await catalog.curator.set_lines({item_id: line}))[item_id] == "unknown":
        raise unknown_item(item_id)
    return EnrichmentView(item_id=item_id, text=line.text, source=line.source)


@router.get("/items/{item_id:path}/enrichment", operation_id="get_enrichment", responses=problems())
async def get_enrichment(catalog: TheCatalog, item_id: _Id) -> EnrichmentView:
    """Get the line of an item, and who wrote it. 404 `no_enrichment` when it has none."""
    found = EnrichmentView.of(await read_item(catalog, item_id))
    if found is None:
        detail = f"item {item_id!r} has no line"
        raise ApiError(HTTPStatus.NOT_FOUND, "no_enrichment", detail)
    return found


@router.delete(
    "/items/{item_id:path}/enrichment",
    operation_id="delete_enrichment",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(*WRITES),
)
async def delete_enrichment(catalog: TheCatalog, item_id: _Id) -> Response:
    """Remove the line of an item, which is found by its own text again. 204 also without one."""
    if (await catalog.curator.set_lines({item_id: None}))[item_id] == "unknown":
        raise unknown_item(item_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post(
    "/enrichments:batch",
    operation_id="batch_enrichments",
    responses=problems(*READS_JSON, *WRITES),
    openapi_extra=takes(EnrichmentBatch),
)
async def batch_enrichments(
    request: Request, catalog: TheCatalog, batch: Annotated[EnrichmentBatch, Depends(_BATCH)]
) -> EnrichmentResults:
    """Set or remove the lines of many items; an invalid row does not fail the others.

    Of two rows of the same item, the later one counts. For the rate limit of a key, every 100 rows
    or part of them count as one request. After the lines of most items, rebuild the tree: its
    vectors then learn their words, too.
    """
    await count_rows(request, len(batch.lines))
    if len(batch.lines) <= INLINE_ROWS:
        rows = list(_read(batch.lines))
    else:
        rows = await asyncio.to_thread(lambda: list(_read(batch.lines)))
    lines = dict(row for row in rows if isinstance(row, tuple))
    done = await catalog.curator.set_lines(lines)
    return EnrichmentResults(
        results=[
            row
            if isinstance(row, EnrichmentResult)
            else EnrichmentResult(item_id=row[0], status=_STATUS[done[row[0]]])
            for row in rows
        ]
    )


def _read(given: list[object]) -> Iterator[tuple[str, ItemLine | None] | EnrichmentResult]:
    """Each row, or why it is rejected."""
    for at, one in enumerate(given):
        item_id = readable_id(one.get("item_id")) if isinstance(one, dict) else None
        try:
            row = _row.validate_python(one)
            line = None if row.text is None else ItemLine(line_text(row.text))
        except ValidationError as error:
            problem = row_problem(error, f"/lines/{at}")
        except InvalidLine as error:
            flaw = FieldError(
                source="body", pointer=f"/lines/{at}/text", message=f"the line {error}"
            )
            problem = RowProblem(errors=[flaw])
        else:
            yield row.item_id, line
            continue
        yield EnrichmentResult(item_id=item_id, status="rejected", problem=problem)
