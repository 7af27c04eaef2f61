"""Calls that are refused after a probe: what is about a prompt, about the endpoint, or passes."""

from dataclasses import replace

import pytest
from starlette.responses import JSONResponse, Response

from app.llm.chat import JsonObject, JsonSchema
from app.llm.client import OpenAIChat
from app.llm.endpoint.dialect import Change
from app.llm.errors import InvalidReply, ModelRejected, ModelUnavailable, UnsupportedReplyMode
from app.llm.models import probed
from app.llm.slates import ReplyMode
from tests.app.llm.endpoint.picky import (
    KEY,
    SCHEMA,
    TEXT,
    PickyServer,
    has,
    in_order,
    openai_error,
    refused,
    without,
)


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
