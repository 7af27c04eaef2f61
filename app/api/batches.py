"""Many items at once."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from app.api.access import TheCatalog
from app.api.bodies import json_body
from app.api.problems import Flaw, flaws_of
from app.api.schema import READS_JSON, WRITES, problems, takes
from tree.item import Item, ItemId

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["items"])

_BATCH_ROWS = 1_000
_INLINE_ROWS = 50  # reading more would hold up the event loop

_item_id = TypeAdapter(ItemId)


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

    upserts: list[object] = []
    deletes: list[object] = []

    @model_validator(mode="after")
    def _not_too_many(self) -> "BatchRequest":
        if len(self.upserts) + len(self.deletes) > _BATCH_ROWS:
            raise ValueError(f"at most {_BATCH_ROWS:,} rows at once: import larger files")
        return self


class RowProblem(BaseModel):
    """Why a row was rejected."""

    code: Literal["invalid_row"] = "invalid_row"
    errors: list[Flaw]


class BatchResult(BaseModel):
    """What became of one row."""

    id: str | None  # null where the row has none that can be read
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
    catalog: TheCatalog, batch: Annotated[BatchRequest, Depends(json_body(BatchRequest))]
) -> BatchResponse:
    """Upserts and deletes in one step; a row that is not acceptable does not sink the rest.

    Rows take effect in order, upserts before deletes: of two rows with one id the later stays.
    """
    if len(batch.upserts) <= _INLINE_ROWS:
        rows = _read(batch)
    else:
        rows = await asyncio.to_thread(_read, batch)
    last = {_id_of(row): row for row in rows if not isinstance(row, BatchResult)}
    puts = [row for row in last.values() if isinstance(row, Item)]
    deletes = [row for row in last.values() if isinstance(row, str)]
    outcome = await catalog.apply_batch(puts, deletes)
    held = {row: outcome[row] for row in deletes} | {row.id: not outcome[row.id] for row in puts}
    return BatchResponse(results=[*_replayed(rows, held)])


_Row = Item | str | BatchResult  # an upsert, a delete, or one that was rejected


def _read(batch: BatchRequest) -> list[_Row]:
    return [
        *(_upsert(row, f"/upserts/{at}") for at, row in enumerate(batch.upserts)),
        *(_delete(row, f"/deletes/{at}") for at, row in enumerate(batch.deletes)),
    ]


def _upsert(row: object, place: str) -> _Row:
    try:
        return Item.model_validate(row)
    except ValidationError as error:
        given = row.get("id") if isinstance(row, dict) else None
        return _rejected(given, error, place)


def _delete(row: object, place: str) -> _Row:
    try:
        return _item_id.validate_python(row, strict=True)
    except ValidationError as error:
        return _rejected(row, error, place)


def _rejected(given: object, error: ValidationError, place: str) -> BatchResult:
    return BatchResult(
        id=given if isinstance(given, str) else None,
        status="rejected",
        problem=row_problem(error, place),
    )


def row_problem(error: ValidationError, place: str) -> RowProblem:
    """What is wrong with the row at `place`, a JSON pointer."""
    flaws = flaws_of(error.errors(include_url=False, include_input=False), "body")
    placed = [flaw.model_copy(update={"pointer": place + flaw.pointer}) for flaw in flaws]
    return RowProblem(errors=placed)


def _id_of(row: Item | str) -> str:
    return row.id if isinstance(row, Item) else row


def _replayed(rows: Sequence[_Row], held: dict[str, bool]) -> Iterator[BatchResult]:
    """What each row did, from which items were `held` before the first of them."""
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
