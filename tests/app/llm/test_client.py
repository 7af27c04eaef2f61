"""Whatever an endpoint sends back is a reply or an error of ours."""

import json
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from openai import AsyncOpenAI

from app.llm.chat import Choice, Decisions, Form, Message, Reply, Text, TokenUsage, Turn
from app.llm.client import OpenAIChat
from app.llm.errors import InvalidReply

DEEP = b"[" * 60_000
DECISION = Decisions((Choice("Which number?", 3),))


@pytest.fixture
async def open_chat() -> AsyncIterator[Callable[[bytes], OpenAIChat]]:
    """Models whose endpoint always answers with some body."""
    opened: list[AsyncOpenAI] = []

    def open_one(body: bytes) -> OpenAIChat:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body))
        http = httpx2.AsyncClient(transport=transport)
        client = AsyncOpenAI(base_url="http://model", api_key="none", http_client=http)
        opened.append(client)
        return OpenAIChat(client, "model")

    yield open_one
    for client in opened:
        await client.close()


def turn(form: Form) -> Turn:
    return Turn((Message("user", "Which?"),), form, 40, 5.0)


async def test_a_completion_is_read(open_chat: Callable[[bytes], OpenAIChat]) -> None:
    body = {
        "choices": [{"message": {"content": "seven"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    }
    reply = await open_chat(json.dumps(body).encode()).complete(turn(Text()))
    assert reply == Reply("seven", usage=TokenUsage(9, 2))


async def test_a_decision_is_read_as_far_as_it_can_be(
    open_chat: Callable[[bytes], OpenAIChat],
) -> None:
    values = ["1", "two", "", "1" * 5_000, "٣", "3"]
    chances = [{"value": value, "probability": 0.25} for value in values]
    body = {"answers": [{"type": "choice", "probabilities": chances}]}
    reply = await open_chat(json.dumps(body).encode()).complete(turn(DECISION))
    assert reply.decisions == ({1: 0.25, 3: 0.25},)


@pytest.mark.parametrize("form", [Text(), DECISION])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"{}", b"\xff\xfe", b'{"choices": []}', b'{"answers": 3}',
        b'{"x": ' + DEEP, b'{"choices": [{"x": ' + DEEP, b'{"answers": [{"x": ' + DEEP,
    ],
)  # fmt: skip
async def test_a_body_that_cannot_be_read_is_an_invalid_reply(
    open_chat: Callable[[bytes], OpenAIChat], form: Form, body: bytes
) -> None:
    with pytest.raises(InvalidReply):
        await open_chat(body).complete(turn(form))
