"""A server of chats and embeddings that fails in every way that is known of such.

Its embeddings tell texts apart by their words.
"""

import asyncio
import json
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from enum import StrEnum, auto
from itertools import chain, repeat
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
from pydantic import JsonValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from tests.servers.loopback import Loopback

Body: TypeAlias = dict[str, Any]
Writing: TypeAlias = Callable[[str], str]

MODEL = "hostile"
SOON_S, LATE_S = "0.05", "3600"

_BOUND_S = 30
_DRIP_S = 0.1
_POLL_S = 0.01
_HUGE = 10_000_000


class Behaviour(StrEnum):
    """What a request meets. The first is what `content` of the server says."""

    WELL_FORMED = auto()
    INVENTED_NUMBERS = auto()
    REPEATED_NUMBERS = auto()
    WRONG_SHAPE = auto()
    HALF_JSON = auto()
    CUT_BY_LENGTH = auto()
    EMPTY = auto()
    NULL = auto()
    REFUSAL = auto()
    FOREIGN_PROSE = auto()
    HUGE = auto()

    FEWER_VECTORS = auto()
    """Of embeddings, as the next four; a chat is well-formed then."""
    NO_NUMBERS = auto()
    UNEVEN_WIDTHS = auto()
    OTHER_WIDTH = auto()
    OTHER_ORDER = auto()
    """Each vector says which text it is of."""

    NO_CHOICES = auto()
    NO_USAGE = auto()
    HALF_BODY = auto()
    HTML = auto()

    NO_SCHEMAS = auto()
    """400 to a request with `response_format`; well-formed without it."""
    NO_PICTURES = auto()
    """Status and words of `refusal` to a request with pictures; well-formed without them."""
    UNAUTHORIZED = auto()
    UNKNOWN_MODEL = auto()
    OUT_OF_QUOTA = auto()
    """429 that no retry will mend."""
    BUSY = auto()
    BUSY_RETRY_SOON = auto()
    BUSY_RETRY_LATE = auto()
    MOVED = auto()
    """307 to another address, where any model answers."""
    BROKEN = auto()
    UNAVAILABLE = auto()

    HANG = auto()
    DRIP = auto()
    """A byte every 100 ms: every read of the client comes in time."""
    RESET = auto()
    """The connection is reset in the middle of the body."""


def one_pick(prompt: str) -> str:
    """The reply of WELL_FORMED, unless a test sets another: the first option."""
    return _picks((1, 50, 1))


