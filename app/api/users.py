"""Users: history, profile and attributes; erasure."""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from app.api.batches import RowProblem, readable_id, row_problem
from app.api.bodies import json_body
from app.api.dependencies import TheCatalog
from app.api.problems import ApiError
from app.api.rates import count_rows
from app.api.schema import READS_JSON, WRITES, id_in_path, problems, takes
from app.limits import USER_VALUES
from app.storage.feedback import HISTORY, User, Visit, microseconds
from tree.item import Id, StoredId

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["users"])

_ERASED_ROWS = 1_000
_ERASED_AT_ONCE = 32

_user_id = TypeAdapter(StoredId)

_Id = Annotated[StoredId, id_in_path("users")]
_NewId = Annotated[Id, id_in_path("users")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Value = Annotated[str, StringConstraints(max_length=2_000)] | int | Annotated[
    float, Field(allow_inf_nan=False)
] | bool  # fmt: skip


class UserContent(BaseModel):
    """The stored data of a user."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"history": ["b1", "b7"], "profile": "likes slow science fiction"}]
        },
    )

    history: Annotated[list[Id], Field(max_length=10_000, fail_fast=True)] = Field(
        default=[],
        description=f"Item ids, oldest first; the newest {HISTORY} are stored. Unlike events, they "
        "do not count for items.",
    )
    profile: Annotated[str, StringConstraints(strip_whitespace=True, max_length=4_000)] = Field(
        default="", description="A sentence that is used when a request has none."
    )
    attributes: Annotated[dict[_Name, _Value], Field(max_length=64)] = Field(
        default={}, description="Stored and returned; recommendations do not use them."
    )


class EraseRequest(BaseModel):
    """Users to erase, at most 1,000."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"user_ids": ["u42"]}]},
    )

    user_ids: Annotated[list[object], Field(max_length=_ERASED_ROWS)]


_CONTENT = json_body(UserContent, values=USER_VALUES)
_ERASED = json_body(EraseRequest, values=USER_VALUES)


class EraseResult(BaseModel):
    """The result of one row; `erased` also when nothing was stored of the user."""

    user_id: str | None  # null when the row is not a text
    status: Literal["erased", "rejected"]
    problem: RowProblem | None = None


class EraseResponse(BaseModel):
    """One result per row, in their order."""

    results: list[EraseResult]


class StoredVisit(BaseModel):
    """An item of a stored history; `type` is the strongest type of event of the user with it."""

    item_id: str
    at: datetime
    type: str


class StoredUser(BaseModel):
    """The stored data of a user; the history oldest first, each item once."""

    user_id: str
    history: list[StoredVisit]
    profile: str
    attributes: dict[str, str | int | float | bool]


@router.put(
    "/users/{user_id:path}",
    operation_id="put_user",
    responses=problems(*READS_JSON, *WRITES),
    openapi_extra=takes(UserContent),
)
async def put_user(
    catalog: TheCatalog,
    user_id: _NewId,
    content: Annotated[UserContent, Depends(_CONTENT)],
) -> StoredUser:
    """Store a user, replacing the stored one; later events add to the history.

    Recommendations for the `user_id` use the stored history and profile when the request has none.
    A user without an event or update for `UNILLMREC_USER_TTL_S` is removed.
    """
    last = {item_id: place for place, item_id in enumerate(content.history)}
    newest = sorted(last, key=last.__getitem__)[-HISTORY:]
    now = microseconds(datetime.now(UTC)) - len(newest)
    history = tuple(Visit(item_id, now + place, weight=0) for place, item_id in enumerate(newest))
    user = User(history, content.profile, content.attributes)
    await catalog.put_user(user_id, user)
    return _shown(user_id, user)


@router.get("/users/{user_id:path}", operation_id="get_user", responses=problems())
async def get_user(catalog: TheCatalog, user_id: _Id) -> StoredUser:
    """Get the stored data of a user."""
    user = await catalog.feedback.user(user_id)
    if user is None:
        detail = f"nothing is stored of a user {user_id!r}, or no longer"
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_user", detail)
    return _shown(user_id, user)


@router.delete(
    "/users/{user_id:path}",
    operation_id="delete_user",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(*WRITES),
)
async def delete_user(catalog: TheCatalog, user_id: _Id) -> Response:
    """Erase a user: history, profile and attributes, traces and cached profiles; 204 also if none.

    Counts of items stay: they name no user. So an event of this user that is sent again after more
    than a day counts again.
    """
    await catalog.erase_user(user_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post(
    "/users:erase",
    operation_id="erase_users",
    responses=problems(*READS_JSON, *WRITES),
    openapi_extra=takes(EraseRequest),
)
async def erase_users(
    request: Request,
    catalog: TheCatalog,
    erase: Annotated[EraseRequest, Depends(_ERASED)],
) -> EraseResponse:
    """Erase many users, like `DELETE` for each; it may be sent again.

    Accepts every stored id, also ids that a path cannot contain. For the rate limit of a key, every
    100 ids or part of them count as one request.
    """
    await count_rows(request, len(erase.user_ids))
    rows = [_row(row, f"/user_ids/{at}") for at, row in enumerate(erase.user_ids)]
    ids = list({row.user_id for row in rows if row.status == "erased" and row.user_id is not None})
    if not ids:
        request.state.audited = None  # nothing was done
    for start in range(0, len(ids), _ERASED_AT_ONCE):
        await asyncio.gather(*map(catalog.erase_user, ids[start : start + _ERASED_AT_ONCE]))
    return EraseResponse(results=rows)


def _row(given: object, place: str) -> EraseResult:
    user_id = readable_id(given)
    try:
        _user_id.validate_python(given, strict=True)
    except ValidationError as error:
        problem = row_problem(error, place)
        return EraseResult(user_id=user_id, status="rejected", problem=problem)
    return EraseResult(user_id=user_id, status="erased")


def _shown(user_id: str, user: User) -> StoredUser:
    return StoredUser(
        user_id=user_id,
        history=[
            StoredVisit(
                item_id=visit.item_id,
                at=datetime.fromtimestamp(visit.at / 1_000_000, UTC),
                type=visit.type,
            )
            for visit in user.history
        ],
        profile=user.profile,
        attributes=user.attributes,
    )
