"""`Gate`: middleware that identifies the caller before any part of a body is read.

With a root key, every request but three needs a key. Without one, the service is open to programs
on this machine only: requests that a web page causes are recognised by their headers.
"""

import asyncio
import logging
import re
from base64 import b64decode
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote_plus

from pydantic_core import from_json, to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.dependencies import CALLER, Dependencies
from app.api.disconnects import CutShort
from app.api.problems import ApiError, answer_to
from app.api.rates import RATE_HEADERS, count
from app.hosts import is_loopback
from app.keys import OPEN, Caller, Keyring, redacted
from tree.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_OPEN_PATHS = frozenset({"/livez", "/readyz", "/version"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OURS = frozenset({"same-origin", "none"})  # Sec-Fetch-Site: our own page, or no page at all
_KEY_NAMES = re.compile(
    r"(x[-_]?)?(api[-_]?)?key|(access[-_]?)?token|auth(orization)?|bearer", re.IGNORECASE
)
_EVENTS = re.compile(r"/v1/catalogs/[^/]+/events")
_BEACON_BYTES = 65_536  # what browsers send at most
_BEACON_S = 10.0
_POLICY_VIOLATION = 1008
_CHALLENGE = 'Bearer realm="unillmrec"'
# For the documentation page only: a browser would also send these credentials with every write
# that a foreign page makes it send.
_PAGE_CHALLENGE = 'Basic realm="unillmrec: any name, and a key as the password"'
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-API-Key",
    "Access-Control-Max-Age": "600",
}
_PREFLIGHT_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_EXPOSED = "RateLimit, RateLimit-Policy, Retry-After"


@dataclass(frozen=True, slots=True)
class _AcceptedRequest:
    """An accepted request, with headers for its answer."""

    caller: Caller
    receive: Receive
    headers: dict[str, str]


class _Revoked(Exception):
    """The key of a running answer is no longer valid."""


class Gate:
    """Passes a request on, with its caller in the scope, or answers it with a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the API has none
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        dependencies = cast(Dependencies, scope["app"].state.dependencies)
        scope.setdefault("state", {})
        try:
            if dependencies.keyring.enabled:
                entry = await _with_key(dependencies.keyring, scope, receive)
            else:
                _without_keys(Headers(scope=scope), scope["method"], anywhere=dependencies.insecure)
                entry = _AcceptedRequest(OPEN, receive, {})
        except (ApiError, StoreUnavailable) as error:
            await answer_to(error)(scope, receive, send)
            return
        if entry is None:
            await _preflight(dependencies.keyring, scope, receive, send)
            return
        scope[CALLER], scope[RATE_HEADERS] = entry.caller, entry.headers
        try:
            await self._app(
                scope, entry.receive, _watched(dependencies.keyring, entry, scope, send)
            )
        except* _Revoked:  # the connection breaks off without the end of the body
            logger.warning("an answer was cut short: the key %s is revoked", entry.caller.id)
        except* CutShort:
            pass  # logged where it was raised


async def _with_key(keyring: Keyring, scope: Scope, receive: Receive) -> _AcceptedRequest | None:
    """The caller; None for a preflight. Raises ApiError, StoreUnavailable."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
        return None
    if scope["path"] in _OPEN_PATHS:
        return _AcceptedRequest(OPEN, receive, {})
    _refuse_keys_in_query(scope["query_string"])
    on_page = scope["path"] == "/openapi.json" or scope["path"].startswith("/docs")
    token, in_body = _token(headers, basic=on_page), False
    if token is None and _is_beacon(scope, headers):
        token, receive = await _beacon(scope, headers, receive)
        in_body = True
    if token is None:
        challenge = _PAGE_CHALLENGE if on_page else _CHALLENGE
        raise _unauthorized("missing_key", "send a key: Authorization: Bearer KEY", challenge)
    caller = await keyring.caller(token)
    if caller is None:
        detail = "this key is not known: it may be mistyped, revoked or expired"
        raise _unauthorized("unknown_key", detail, f'{_CHALLENGE}, error="invalid_token"')
    key = caller.key
    answered: dict[str, str] = {}
    if key is not None and key.origins:
        answered = _for_page(key.origins, origin, in_body=in_body)
    elif in_body:
        detail = "only a key with origins may travel in a body: send it in a header"
        raise ApiError(HTTPStatus.FORBIDDEN, "forbidden_origin", detail)
    if key is not None:
        try:
            await count(keyring, key, answered)
        except ApiError as refused:
            refused.headers |= answered
            raise
    return _AcceptedRequest(caller, receive, answered)


def _token(headers: Headers, *, basic: bool) -> str | None:
    """The key in the headers of a request. Raises ApiError for several different keys."""
    given = headers.getlist("x-api-key")
    for value in headers.getlist("authorization"):
        kind, _, token = value.strip().partition(" ")
        if basic and kind.lower() == "basic":
            token = _password(token)
        elif kind.lower() != "bearer":
            detail = "the scheme of the Authorization header must be Bearer"
            raise _unauthorized("missing_key", detail, _CHALLENGE)
        given.append(token)
    found = {token.strip() for token in given}
    if len(found) > 1:
        raise _unauthorized("unknown_key", "send one key, not several", _CHALLENGE)
    return found.pop() if found else None


def _password(credentials: str) -> str:
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _refuse_keys_in_query(query: bytes) -> None:
    """Raises ApiError for a key in the query: logs, browser histories and Referer hold URLs."""
    if not query:
        return
    text = unquote_plus(query.decode("latin-1"))
    names = (part.partition("=")[0] for part in text.split("&"))
    if redacted(text) != text or any(_KEY_NAMES.fullmatch(name) for name in names):
        detail = "a key never stands in an address: send it as Authorization: Bearer KEY"
        raise ApiError(HTTPStatus.BAD_REQUEST, "key_in_query", detail)


def _for_page(allowed: frozenset[str], origin: str | None, *, in_body: bool) -> dict[str, str]:
    """The headers of an answer to a web page. Raises ApiError for a page of another origin.

    Programs other than browsers send no Origin, or any; the key's other limits apply to them.
    """
    if origin is None and not in_body:
        return {"Vary": "Origin"}
    if origin not in allowed:
        detail = "this key is for pages of other origins"
        raise ApiError(HTTPStatus.FORBIDDEN, "forbidden_origin", detail, headers={"Vary": "Origin"})
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": _EXPOSED,
        "Vary": "Origin",
    }


