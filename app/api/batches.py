"""Batches of items."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from app.api.bodies import json_body
from app.api.dependencies import TheCatalog
from app.api.problems import FieldError, field_errors
from app.api.rates import count_rows
from app.api.schema import READS_JSON, WRITES, each, problems, takes
from app.limits import BATCH_VALUES, TooMuch, check_row
from tree.domains import Domains
from tree.errors import TooManyDomains
from tree.item import Item, StoredId

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["items"])

_BATCH_ROWS = 1_000
_ROW_FLAWS = 10
_LONGEST_ID = 256
INLINE_ROWS = 50  # validating more would block the event loop

_item_id = TypeAdapter(StoredId)


class BatchRequest(BaseModel):
    """Upserts (items) and deletes (ids), together at most 1,000."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"upserts": [{"id": "b1", "title": "Dune"}], "deletes": ["b2"]}]
        },
    )

    upserts: list[object] = Field(default=[], json_schema_extra=each(Item))
    deletes: list[object] = Field(
        default=[],
        json_schema_extra={"items": {"type": "string", "minLength": 1, "maxLength": 256}},
    )

    @model_validator(mode="after")
    def _not_too_many(self) -> "BatchRequest":
        if len(self.upserts) + len(self.deletes) > _BATCH_ROWS:
            raise ValueError(f"at most {_BATCH_ROWS:,} rows at once: import larger files")
        return self


_BODY = json_body(BatchRequest, values=BATCH_VALUES, rows=True)


class RowProblem(BaseModel):
    """Why a row was rejected."""

    code: Literal["invalid_row", "too_many_domains"] = "invalid_row"
    errors: list[FieldError] = Field(description="The first errors.")
    errors_not_shown: int = 0


class BatchResult(BaseModel):
    """The result of one row."""

    id: str | None  # null when the row has no readable one
    status: Literal["created", "updated", "deleted", "absent", "rejected"]
    problem: RowProblem | None = None


class BatchResponse(BaseModel):
    """One result per row: the upserts in their order, then the deletes."""

    results: list[BatchResult]


@router.post(
    "/items:batch",
    operation_id="batch_items",
    responses=problems(*READS_JSON, *WRITES),
    openapi_extra=takes(BatchRequest),
)
async def batch_items(
    request: Request, catalog: TheCatalog, batch: Annotated[BatchRequest, Depends(_BODY)]
) -> BatchResponse:
    """Upsert and delete items in one step; an invalid row does not fail the others.

    Rows take effect in order, upserts before deletes: of two rows with the same id, the later one
    counts. For the rate limit of a key, every 100 rows or part of them count as one request.
    """
    await count_rows(request, len(batch.upserts) + len(batch.deletes))
    if len(batch.upserts) <= INLINE_ROWS:
        rows = _read(batch)
    else:
        rows = await asyncio.to_thread(_read, batch)
    rows = list(_admitted(rows, Domains(await catalog.store.load())))
    last = {_id_of(row): row for row in rows if not isinstance(row, BatchResult)}
    puts = [row for row in last.values() if isinstance(row, Item)]
    deletes = [row for row in last.values() if isinstance(row, str)]
    outcome = await catalog.apply_batch(puts, deletes)
    held = {row: outcome[row] for row in deletes} | {row.id: not outcome[row.id] for row in puts}
    return BatchResponse(results=[*_results(rows, held)])


_Row = Item | str | BatchResult  # an upsert, a delete, or one that was rejected


def _read(batch: BatchRequest) -> list[_Row]:
    return [
        *(_upsert(row, f"/upserts/{at}") for at, row in enumerate(batch.upserts)),
        *(_delete(row, f"/deletes/{at}") for at, row in enumerate(batch.deletes)),
    ]


def _upsert(row: object, place: str) -> _Row:
    try:
        check_row(row)
        return Item.model_validate(row)
    except (ValidationError, TooMuch) as error:
        given = row.get("id") if isinstance(row, dict) else None
        return _rejected(given, error, place)


def _admitted(rows: Sequence[_Row], domains: Domains) -> Iterator[_Row]:
    """The rows; those with too many domains are rejected. Upserts come first."""
    for at, row in enumerate(rows):
        if not isinstance(row, Item):
            yield row
            continue
        try:
            domains.check(row.domain)
        except TooManyDomains as error:
            flaw = FieldError(source="body", pointer=f"/upserts/{at}/domain", message=str(error))
            problem = RowProblem(code="too_many_domains", errors=[flaw])
            yield BatchResult(id=row.id, status="rejected", problem=problem)
        else:
            yield row


def _delete(row: object, place: str) -> _Row:
    try:
        return _item_id.validate_python(row, strict=True)
    except ValidationError as error:
        return _rejected(row, error, place)


def _rejected(given: object, error: ValidationError | TooMuch, place: str) -> BatchResult:
    return BatchResult(id=readable_id(given), status="rejected", problem=row_problem(error, place))


def readable_id(given: object) -> str | None:
    """The id of a rejected row, if it has a readable one."""
    return given if isinstance(given, str) and len(given) <= _LONGEST_ID else None


def row_problem(error: ValidationError | TooMuch, place: str) -> RowProblem:
    """The problem of the row at `place`, a JSON pointer."""
    if isinstance(error, TooMuch):
        return RowProblem(errors=[FieldError(source="body", pointer=place, message=str(error))])
    found = error.errors(include_url=False, include_input=False, include_context=False)
    flaws = field_errors(found[:_ROW_FLAWS], "body")
    placed = [flaw.model_copy(update={"pointer": place + flaw.pointer}) for flaw in flaws]
    return RowProblem(errors=placed, errors_not_shown=len(found) - len(placed))


def _id_of(row: Item | str) -> str:
    return row.id if isinstance(row, Item) else row


def _results(rows: Sequence[_Row], held: dict[str, bool]) -> Iterator[BatchResult]:
    """The result of each row, given whether each item existed before (`held`)."""
    for row in rows:
        match row:
            case Item():
                status: Literal["created", "updated"] = "updated" if held[row.id] else "created"
                held[row.id] = True
                yield BatchResult(id=row.id, status=status)
            case str():
                yield BatchResult(id=row, status="deleted" if held[row] else "absent")
                held[row] = False
            case BatchResult():
                yield row
