"""Request bodies: read within a limit, refused when they are not what the route takes.

They are not FastAPI's body parameters: pydantic reads JSON straight from the bytes, which is
faster, knows strict mode's exceptions for JSON, and refuses NaN, lone surrogates, broken UTF-8
and nesting deeper than 200 levels as what they are: unparsable.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from app.api.access import access_of
from app.api.problems import Flaw, Refused, flaws_of, invalid
from app.curate.uploads import arriving

JSON = ("application/json",)
MERGE_PATCH = ("application/merge-patch+json", *JSON)

# Read on after a body has become too long: whoever is cut off while sending sees a reset
# connection in place of the answer.
_DISCARDED_BYTES = 16_777_216

_Model = TypeVar("_Model", bound=BaseModel)


def json_body(
    model: type[_Model], types: Collection[str] = JSON
) -> Callable[[Request], Awaitable[_Model]]:
    """A dependency: the body as `model`. Raises Refused."""

    async def read(request: Request) -> _Model:
        return parsed(model, await _whole(request, types))

    return read


def optional_json_body(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """A dependency: the body as `model`, whose defaults stand for an absent one."""

    async def read(request: Request) -> _Model:
        body = await _whole(request, (*JSON, ""))
        if body and not media_type(request):
            raise _wrong_type(request, JSON)
        return parsed(model, body or b"{}")

    return read


async def json_object(request: Request) -> dict[str, object]:
    """A dependency: the body as a JSON object. Raises Refused."""
    return _object(await _whole(request, JSON))


async def merge_patch(request: Request) -> dict[str, object]:
    """A dependency: the body as a JSON merge patch (RFC 7396) of an object. Raises Refused."""
    return _object(await _whole(request, MERGE_PATCH))


def parsed(model: type[_Model], body: bytes) -> _Model:
    """`body` as `model`. Raises Refused."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            raise _unparsable(found[0]["msg"].removeprefix("Invalid JSON: ")) from error
        raise invalid(flaws_of(found, "body")) from error


async def spool(request: Request, folder: Path) -> Path:
    """The file in `folder` that has the body; nothing stays there when it is refused."""
    limit = access_of(request).settings.max_import_bytes
    try:
        with arriving(folder) as upload:
            async for piece in _pieces(request, limit):
                await asyncio.to_thread(upload.file.write, piece)
            await asyncio.to_thread(upload.file.flush)
            return upload.finish()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        detail = "the data folder is full: make room, or upload less at once"
        raise Refused(HTTPStatus.INSUFFICIENT_STORAGE, "disk_full", detail) from error


def expect_type(request: Request, types: Collection[str]) -> None:
    """Raises Refused, 415, unless the body is said to be one of `types`.

    A missing type is refused too: with it, and with the types of HTML forms, any web page could
    write to a service on its reader's own machine.
    """
    if media_type(request) not in types:
        raise _wrong_type(request, types)


def media_type(request: Request) -> str:
    """The content type without its parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _whole(request: Request, types: Collection[str]) -> bytes:
    expect_type(request, types)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        detail = "only imports may be compressed: send this body as it is"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
    limit = access_of(request).settings.max_body_bytes
    return b"".join([piece async for piece in _pieces(request, limit)])


async def _pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises Refused, 413, when it is longer than `limit`."""
    length = request.headers.get("content-length", "")
    refused = length.isdecimal() and int(length) > limit
    received = 0
    async for piece in request.stream():
        received += len(piece)
        refused = refused or received > limit
        if not refused:
            yield piece
        elif received > limit + _DISCARDED_BYTES:
            break
    if refused:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body_too_large",
            f"the body is larger than {limit:,} bytes: send less at once",
            headers={"Connection": "close"},  # more of it may be on its way
        )


def _object(body: bytes) -> dict[str, object]:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise _unparsable(str(error)) from error
    if not isinstance(value, dict):
        raise invalid([Flaw(source="body", pointer="", message="must be an object")])
    return value


def _unparsable(reason: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "unparsable_body", f"the body is not JSON: {reason}")


def _wrong_type(request: Request, types: Collection[str]) -> Refused:
    given = request.headers.get("content-type")
    wanted = " or ".join(kind for kind in types if kind)
    said = f"is {given!r}" if given else "is missing"
    return Refused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        f"the content type {said}: send {wanted}",
    )
