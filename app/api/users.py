"""What is stored of a user."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.access import TheCatalog
from app.api.bodies import json_body
from app.api.problems import Refused
from app.api.schema import READS_JSON, WRITES, problems, takes
from app.signals import UserId
from tree.item import ItemId
from tree.store.feedback import HISTORY, User, Visit, microseconds

router = APIRouter(prefix="/v1/catalogs/{catalog}", tags=["users"])

_Id = Annotated[UserId, Path(description='Everything after "users/"; "/" is part of the id.')]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Value = Annotated[str, StringConstraints(max_length=2_000)] | int | Annotated[
    float, Field(allow_inf_nan=False)
] | bool  # fmt: skip


class UserContent(BaseModel):
    """A user as a caller knows them."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"history": ["b1", "b7"], "profile": "likes slow science fiction"}]
        },
    )

    history: Annotated[list[ItemId], Field(max_length=10_000)] = Field(
        default=[],
        description=f"Item ids, oldest first; the newest {HISTORY} stay. They count for no item: "
        "events do.",
    )
    profile: Annotated[str, StringConstraints(strip_whitespace=True, max_length=4_000)] = Field(
        default="", description="A sentence that stands in where a request has none."
    )
    attributes: Annotated[dict[_Name, _Value], Field(max_length=64)] = Field(
        default={}, description="Kept and given back; they decide nothing."
    )


class StoredVisit(BaseModel):
    """An item of a stored history."""

    item_id: str
    at: datetime


class StoredUser(BaseModel):
    """What is stored of a user; the history oldest first, each item once."""

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
    user_id: _Id,
    content: Annotated[UserContent, Depends(json_body(UserContent))],
) -> StoredUser:
    """Store a user in place of what was stored; events go on from there.

    Recommendations for the `user_id` use the history and the profile where they bring none. A user
    of whom nothing is heard for `UNILLMREC_USER_TTL_S` is forgotten.
    """
    last = {item_id: place for place, item_id in enumerate(content.history)}
    newest = sorted(last, key=last.__getitem__)[-HISTORY:]
    now = microseconds(datetime.now(UTC)) - len(newest)
    history = tuple(Visit(item_id, now + place) for place, item_id in enumerate(newest))
    user = User(history, content.profile, content.attributes)
    await catalog.put_user(user_id, user)
    return _shown(user_id, user)


@router.get("/users/{user_id:path}", operation_id="get_user", responses=problems())
async def get_user(catalog: TheCatalog, user_id: _Id) -> StoredUser:
    """What is stored of a user."""
    user = await catalog.feedback.user(user_id)
    if user is None:
        detail = f"nothing is stored of a user {user_id!r}, or not any more"
        raise Refused(HTTPStatus.NOT_FOUND, "unknown_user", detail)
    return _shown(user_id, user)


@router.delete(
    "/users/{user_id:path}",
    operation_id="delete_user",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(*WRITES),
)
async def delete_user(catalog: TheCatalog, user_id: _Id) -> Response:
    """Erase a user: history, profile and attributes, traces and cached profiles; 204 also if none.

    The counts that their events added to stay: they name nobody. So an event of theirs that is
    sent again under an id of more than a day ago counts again.
    """
    await catalog.erase_user(user_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _shown(user_id: str, user: User) -> StoredUser:
    return StoredUser(
        user_id=user_id,
        history=[
            StoredVisit(item_id=visit.item_id, at=datetime.fromtimestamp(visit.at / 1_000_000, UTC))
            for visit in user.history
        ],
        profile=user.profile,
        attributes=user.attributes,
    )
