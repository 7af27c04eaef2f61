"""Request bodies: read within a limit, and rejected when the route does not accept them.

They are not FastAPI's body parameters: pydantic parses JSON from the bytes, which is faster,
applies strict mode as for JSON, and rejects NaN, lone surrogates, broken UTF-8 and nesting deeper
than 200 levels as unparsable.
"""

import asyncio
import errno
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar, cast

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from app.api.body_memory import in_time, too_much_held
from app.api.dependencies import dependencies_of
from app.api.problems import ApiError, FieldError, field_errors, invalid
from app.curate.imports.uploads import new_upload
from app.curate.threads import UPLOADS
from app.limits import (
    ITEM_VALUES,
    SETTINGS_VALUES,
    SMALL_BYTES,
    TooMuch,
    check_fields,
    check_text,
)

JSON = ("application/json",)
MERGE_PATCH = ("application/merge-patch+json", *JSON)

# Read after a body has become too long: a client that is cut off while it sends sees a reset
# connection instead of the answer.
_DISCARDED_BYTES = 16_777_216
_QUOTED = 100  # characters of a header

_Model = TypeVar("_Model", bound=BaseModel)
_Result = TypeVar("_Result")


def json_body(
    model: type[_Model],
    types: Collection[str] = JSON,
    *,
    values: int = SETTINGS_VALUES,
    rows: bool = False,
) -> Callable[[Request], Awaitable[_Model]]:
    """A dependency: the body as `model`, with at most `values` values. Raises ApiError.

    With `rows`, the route checks the fields of each row, so a bad row does not fail the others.
    """
    parse = partial(_parsed, model, rows=rows)

    async def read(request: Request) -> _Model:
        async with _whole(request, types) as body:
            request.state.arrived = time.monotonic()
            return await _read(parse, body, values)

    return read


def arrival_of(request: Request) -> float:
    """When the body of a `json_body` was complete, by `time.monotonic`."""
    return cast(float, request.state.arrived)


def optional_json_body(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """A dependency: the body as `model`; a missing body gives its defaults."""

    async def read(request: Request) -> _Model:
        async with _whole(request, (*JSON, "")) as body:
            if body and not media_type(request):
                raise _wrong_type(request, JSON)
            return await _read(partial(_parsed, model), body or b"{}", SETTINGS_VALUES)

    return read


async def json_object(request: Request) -> dict[str, object]:
    """A dependency: the body as a JSON object, the fields of an item. Raises ApiError."""
    async with _whole(request, JSON) as body:
        return await _read(_object, body, ITEM_VALUES)


async def merge_patch(request: Request) -> dict[str, object]:
    """A dependency: the body as a JSON merge patch (RFC 7396) of an item. Raises ApiError."""
    async with _whole(request, MERGE_PATCH) as body:
        return await _read(_object, body, ITEM_VALUES)


def merged(target: object, patch: Mapping[str, object]) -> dict[str, object]:
    """`target` with `patch` applied, RFC 7396 §2: objects are merged, null removes a member."""
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict):
            found[name] = merged(found.get(name), value)
        else:
            found[name] = value
    return found


async def spool(request: Request, folder: Path) -> Path:
    """The file in `folder` with the body; the file is removed when the body is rejected."""
    limit = dependencies_of(request).settings.max_import_bytes
    try:
        with new_upload(folder) as upload:
            async for piece in _pieces(request, limit):
                await UPLOADS.run(upload.file.write, piece)
            await UPLOADS.run(upload.file.flush)
            return upload.finish()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        detail = "the data folder is full: make room, or upload less at once"
        raise ApiError(HTTPStatus.INSUFFICIENT_STORAGE, "disk_full", detail) from error


def expect_type(request: Request, types: Collection[str]) -> None:
    """Raises ApiError, 415, unless the content type is one of `types`.

    A missing type is rejected too: without a type, or with that of an HTML form, any web page
    could write to a service on the machine of its visitor.
    """
    if media_type(request) not in types:
        raise _wrong_type(request, types)


def media_type(request: Request) -> str:
    """The content type without its parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def _whole(request: Request, types: Collection[str]) -> AsyncIterator[bytes]:
    """The body, which uses the body memory until the end of the block. Raises ApiError."""
    expect_type(request, types)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        detail = "only imports may be compressed: send this body as it is"
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
    limit = dependencies_of(request).settings.max_body_bytes
    with dependencies_of(request).body_memory.share() as share:
        pieces = [piece async for piece in in_time(_pieces(request, limit)) if share.holds(piece)]
        if share.refused:
            raise too_much_held()
        body = b"".join(pieces)
        pieces.clear()
        yield body


async def _pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises ApiError, 413, when it is longer than `limit`."""
    refused = _stated_length(request) > limit
    received = 0
    async for piece in request.stream():
        received += len(piece)
        refused = refused or received > limit
        if not refused:
            yield piece
        elif received > limit + _DISCARDED_BYTES:
            break
    if refused:
        raise ApiError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body_too_large",
            f"the body is larger than {limit:,} bytes: send less at once",
            headers={"Connection": "close"},  # the client may still send more
        )


def _stated_length(request: Request) -> int:
    """The Content-Length. Raises ApiError, 400; servers pass on any number of leading zeros."""
    length = request.headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,19}", length):
        detail = "the Content-Length is not a number of at most 19 digits"
        raise ApiError(HTTPStatus.BAD_REQUEST, "malformed_request", detail)
    return int(length)


async def _read(parse: Callable[[bytes], _Result], body: bytes, values: int) -> _Result:
    """What `parse` returns for a body. A long body is checked first, and parsed in a thread."""
    try:
        if len(body) <= SMALL_BYTES:
            return parse(body)
        return await asyncio.to_thread(_checked, parse, body, values)
    except TooMuch as error:
        raise invalid([FieldError(source="body", pointer="", message=str(error))]) from error


def _checked(parse: Callable[[bytes], _Result], body: bytes, values: int) -> _Result:
    check_text(body, values)
    return parse(body)


def _parsed(model: type[_Model], body: bytes, *, rows: bool = False) -> _Model:
    if len(body) > SMALL_BYTES and not rows:
        check_fields(_json(body))
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            raise _unparsable(found[0]["msg"].removeprefix("Invalid JSON: ")) from error
        raise invalid(field_errors(found, "body")) from error


def _json(body: bytes) -> object:
    value: object
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise _unparsable(str(error)) from error
    return value


def _object(body: bytes) -> dict[str, object]:
    value = _json(body)
    check_fields(value)
    if not isinstance(value, dict):
        raise invalid([FieldError(source="body", pointer="", message="must be an object")])
    return value


def _unparsable(reason: str) -> ApiError:
    detail = f"the body is not JSON: {reason}"
    if reason.startswith("recursion limit"):
        detail = "the body nests deeper than 200 levels"
    return ApiError(HTTPStatus.BAD_REQUEST, "unparsable_body", detail)


def _wrong_type(request: Request, types: Collection[str]) -> ApiError:
    given = request.headers.get("content-type")
    wanted = " or ".join(kind for kind in types if kind)
    state = f"is {given[:_QUOTED]!r}" if given else "is missing"
    return ApiError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        f"the content type {state}: send {wanted}",
    )
