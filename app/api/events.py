"""Events: what users did."""

import asyncio
import time
from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.batches import INLINE_ROWS, RowProblem, readable_id, row_problem
from app.api.bodies import json_body
from app.api.dependencies import TheCatalog
from app.api.metrics import TheMetrics
from app.api.rates import count_rows
from app.api.schema import READS_JSON, WRITES, each, problems, takes
from app.event_types import EventRules
from app.limits import EVENTS_VALUES, TooMuch, check_fields
from app.signals import UserEvent, events_of
from app.storage.attribution import Attributed
from app.storage.feedback import Outcome

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["users"])

_BATCH_ROWS = 1_000

_Status: TypeAlias = Outcome | Literal["unknown_item"]


class EventsRequest(BaseModel):
    """Events, at most 1,000."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "user_id": "u42",
                            "item_id": "b1",
                            "type": "purchase",
                            "at": "2026-01-31T12:00:00Z",
                        }
                    ]
                }
            ]
        },
    )

    events: Annotated[
        list[object], Field(max_length=_BATCH_ROWS, json_schema_extra=each(UserEvent))
    ]


_BODY = json_body(EventsRequest, values=EVENTS_VALUES, rows=True)


class EventResult(BaseModel):
    """The result of one event.

    `repeated`: the user had the item before; it moves to the end of the history and is not counted
    again. `duplicate`: the `event_id` was seen within the last day. `too_old`: the user has 200
    newer items; nothing changes. `noted`: it says nothing for the item, like an impression, or
    speaks against it. `over_limit`: as many events of this user have counted today as may; it is in
    the history, and does not count. `unknown_item`: the item is not in the catalogue; the event may
    still count for the answer that it names.
    """

    event_id: str | None  # null when the row has none, or no readable one
    status: _Status | Literal["rejected"]
    attribution: Attributed | None = Field(
        default=None,
        description="What became of the `recommendation_id`. attributed: the event counts for "
        "that answer; repeated: it did before; late: the answer is not kept any more; unknown: "
        "there was none; not_shown: the item was not in it. null: no metric counts this event.",
    )
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
    request: Request,
    catalog: TheCatalog,
    metrics: TheMetrics,
    batch: Annotated[EventsRequest, Depends(_BODY)],
) -> EventsResponse:
    """Count events; an invalid row does not fail the others.

    Events add to the popularity and co-occurrence of items, and to the stored history of users. A
    batch may be sent again within a day: no event is counted twice. Later, an item counts again
    only for a user who has had 200 others since. Events may arrive in any order. Impressions,
    clicks, views and conversions with a `recommendation_id` count for that recommendation, each
    once: see `GET …/metrics/recommendations`.

    For the rate limit of a key, every 100 events or part of them count as one request.
    """
    await count_rows(request, len(batch.events))
    rules = catalog.event_rules
    if len(batch.events) <= INLINE_ROWS:
        rows = _read(batch, rules)
    else:
        rows = await asyncio.to_thread(_read, batch, rules)
    read = [row for row in rows if isinstance(row, UserEvent)]
    tree = await catalog.store.load()
    ids = list({row.item_id for row in read})
    known = {item for item, at in zip(ids, tree.rows_of(ids), strict=True) if at is not None}
    events = events_of(read, time.time_ns() // 1_000)
    # First, as it knows by itself what it has counted: a batch that fails may be sent again. What
    # came of an item that was shown counts, also when the catalogue does not hold it any more.
    attributed = await catalog.attributor.attribute(events, rules)
    kept = [event for event in events if event.item_id in known]
    recorded = iter(await catalog.feedback.record(kept, rules))
    outcomes: list[_Status] = [
        next(recorded) if event.item_id in known else "unknown_item" for event in events
    ]
    metrics.counted(catalog.name, rules, events, outcomes, attributed)
    counted = iter(zip(outcomes, attributed, strict=True))
    return EventsResponse(results=[_result(row, counted) for row in rows])


def _result(
    row: UserEvent | EventResult, counted: Iterator[tuple[_Status, Attributed | None]]
) -> EventResult:
    if isinstance(row, EventResult):
        return row
    status, attribution = next(counted)
    return EventResult(event_id=row.event_id, status=status, attribution=attribution)


def _read(batch: EventsRequest, rules: EventRules) -> list[UserEvent | EventResult]:
    return [_row(row, f"/events/{at}", rules) for at, row in enumerate(batch.events)]


def _row(row: object, place: str, rules: EventRules) -> UserEvent | EventResult:
    try:
        check_fields(row)
        return UserEvent.model_validate(row, context=rules)
    except (ValidationError, TooMuch) as error:
        given = row.get("event_id") if isinstance(row, dict) else None
        return EventResult(
            event_id=readable_id(given),
            status="rejected",
            problem=row_problem(error, place),
        )
