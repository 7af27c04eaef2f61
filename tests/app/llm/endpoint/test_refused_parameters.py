"""Endpoints that refuse a part of a call, in their own words, and calls that are changed for it."""

import json

import pytest
from starlette.responses import Response

from app.llm.chat import TokenUsage
from app.llm.client import OpenAIChat, connect
from app.llm.endpoint.dialect import Change
from app.llm.endpoint.known import KnownEndpoint
from app.llm.models import probed
from app.llm.slates import ReplyMode
from app.storage.documents import MemoryDocuments
from tests.app.llm.endpoint.picky import (
    KEY,
    PICKS,
    SCHEMA,
    PickyServer,
    Rule,
    has,
    in_order,
    openai_error,
    refused,
    system,
    without,
)


def streamed() -> Response:
    """The reply as server-sent events."""
    pieces = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": PICKS[:9]}}]},
        {"choices": [{"index": 0, "delta": {"content": PICKS[9:]}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 20}},
    ]
    events = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    return Response("".join(events) + "data: [DONE]\n\n", media_type="text/event-stream")


# As people who run such servers have reported them.
KINDS: dict[str, tuple[Rule, set[Change]]] = {
    "openai o3": (
        in_order(
            (
                lambda body: "max_tokens" in body,
                400,
                openai_error(
                    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                    "'max_completion_tokens' instead.",
                    param="max_tokens",
                    code="unsupported_parameter",
                ),
            ),
            (
                lambda body: "temperature" in body,
                400,
                openai_error(
                    "Unsupported value: 'temperature' does not support 0 with this model. Only "
                    "the default (1) value is supported.",
                    param="temperature",
                    code="unsupported_value",
                ),
            ),
        ),
        {Change.MAX_TOKENS, Change.TEMPERATURE},
    ),
    "mistral": (
        without(
            "seed",
            status=422,
            said={
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "seed"],
                        "msg": "Extra inputs are not permitted",
                        "input": 0,
                    }
                ]
            },
        ),
        {Change.SEED},
    ),
    "gemini": (
        without(
            "seed",
            said=[
                {
                    "error": {
                        "code": 400,
                        "message": 'Invalid JSON payload received. Unknown name "seed": Cannot '
                        "find field.",
                        "status": "INVALID_ARGUMENT",
                    }
                }
            ],
        ),
        {Change.SEED},
    ),
    "kimi": (
        without(
            "temperature",
            said=openai_error("invalid temperature: only 1 is allowed for this model"),
        ),
        {Change.TEMPERATURE},
    ),
    "anthropic": (
        in_order(
            (
                lambda body: has(body, "'minimum'"),
                400,
                openai_error(
                    "output_config.format.schema: For 'integer' type, properties maximum, minimum "
                    "are not supported"
                ),
            )
        ),
        {Change.BOUNDS},
    ),
    "openai's strict schemas": (
        in_order(
            (
                lambda body: has(body, "maxItems"),
                400,
                openai_error(
                    "Invalid schema for response_format 'picks': In context=('properties', "
                    "'picks'), 'maxItems' is not permitted.",
                    param="response_format",
                ),
            )
        ),
        {Change.BOUNDS},
    ),
    "gemini's schemas": (
        in_order(
            (
                lambda body: has(body, "additionalProperties"),
                400,
                'Invalid JSON payload received. Unknown name "additionalProperties" at '
                "'generation_config.response_schema': Cannot find field.",
            )
        ),
        {Change.ADDITIONAL},
    ),
    "llama.cpp with gemma": (
        in_order(
            (
                system,
                500,
                {"error": {"code": 500, "message": "System role not supported", "type": "server"}},
            )
        ),
        {Change.SYSTEM_ROLE},
    ),
    "google's gemma": (
        in_order(
            (
                system,
                400,
                [{"error": {"code": 400, "message": "Developer instruction is not enabled for "
                            "models/gemma-3-27b-it", "status": "INVALID_ARGUMENT"}}],
            )
        ),
        {Change.SYSTEM_ROLE},
    ),
    "lm studio with mistral": (
        in_order(
            (
                system,
                400,
                {"error": "Error rendering prompt with jinja template: \"Only user and assistant "
                 "roles are supported!\"."},
            )
        ),
        {Change.SYSTEM_ROLE},
    ),
    "qwen": (
        in_order(
            (
                lambda body: body.get("enable_thinking") is not False,
                400,
                openai_error("parameter.enable_thinking must be set to false for non-streaming "
                             "calls", code="invalid_parameter_error"),
            )
        ),
        {Change.THINKING},
    ),
    "qwq": (
        lambda body: (
            streamed()
            if body.get("stream")
            else refused(400, openai_error("This model only support stream mode, please enable "
                                           "the stream parameter to access the model. "))
        ),
        {Change.STREAMED},
    ),
    "a proxy that streams": (
        lambda body: (
            streamed()
            if body.get("stream")
            else refused(400, {"detail": "Stream must be set to true"})
        ),
        {Change.STREAMED},
    ),
    "openrouter": (
        without(
            "seed",
            status=404,
            said={"error": {"message": "No endpoints found that can handle the requested "
                            "parameters.", "code": 404}},
        ),
        {Change.SEED},
    ),
    "a gateway that hides the words": (
        without(
            "stream",
            said={"error": {"message": "Provider returned error", "code": 400,
                            "metadata": {"raw": '{"detail":"unexpected field: stream"}'}}},
        ),
        {Change.STREAM},
    ),
    "html": (without("temperature", said="<html><h1>400</h1>Bad request</html>"),
             {Change.TEMPERATURE}),
    "a list of what is allowed": (
        lambda body: (
            refused(400, f"Allowed: model, messages, temperature, max_tokens. Got: {extra}")
            if (extra := sorted(body.keys() & {"seed", "stream", "max_completion_tokens"}))
            else None
        ),
        {Change.SEED, Change.STREAM},
    ),
    "plain text": (without("seed", said="Bad Request"), {Change.SEED}),
    "a string": (without("temperature", "seed", said={"error": "rejected"}),
                 {Change.TEMPERATURE, Change.SEED}),
    "a list of strings": (without("stream", status=422, said={"detail": ["no"]}),
                          {Change.STREAM}),
    "message.detail": (without("max_tokens", said={"message": {"detail": [{"msg": "no"}]}}),
                       {Change.MAX_TOKENS}),
    "no limit at all": (without("max_tokens", "max_completion_tokens", said=""),
                        {Change.OUTPUT_LIMIT}),
    "sglang without words": (in_order((system, 500, "Internal Server Error")),
                             {Change.SYSTEM_ROLE}),
    "gaudi without words": (without("seed", status=500, said="Internal Server Error"),
                            {Change.SEED}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_a_probe_finds_what_an_endpoint_accepts(
    picky: PickyServer, chat: OpenAIChat, kind: str
) -> None:
    picky.rule, changes = KINDS[kind]
    assert await probed(chat, 10.0) is ReplyMode.JSON_SCHEMA
    assert chat.dialect.changes == changes
    assert len(picky.requests) <= 16
    asked = len(picky.requests)
    reply = await chat.complete(SCHEMA)
    assert (reply.text, reply.usage) == (PICKS, TokenUsage(40, 20))
    assert len(picky.requests) == asked + 1, "later calls are made so at once"


@pytest.mark.parametrize(
    ("refuses", "status", "said", "mode"),
    [
        (
            ("json_schema", "json_object"),
            400,
            openai_error("This response_format type is unavailable now"),
            ReplyMode.TEXT,
        ),
        (
            ("json_schema",),
            400,
            openai_error("This response_format type is unavailable now"),
            ReplyMode.JSON_OBJECT,
        ),
        (
            ("json_object",),
            400,
            {"error": "'response_format.type' must be 'json_schema' or 'text'"},
            ReplyMode.JSON_SCHEMA,
        ),
        (("json_schema", "json_object"), 422, {"detail": "no"}, ReplyMode.TEXT),
        (("json_schema",), 400, "<html>Bad Request</html>", ReplyMode.JSON_OBJECT),
        (
            ("json_schema",),
            500,
            {"error": {"message": "failed to parse grammar", "code": 500}},
            ReplyMode.JSON_OBJECT,
        ),
    ],
)
async def test_a_form_that_is_refused_is_not_the_mode(
    picky: PickyServer,
    chat: OpenAIChat,
    refuses: tuple[str, ...],
    status: int,
    said: object,
    mode: ReplyMode,
) -> None:
    picky.rule = lambda body: (
        refused(status, said) if body.get("response_format", {}).get("type") in refuses else None
    )
    picky.content = lambda body: (
        '{"picks": [{"n": 2, "score": 90}]}' if ("response_format" in body) else "2: 90\n1: 10"
    )
    assert await probed(chat, 10.0) is mode
    assert chat.dialect.changes == set(), "what did not help is not left out"
    assert len(picky.requests) <= 9


async def test_what_one_endpoint_has_refused_another_process_knows(picky: PickyServer) -> None:
    documents = MemoryDocuments()
    picky.rule, _ = KINDS["openai o3"]
    async with connect(picky.base_url, KEY) as client:
        for calls in (3, 1):
            picky.requests.clear()
            chat = OpenAIChat(client, "o3", KnownEndpoint("o3", picky.base_url, documents))
            await chat.complete(SCHEMA)
            assert len(picky.requests) == calls
        other = OpenAIChat(client, "o4", KnownEndpoint("o4", picky.base_url, documents))
        await other.complete(SCHEMA)
        assert len(picky.requests) == 4, "another model is another matter"
