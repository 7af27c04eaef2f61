"""Calls after the first one to a route, which are not made by the official client."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.llm.endpoint.address import connect
from app.llm.endpoint.poster import Poster
from tests.servers.loopback import Loopback


class Endpoint:
    """An endpoint that keeps what it is sent, and answers with what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], object]] = []
        self.status = 200
        self.pause_s = 0.0
        self._runs = True
        route = Route("/v1/{path:path}", self._answer, methods=["POST"])
        self._loopback = Loopback(Starlette(routes=[route]))
        self.base_url = self._loopback.base_url

    def stop(self) -> None:
        if self._runs:
            self._runs = False
            self._loopback.stop()

    async def _answer(self, request: Request) -> Response:
        sent = str(request.url).partition("/v1")[2], dict(request.headers), await request.json()
        self.asked.append(sent)
        await asyncio.sleep(self.pause_s)
        return JSONResponse({"n": len(self.asked)}, self.status)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.stop()


@pytest.fixture
async def poster(endpoint: Endpoint) -> AsyncIterator[Poster]:
    """One that has had an answer."""
    async with connect(f"{endpoint.base_url}?api-version=1", "secret") as client:
        poster = Poster(client)
        assert await poster.post("/chat/completions", {"said": "first"}, 5) == b'{"n":1}'
        yield poster


async def test_later_calls_have_the_address_and_the_headers_of_the_first(endpoint, poster):
    assert await poster.post("/chat/completions", {"said": "größer"}, 5) == b'{"n":2}'
    assert await poster.post("/decisions", {}, 5) == b'{"n":3}'
    (path, headers, _), (later_path, later, body), (other_path, _, _) = endpoint.asked
    assert path == later_path == "/chat/completions?api-version=1"
    assert other_path == "/decisions?api-version=1"
    assert later["authorization"] == "Bearer secret"
    of_one_call = {"content-length", "idempotency-key", "x-stainless-read-timeout"}
    assert {k: v for k, v in headers.items() if k not in of_one_call} == {
        k: v for k, v in later.items() if k not in of_one_call
    }
    assert int(later["content-length"]) == len('{"said":"größer"}'.encode())
    assert body == {"said": "größer"}


@pytest.mark.parametrize("status", [302, 401, 429, 500])
async def test_a_refusal_is_an_error_of_the_client(endpoint, poster, status):
    endpoint.status = status
    with pytest.raises(openai.APIStatusError) as refused:
        await poster.post("/chat/completions", {}, 5)
    assert refused.value.status_code == status
    assert refused.value.response.content == b'{"n":2}'
    assert refused.value.response.request.url.path == "/v1/chat/completions"


async def test_no_answer_in_time_is_an_error_of_the_client(endpoint, poster):
    endpoint.pause_s = 2
    with pytest.raises(openai.APITimeoutError):
        await poster.post("/chat/completions", {}, 0.1)


async def test_no_connection_is_an_error_of_the_client(endpoint, poster):
    endpoint.stop()
    with pytest.raises(openai.APIConnectionError):
        await poster.post("/chat/completions", {}, 5)