def _is_beacon(scope: Scope, headers: Headers) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_text = scope["method"] == "POST" and kind == "text/plain"
    return is_text and _EVENTS.fullmatch(scope["path"]) is not None


async def _beacon(scope: Scope, headers: Headers, receive: Receive) -> tuple[str | None, Receive]:
    """The key in the body of a `sendBeacon`, which cannot set headers; the body without it."""
    body = await _small(receive)
    try:
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        detail = "the body is not JSON: a beacon is {key, events}"
        raise ApiError(HTTPStatus.BAD_REQUEST, "unparsable_body", detail) from error
    token = content.pop("key", None) if isinstance(content, dict) else None
    rest = to_json(content)
    changed = MutableHeaders(raw=list(headers.raw))
    changed["content-type"], changed["content-length"] = "application/json", str(len(rest))
    scope["headers"] = changed.raw
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": rest, "more_body": False}

    return (token if isinstance(token, str) else None), replay


async def _small(receive: Receive) -> bytes:
    """The whole body, at most 64 kB. Raises ApiError."""
    body, more = b"", True
    try:
        async with asyncio.timeout(_BEACON_S):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    detail = "the body ended early"
                    raise ApiError(HTTPStatus.BAD_REQUEST, "incomplete_body", detail)
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > _BEACON_BYTES:
                    detail = f"a beacon holds at most {_BEACON_BYTES:,} bytes"
                    raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", detail)
    except TimeoutError as error:
        detail = "the body did not come in time"
        raise ApiError(HTTPStatus.REQUEST_TIMEOUT, "incomplete_body", detail) from error
    return body


def _unauthorized(code: str, detail: str, challenge: str) -> ApiError:
    headers = {"WWW-Authenticate": challenge}
    return ApiError(HTTPStatus.UNAUTHORIZED, code, detail, headers=headers)


async def _preflight(keyring: Keyring, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a CORS preflight: allowed when some key is for the origin of the page."""
    origin = Headers(scope=scope).get("origin", "")
    if not keyring.allows_origin(origin):
        detail = "no key is for pages of this origin"
        refused = ApiError(
            HTTPStatus.FORBIDDEN, "forbidden_origin", detail, headers={"Vary": _PREFLIGHT_VARY}
        )
        await answer_to(refused)(scope, receive, send)
        return
    headers = {"Access-Control-Allow-Origin": origin, "Vary": _PREFLIGHT_VARY, **_PREFLIGHT}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 204, "headers": raw})
    await send({"type": "http.response.body", "body": b""})


def _without_keys(headers: Headers, method: str, *, anywhere: bool) -> None:
    """Raises ApiError for a request that a foreign web page may have caused.

    DNS rebinding shows in the Host header. A write shows in Sec-Fetch-Site, which no page can
    set, or in Origin for older browsers.
    """
    hosts = headers.getlist("host")
    if not anywhere and not (len(hosts) == 1 and is_loopback(hosts[0])):
        detail = (
            "without a root key this service answers to the names of this machine only, such as "
            "localhost: set UNILLMREC_ADMIN_KEY, or start it with --insecure"
        )
        raise ApiError(HTTPStatus.MISDIRECTED_REQUEST, "foreign_host", detail)
    if method in _SAFE:
        return
    site, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    if site:
        foreign = any(one.lower() not in _OURS for one in site)
    else:
        foreign = any(_authority(one) != (hosts or [""])[0].lower() for one in origins)
    if foreign:
        detail = "a page of another origin may not write here: give it a key with origins"
        raise ApiError(HTTPStatus.FORBIDDEN, "foreign_origin", detail)


def _authority(origin: str) -> str:
    return origin.partition("://")[2].lower()


def _watched(keyring: Keyring, entry: _AcceptedRequest, scope: Scope, send: Send) -> Send:
    """`send` that adds headers, writes the audit log, and ends when the key is revoked."""
    begun = False

    async def watched(message: Message) -> None:
        nonlocal begun
        if message["type"] == "http.response.start":
            begun = True
            act = scope["state"].get("audited")
            if act is not None and message["status"] < HTTPStatus.BAD_REQUEST:
                client = scope.get("client")
                await keyring.record(
                    act["act"], entry.caller, act["target"], client[0] if client else None
                )
            if entry.headers:
                headers = MutableHeaders(scope=message)
                for name, value in entry.headers.items():
                    headers.append(name, value)
        elif begun and message.get("more_body") and not keyring.holds(entry.caller):
            raise _Revoked
        await send(message)

    return watched
