"""What users did: many events at once."""

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.access import TheCatalog
from app.api.batches import RowProblem, row_problem
from app.api.bodies import json_body
from app.api.schema import READS_JSON, WRITES, problems, takes
from app.signals import UserEvent, events_of

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["users"])

_BATCH_ROWS = 1_000


class EventsRequest(BaseModel):
    """Events, at most 1,000."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"events": [{"event_id": "e1", "user_id": "u42", "item_id": "b1", "type": "buy"}]}
            ]
        },
    )

    events: Annotated[list[object], Field(max_length=_BATCH_ROWS)]


class EventResult(BaseModel):
    """What became of one event.

    `repeated`: the user had the item before, which is now the latest of their history and counts
    no more. `duplicate`: the `event_id` was seen within the last day. `too_old`: the user has 200
    newer items, and nothing changes. `unknown_item`: the catalogue does not hold it.
    """

    event_id: str | None  # null where the row has none that can be read
    status: Literal["counted", "repeated", "duplicate", "too_old", "unknown_item", "rejected"]
    problem: RowProblem | None = None


class EventsResponse(BaseModel):
    """One result per event, in their order."""

    results: list[EventResult]


@router.post(
    "/events",
    operation_id="post_events",
    responses=problems(*READS_JSON, *WRITES),
    openapi_extra=takes(EventsRequest),
)
async def post_events(
    catalog: TheCatalog, batch: Annotated[EventsRequest, Depends(json_body(EventsRequest))]
) -> EventsResponse:
    """Count what users did; a row that is not acceptable does not sink the rest.

    They add to the items' popularity and to what goes together, and make up the user's stored
    history. A batch may be sent again within a day: no event is counted twice. After that, an item
    counts again only for a user who has had 200 others since. Events may come in any order.
    """
    rows = [_row(row, f"/events/{at}") for at, row in enumerate(batch.events)]
    read = [row for row in rows if isinstance(row, UserEvent)]
    tree = await catalog.store.load()
    ids = list({row.item_id for row in read})
    known = {item for item, at in zip(ids, tree.rows_of(ids), strict=True) if at is not None}
    events = events_of([row for row in read if row.item_id in known], time.time_ns() // 1_000)
    outcomes = iter(await catalog.feedback.record(events))
    results = []
    for row in rows:
        if isinstance(row, EventResult):
            results.append(row)
        elif row.item_id in known:
            results.append(EventResult(event_id=row.event_id, status=next(outcomes)))
        else:
            results.append(EventResult(event_id=row.event_id, status="unknown_item"))
    return EventsResponse(results=results)


def _row(row: object, place: str) -> UserEvent | EventResult:
    try:
        return UserEvent.model_validate(row)
    except ValidationError as error:
        given = row.get("event_id") if isinstance(row, dict) else None
        return EventResult(
            event_id=given if isinstance(given, str) else None,
            status="rejected",
            problem=row_problem(error, place),
        )
