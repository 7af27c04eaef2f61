"""Keys: create, list, revoke. app/api/scopes.py defines what a key allows."""

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import json_body
from app.api.dependencies import TheKeyring
from app.api.problems import ApiError
from app.api.schema import READS_JSON, problems, takes
from app.keys import KeyRequest, KeyView, NewKey, TooManyKeys, new_key

router = APIRouter(prefix="/v1/keys", tags=["keys"])

_ID = re.compile(r"ulr_[0-9a-f]{12}")


class KeyQuery(BaseModel):
    """Which keys to list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?/ulr_[0-9a-f]{12}$",
        description="`next_cursor` of the page before.",
    )
    limit: int = Field(default=100, ge=1, le=1_000)


class KeyList(BaseModel):
    """Keys, the oldest first; `next_cursor` is null on the last page."""

    keys: list[KeyView]
    next_cursor: str | None


@router.get("", operation_id="list_keys", responses=problems())
async def list_keys(keyring: TheKeyring, query: Annotated[KeyQuery, Query()]) -> KeyList:
    """List all keys except the root key, including expired ones; their secrets are not shown."""
    after = _place(query.cursor) if query.cursor else (float("-inf"), "")
    rest = [key for key in await keyring.all() if (key.created_at, key.id) > after]
    page = rest[: query.limit]
    end = f"{page[-1].created_at!r}/{page[-1].id}" if len(rest) > len(page) else None
    return KeyList(keys=[KeyView.of(key) for key in page], next_cursor=end)


@router.post(
    "",
    operation_id="create_key",
    status_code=HTTPStatus.CREATED,
    responses=problems(*READS_JSON, HTTPStatus.CONFLICT),
    openapi_extra=takes(KeyRequest),
)
async def create_key(
    request: Request,
    response: Response,
    keyring: TheKeyring,
    wanted: Annotated[KeyRequest, Depends(json_body(KeyRequest))],
) -> NewKey:
    """Create a key. Only this answer shows it: the service stores its hash.

    409 `keys_off` on a service without a root key: the key would have no effect until a root key
    is set.
    """
    if not keyring.enabled:
        detail = "this service was started without keys: set UNILLMREC_ADMIN_KEY first"
        raise ApiError(HTTPStatus.CONFLICT, "keys_off", detail)
    key, token = new_key(wanted)
    view = KeyView.of(key)
    try:
        await keyring.add(key)
    except TooManyKeys as error:
        raise ApiError(HTTPStatus.CONFLICT, "too_many_keys", str(error)) from error
    request.state.audited["target"] |= view.target()
    response.headers["Cache-Control"] = "no-store"
    return NewKey(**view.model_dump(), key=token)


@router.delete(
    "/{key_id:segment}",
    operation_id="revoke_key",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(),
)
async def revoke_key(keyring: TheKeyring, key_id: str) -> Response:
    """Revoke a key by its id. Every process refuses it within a second.

    A running export or stream with this key breaks off.
    """
    if not _ID.fullmatch(key_id) or not await keyring.revoke(key_id):
        detail = "there is no key with this id, or no longer: GET /v1/keys lists them"
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_key_id", detail)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _place(cursor: str) -> tuple[float, str]:
    created_at, _, key_id = cursor.partition("/")
    return float(created_at), key_id
