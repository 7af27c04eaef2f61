"""An endpoint that accepts a chat only as its `rule` says, and answers it well."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.llm.chat import Message, Text, Turn
from app.llm.slates import picks_schema
from tests.servers.loopback import Loopback

Body = dict[str, Any]
Rule = Callable[[Body], Response | None]
KEY = "sk-secret-key"
MESSAGES = (Message("system", "Be brief."), Message("user", "Hi"))
SCHEMA = Turn(MESSAGES, picks_schema(0, 5), 100, 10.0)
TEXT = Turn(MESSAGES, Text(), 100, 10.0)
PICKS = json.dumps({"picks": [{"n": 2, "score": 90}, {"n": 1, "score": 10}]})


class PickyServer:
    """Answers what `rule` has nothing to say about. `requests` are the bodies so far."""

    def __init__(self) -> None:
        routes = [Route("/{path:path}", self._answer, methods=["POST"])]
        self._loopback = Loopback(Starlette(routes=routes))
        self.base_url = self._loopback.base_url
        self.reset()

    def reset(self) -> None:
        """Accept everything, and forget what was asked."""
        self.rule: Rule = lambda body: None
        self.content: Callable[[Body], str] = lambda body: PICKS
        self.requests: list[Body] = []
        self.urls: list[str] = []
        self.keys: list[str] = []
        self.azure_keys: list[str | None] = []

    def stop(self) -> None:
        self._loopback.stop()

    async def _answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(body)
        self.urls.append(str(request.url))
        self.keys.append(request.headers.get("authorization", ""))
        self.azure_keys.append(request.headers.get("api-key"))
        return self.rule(body) or completion(self.content(body))


def completion(
    content: str, *, finish_reason: str = "stop", usage: tuple[int, int] = (40, 20)
) -> Response:
    """A reply of the model."""
    message = {"role": "assistant", "content": content}
    read, written = usage
    return JSONResponse(
        {
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": read, "completion_tokens": written},
        }
    )


def refused(status: int, said: object, **headers: str) -> Response:
    """A refusal: JSON, or the very text."""
    if isinstance(said, str) and not said.startswith('"'):
        return Response(said, status, headers, media_type="text/plain")
    return JSONResponse(said, status, headers)


@contextmanager
def picky_server() -> Iterator[PickyServer]:
    """A server that runs during the block."""
    server = PickyServer()
    try:
        yield server
    finally:
        server.stop()


def without(*names: str, status: int = 400, said: object = "Bad Request") -> Rule:
    """Refuses calls with any of these parameters."""
    return lambda body: refused(status, said) if set(names) & body.keys() else None


def has(body: Body, keyword: str) -> bool:
    return keyword in str(body.get("response_format"))


def system(body: Body) -> bool:
    return any(message["role"] == "system" for message in body["messages"])


def in_order(*steps: tuple[Callable[[Body], bool], int, object]) -> Rule:
    """The first refusal whose condition holds."""

    def rule(body: Body) -> Response | None:
        for holds, status, said in steps:
            if holds(body):
                return refused(status, said)
        return None

    return rule


def openai_error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}