class HostileServer:
    """Draws one behaviour per POST; GET /v1/models always works."""

    content: Writing  # from the last message of the prompt
    counts: Counter[Behaviour]
    followed: list[str]  # redirects, by the key that came along
    requests: list[Body]
    keys: set[str]  # that came along
    longest: int  # characters of a text that is embedded
    unwanted: str  # no text with this is embedded
    refusal: tuple[int, JsonValue]  # of pictures: a status and a body
    poison: str  # a call of embeddings with this in a text is answered with 500
    most_texts: tuple[float, int]  # that are embedded in a call, and the status for more
    base64: bool  # whether vectors are encoded as a call asks
    accepts: float  # texts that are embedded; calls after them are refused as an outage
    direction: float  # of all vectors; another model's point elsewhere
    together: int  # so many requests have to be there before any is answered

    def __init__(self) -> None:
        routes = [
            Route("/v1/embeddings", self._answer, methods=["POST"]),
            Route("/v1/chat/completions", self._answer, methods=["POST"]),
            Route("/v1/decisions", self._answer, methods=["POST"]),
            Route("/v1/models", _models, methods=["GET"]),
            Route("/v1/elsewhere", self._moved_to, methods=["GET", "POST"]),
        ]
        self._loopback = Loopback(Starlette(routes=routes))
        self.hanging = 0  # requests that do so now
        self.base_url = self._loopback.base_url
        self.reset()

    async def _moved_to(self, request: Request) -> Response:
        self.followed.append(request.headers.get("authorization", ""))
        return PlainTextResponse("thank you")

    def play(self, behaviours: Iterable[Behaviour]) -> None:
        """Meet requests with these in order of arrival, then WELL_FORMED. May be endless."""
        self._next: Iterator[Behaviour] = chain(behaviours, repeat(Behaviour.WELL_FORMED))

    def reset(self) -> None:
        """Forget what a test has set and sent, and drop what still hangs."""
        self._loopback.drop_connections()
        self.play([])
        self.content = one_pick
        self.counts = Counter()
        self.followed = []
        self.requests = []
        self.keys = set()
        self.longest = 100_000
        self.unwanted = "(nothing)"
        self.refusal = (400, {"error": {"message": "This model does not see."}})
        self.poison = "(nothing)"
        self.most_texts = (np.inf, 400)
        self.base64 = True
        self.accepts = np.inf
        self.direction = 1.0
        self.together = 0

    def stop(self) -> None:
        """Stop at once, even while requests hang."""
        self._loopback.stop()

    async def _answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        behaviour = next(self._next)
        self.counts[behaviour] += 1
        self.requests.append(body)
        self.keys.add(request.headers.get("authorization", "").removeprefix("Bearer "))
        if self.counts.total() < self.together:
            await _until(lambda: self.counts.total() >= self.together)
        match behaviour:
            case Behaviour.HANG:
                self.hanging += 1
                try:
                    return await _hang(request)
                finally:
                    self.hanging -= 1
            case Behaviour.DRIP:
                return _stream(_drip(_reply(body, self._content(body))))
            case Behaviour.RESET:
                return _stream(self._reset(_reply(body, self._content(body)), request))
            case Behaviour.NO_SCHEMAS if "response_format" in body:
                message = "'response_format' of type 'json_schema' is not supported."
                return _error(400, message, param="response_format")
            case Behaviour.NO_PICTURES if pictures_of(body):
                status, said = self.refusal
                return JSONResponse(said, status)
        if refused := _refused(behaviour, body):
            return refused
        if "input" in body and "questions" not in body:
            return self._embedded(behaviour, body)
        return _said(behaviour, body, self._content(body))

    def _embedded(self, behaviour: Behaviour, body: Body) -> Response:
        self.accepts -= len(body["input"])
        if self.accepts < 0:
            return _error(402, "Your account is empty.")
        if "encoding_format" in body and not self.base64:
            return _error(400, "Unknown field: encoding_format.")
        if len(body["input"]) > self.most_texts[0]:
            return _error(self.most_texts[1], "Too many inputs.", kind="requests")
        if any(self.poison in text for text in body["input"]):
            return _error(500, "json: unsupported value: NaN", kind="server_error")
        if max(map(len, body["input"])) > self.longest:
            code = "context_length_exceeded"
            return _error(400, "This model's maximum context length is 9 tokens.", code=code)
        if unwanted := [text for text in body["input"] if self.unwanted in text]:
            said = f"Not filtered for any of {sorted(self.keys)}: {unwanted[0]}"
            return _error(400, said, code="content_filter")
        vectors = [np.float32(self.direction) * embedding_of(text) for text in body["input"]]
        match behaviour:
            case Behaviour.FEWER_VECTORS:
                vectors.pop()
            case Behaviour.NO_NUMBERS:
                vectors[-1][0] = np.nan
            case Behaviour.UNEVEN_WIDTHS:
                vectors[-1] = vectors[-1][:-1]
            case Behaviour.OTHER_WIDTH:
                vectors = [vector[:300] for vector in vectors]
        rows = [
            {"object": "embedding", "index": at, "embedding": _encoded(vector, body)}
            for at, vector in enumerate(vectors)
        ]
        if behaviour is Behaviour.OTHER_ORDER:
            rows.reverse()
        tokens = sum(len(text.split()) for text in body["input"])
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        reply = json.dumps({"object": "list", "data": rows, "model": MODEL, "usage": usage})
        match behaviour:
            case Behaviour.HALF_BODY:
                reply = reply[: len(reply) // 2]
            case Behaviour.HTML:
                return HTMLResponse("<!doctype html><title>Sign in</title>")
        return Response(reply, media_type="application/json")

    def _content(self, body: Body) -> str:
        return self.content(_text_of(body["messages"][-1])) if "messages" in body else ""

    async def _reset(self, reply: bytes, request: Request) -> AsyncIterator[bytes]:
        assert request.client is not None
        yield reply[: len(reply) // 2]
        self._loopback.reset_connection((request.client.host, request.client.port))


def pictures_of(body: Body) -> list[str]:
    """The URLs of all pictures in a request for a chat."""
    parts = [part for message in body.get("messages", ()) for part in _parts(message)]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def _text_of(message: Body) -> str:
    """The text before pictures and their captions."""
    return str(_parts(message)[0]["text"])


def _parts(message: Body) -> list[Body]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def embedding_of(text: str) -> np.ndarray:
    """float32[320]: the sum of a direction for every word."""
    words = [np.random.default_rng(crc32(word.encode())) for word in text.lower().split()]
    return np.stack([rng.standard_normal(320) for rng in words]).sum(axis=0, dtype=np.float32)


def _encoded(vector: np.ndarray, body: Body) -> JsonValue:
    if body.get("encoding_format") == "base64":
        return b64encode(vector.tobytes()).decode()
    return [float(number) for number in vector]


def _said(behaviour: Behaviour, body: Body, content: str) -> Response:
    reply = _reply(body, content)
    match behaviour:
        case Behaviour.INVENTED_NUMBERS:
            reply = _reply(body, _picks((0, 80, 1), (-3, 80, 1), (9_999, 101, 77), (10**20, -1, 0)))
        case Behaviour.REPEATED_NUMBERS:
            reply = _reply(body, _picks((1, 90, 1), (1, 90, 1), (1, 10, 1)))
        case Behaviour.WRONG_SHAPE:
            reply = _reply(body, json.dumps({"picks": "1, 2", "ranking": [{"who": "first"}]}))
        case Behaviour.HALF_JSON:
            reply = _reply(body, content[: len(content) // 2])
        case Behaviour.CUT_BY_LENGTH:
            reply = _reply(body, content[: len(content) // 2], finish_reason="length")
        case Behaviour.EMPTY:
            reply = _reply(body, "")
        case Behaviour.NULL:
            reply = _reply(body, None)
        case Behaviour.REFUSAL:
            reply = _reply(body, None, refusal="I'm sorry, I can't help with that.")
        case Behaviour.FOREIGN_PROSE:
            reply = _reply(
                body, "Gern! Ich würde mit Nummer 1 beginnen: ein ruhiger Film. 祝你愉快！"
            )
        case Behaviour.HUGE:
            reply = _reply(body, "lorem " * (_HUGE // 6))
        case Behaviour.NO_CHOICES:
            reply = _changed(reply, choices=[])
        case Behaviour.NO_USAGE:
            reply = _changed(reply, usage=None)
        case Behaviour.HALF_BODY:
            reply = reply[: len(reply) // 2]
        case Behaviour.HTML:
            return HTMLResponse("<!doctype html><title>Sign in</title><h1>Sign in to continue</h1>")
    return Response(reply, media_type="application/json")


def _refused(behaviour: Behaviour, body: Body) -> Response | None:
    match behaviour:
        case Behaviour.UNAUTHORIZED:
            return _error(401, "Incorrect API key provided.", code="invalid_api_key")
        case Behaviour.UNKNOWN_MODEL:
            message = f"The model `{body.get('model')}` does not exist."
            return _error(404, message, code="model_not_found")
        case Behaviour.OUT_OF_QUOTA:
            kind = "insufficient_quota"
            return _error(429, "You exceeded your current quota.", kind=kind, code=kind)
        case Behaviour.BUSY:
            return _busy({})
        case Behaviour.BUSY_RETRY_SOON:
            return _busy({"retry-after": SOON_S})
        case Behaviour.BUSY_RETRY_LATE:
            return _busy({"retry-after": LATE_S})
        case Behaviour.MOVED:
            return RedirectResponse("/v1/elsewhere", status_code=307)
        case Behaviour.BROKEN:
            return _error(500, "The server had an error.", kind="server_error")
        case Behaviour.UNAVAILABLE:
            return PlainTextResponse("upstream connect error", status_code=503)
    return None


def _error(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def _busy(headers: dict[str, str]) -> Response:
    message, code = "Rate limit reached.", "rate_limit_exceeded"
    return _error(429, message, kind="requests", code=code, headers=headers)


def _reply(
    body: Body,
    content: str | None,
    *,
    refusal: str | None = None,
    finish_reason: str = "stop",
) -> bytes:
    prompt_tokens, completion_tokens = len(str(body.get("messages"))) // 4, len(content or "") // 4
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body.get("model", MODEL),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": refusal},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }
    return json.dumps(completion).encode()


def _changed(reply: bytes, **fields: JsonValue) -> bytes:
    return json.dumps({**json.loads(reply), **fields}).encode()


def _picks(*picks: tuple[int, int, int]) -> str:
    return json.dumps({"picks": [{"n": n, "score": score, "for": to} for n, score, to in picks]})


def _stream(parts: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(parts, media_type="application/json")


async def _drip(reply: bytes) -> AsyncIterator[bytes]:
    drops = int(_BOUND_S / _DRIP_S)
    for at in range(min(drops, len(reply))):
        yield reply[at : at + 1]
        await asyncio.sleep(_DRIP_S)
    yield reply[drops:]


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(_BOUND_S):
        while not reached():
            await asyncio.sleep(_POLL_S)


async def _hang(request: Request) -> Response:
    """Until the client goes away. Its body is read, so that is the next message."""
    try:
        async with asyncio.timeout(_BOUND_S):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass
    return _error(504, "The client did not lose patience.", kind="server_error")


async def _models(request: Request) -> Response:
    model = {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "tests"}
    return JSONResponse({"object": "list", "data": [model]})
