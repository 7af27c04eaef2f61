"""Endpoints that refuse a part of a call, in their own words, and calls that are changed for it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from app.llm.chat import JsonObject, JsonSchema, Message, Text, TokenUsage, Turn
from app.llm.client import OpenAIChat, connect
from app.llm.endpoint.dialect import Change
from app.llm.endpoint.known import KnownEndpoint
from app.llm.errors import InvalidReply, ModelRejected, ModelUnavailable, UnsupportedReplyMode
from app.llm.models import probed
from app.llm.slates import ReplyMode, picks_schema
from app.storage.documents import MemoryDocuments
from tests.app.llm.endpoint.picky import PICKS, Body, PickyServer, Rule, refused

KEY = "sk-secret-key"
MESSAGES = (Message("system", "Be brief."), Message("user", "Hi"))
SCHEMA = Turn(MESSAGES, picks_schema(0, 5), 100, 10.0)
TEXT = Turn(MESSAGES, Text(), 100, 10.0)


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


async def test_a_word_in_a_refusal_that_is_about_something_else_changes_nothing(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    """The endpoint quotes a prompt that speaks of a temperature."""
    await chat.complete(TEXT)
    picky.rule = lambda body: refused(400, openai_error("refused: 'soup at a temperature of 80'"))
    with pytest.raises(InvalidReply):
        await chat.complete(TEXT)
    assert len(picky.requests) == 3
    picky.rule = lambda body: None
    await chat.complete(TEXT)
    assert picky.requests[-1]["temperature"] == 0


PROMPTS = [
    (400, openai_error("This model's maximum context length is 8192 tokens. However, you "
                       "requested 9000 tokens.", code="context_length_exceeded")),
    (400, {"error": {"code": 400, "message": "the request exceeds the available context size",
                     "type": "exceed_context_size_error"}}),
    (400, openai_error("The response was filtered due to the prompt triggering Azure OpenAI's "
                       "content management policy.", code="content_filter")),
    (413, "Payload Too Large"),
    (400, {"error": {"message": "Failed to generate JSON. Please adjust your prompt.",
                     "code": "json_validate_failed", "failed_generation": "{\"seed\": …"}}),
]  # fmt: skip


@pytest.mark.parametrize("worked", [True, False])
@pytest.mark.parametrize(("status", "said"), PROMPTS)
async def test_a_refusal_of_a_prompt_is_taken_at_its_word(
    picky: PickyServer, chat: OpenAIChat, status: int, said: object, worked: bool
) -> None:
    if worked:
        await chat.complete(SCHEMA)
    asked = len(picky.requests)
    picky.rule = lambda body: refused(status, said)
    with pytest.raises(InvalidReply):
        await chat.complete(SCHEMA)
    is_about_reply = "json_validate_failed" in str(said)
    assert len(picky.requests) == asked + 1 + is_about_reply


async def test_a_refusal_without_a_hint_after_an_answer_is_about_the_prompt(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    await chat.complete(SCHEMA)
    picky.rule = lambda body: refused(400, {"error": "no"})
    with pytest.raises(InvalidReply):
        await chat.complete(SCHEMA)
    assert len(picky.requests) == 2


async def test_an_endpoint_that_has_changed_is_learned_anew(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    """It refuses what it has accepted, and does not say what."""
    await chat.complete(SCHEMA)
    picky.rule = without("seed", said="Bad Request")
    for _ in range(3):
        with pytest.raises(InvalidReply):
            await chat.complete(SCHEMA)
    await chat.complete(SCHEMA)
    assert Change.SEED in chat.dialect.changes
    picky.rule = without("response_format", said="Bad Request")
    for _ in range(3):
        with pytest.raises(InvalidReply):
            await chat.complete(SCHEMA)
    with pytest.raises(UnsupportedReplyMode):
        await chat.complete(SCHEMA)


async def test_an_endpoint_that_takes_nothing_is_told_in_its_own_words(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    said = f"Model Not Exist, says\n{KEY}: " + "please " * 200
    picky.rule = lambda body: refused(400, openai_error(said))
    with pytest.raises(ModelRejected, match="Model Not Exist, says …: please") as told:
        await probed(chat, 10.0)
    assert len(str(told.value)) < 500
    assert len(picky.requests) == 1
    picky.rule = lambda body: refused(400, {"error": "go away"})
    with pytest.raises(ModelRejected, match="go away"):
        await probed(chat, 10.0)
    assert len(picky.requests) <= 14


async def test_a_form_that_was_accepted_and_is_refused_now_is_told(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    await chat.complete(SCHEMA)
    picky.rule = without("response_format", said=openai_error("response_format: unsupported"))
    with pytest.raises(UnsupportedReplyMode, match="response_format: unsupported"):
        await chat.complete(SCHEMA)
    object_turn = replace(TEXT, form=JsonObject())
    with pytest.raises(UnsupportedReplyMode):
        await chat.complete(object_turn)


async def test_a_schema_with_other_keywords_is_learned_when_it_comes(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    await chat.complete(SCHEMA)
    words = {"type": "array", "items": {"type": "string", "maxLength": 9}}
    labels = replace(
        TEXT, form=JsonSchema("labels", {"type": "object", "properties": {"w": words}})
    )
    picky.rule = in_order((lambda body: has(body, "maxLength"), 400, {"error": "no"}))
    await chat.complete(labels)
    assert Change.BOUNDS in chat.dialect.changes


async def test_a_crash_on_a_form_leads_to_the_next_one(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    crash = refused(500, "Internal Server Error")
    picky.rule = lambda body: crash if has(body, "json_schema") else None
    assert await probed(chat, 10.0) is ReplyMode.JSON_OBJECT
    left = [crash] * 2
    picky.rule = lambda body: left.pop() if left else None
    assert await probed(chat, 10.0) is ReplyMode.JSON_SCHEMA, "an outage that has passed"
    picky.rule = lambda body: crash
    with pytest.raises(ModelUnavailable):
        await probed(chat, 10.0)


async def test_a_generation_that_fails_now_and_then_is_asked_for_again(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    status, said = PROMPTS[-1]
    failing = refused(status, said)
    picky.rule = lambda body: failing if body["seed"] % 2 == 0 else None
    await chat.complete(SCHEMA)
    assert [body["seed"] for body in picky.requests] == [0, 1]


async def test_a_page_is_the_wrong_address_or_an_outage(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    page = Response("<!doctype html><title>Open WebUI</title>", media_type="text/html")
    picky.rule = lambda body: page
    with pytest.raises(ModelRejected, match="200: Open WebUI; that is a page for people"):
        await probed(chat, 10.0)
    picky.rule = lambda body: None
    await chat.complete(TEXT)
    picky.rule = lambda body: page
    with pytest.raises(ModelUnavailable, match="Open WebUI"):
        await chat.complete(TEXT)


# -- passing states


async def test_an_endpoint_that_is_busy_decides_nothing(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    answers = [
        JSONResponse({"error": {"message": "slow down", "code": 429}, "choices": None}),
        refused(429, openai_error("slow down")),
        refused(503, "upstream"),
    ]
    for answer in answers:
        picky.rule = lambda body, answer=answer: answer  # type: ignore[misc]
        with pytest.raises(ModelUnavailable):
            await probed(chat, 10.0)
    picky.rule = lambda body: None
    assert await probed(chat, 10.0) is ReplyMode.JSON_SCHEMA
    assert chat.dialect.changes == set()
