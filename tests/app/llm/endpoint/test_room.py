"""Models that spend all tokens of a reply on thinking are asked again with more."""

import math
from dataclasses import replace

import pytest
from starlette.responses import JSONResponse, Response

from app.budget import Budget, Claim
from app.llm.ask import FREE, CallContext, UsageTotals, ask, estimated_input
from app.llm.chat import Message, Reply, Text, Turn
from app.llm.client import OpenAIChat, connect
from app.llm.endpoint.known import KnownEndpoint
from app.llm.errors import InvalidReply, SpentOnThinking
from app.llm.models import probed
from app.llm.slates import ReplyMode
from app.storage.documents import MemoryDocuments
from tests.app.llm.endpoint.picky import PICKS, Body, PickyServer, Rule, completion, refused

TURN = Turn((Message("user", "Hi"),), Text(), 600, 10.0)
SPENT = 600 + 2_400


def thinks(needed: int, words: str = "") -> Rule:
    """A model that needs so many tokens for its thoughts."""

    def rule(body: Body) -> Response | None:
        most = body["max_tokens"]
        if most >= needed:
            return None
        return completion(words, finish_reason="length", usage=(40, most))

    return rule


def context_of(chat: OpenAIChat, tokens: int = 100_000) -> CallContext:
    return CallContext(chat, FREE, Budget(20, tokens, math.inf), UsageTotals())


def text(reply: Reply) -> str:
    return reply.text


@pytest.mark.parametrize("words", ["", "<think>Let me see: the tea is"])
async def test_a_model_that_thinks_gets_room_and_keeps_it(picky: PickyServer, words: str) -> None:
    picky.rule = thinks(3_000, words)
    documents = MemoryDocuments()
    async with connect(picky.base_url, "key") as client:
        chat = OpenAIChat(client, "m", KnownEndpoint("m", "here", documents))
        context = context_of(chat)
        assert await ask(context, TURN, text) == PICKS
        assert [body["max_tokens"] for body in picky.requests] == [600, 2_400, 9_600]
        totals = context.totals
        assert (totals.calls, totals.output_tokens) == (3, SPENT + 20)
        assert context.budget.tokens_left == 100_000 - 3 * 40 - SPENT - 20
        other = OpenAIChat(client, "m", KnownEndpoint("m", "here", documents))
        assert await ask(context_of(other), TURN, text) == PICKS
        assert len(picky.requests) == 4


async def test_an_answer_that_thoughts_have_cut_off_is_asked_for_again(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    def rule(body: Body) -> Response | None:
        if body["max_tokens"] > 600:
            return None
        details = {"reasoning_tokens": 590}
        usage = {
            "prompt_tokens": 40,
            "completion_tokens": 600,
            "completion_tokens_details": details,
        }
        message = {"role": "assistant", "content": PICKS[:20]}
        choices = [{"index": 0, "message": message, "finish_reason": "length"}]
        return JSONResponse({"choices": choices, "usage": usage})

    picky.rule = rule
    assert await ask(context_of(chat), TURN, text) == PICKS
    assert [body["max_tokens"] for body in picky.requests] == [600, 2_400]
    picky.rule = lambda body: rule({"max_tokens": 0})
    for _ in range(2):  # with all the room there is, part of an answer is better than none
        assert await ask(context_of(chat), TURN, text) == PICKS[:20]


async def test_thoughts_that_end_by_themselves_give_no_room(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    open_thought = completion("<think>Let me see", finish_reason="stop", usage=(40, 20))
    replies = iter([open_thought, None])
    picky.rule = lambda _: next(replies)
    assert not (await chat.complete(TURN)).text
    assert chat.room == 1


async def test_room_that_is_not_needed_any_more_is_given_back(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    picky.rule = thinks(3_000)
    await ask(context_of(chat), TURN, text)
    assert chat.room == 16
    picky.rule = lambda _: None
    for _ in range(110):
        await chat.complete(TURN)
    assert chat.room == 1


async def test_a_model_that_never_ends_is_asked_three_times(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    picky.rule = thinks(10**9)
    context = context_of(chat)
    with pytest.raises(SpentOnThinking):
        await ask(context, TURN, text)
    assert len(picky.requests) == 3
    assert context.totals.flaws == {"wrong_format": 1}
    with pytest.raises(InvalidReply):
        await ask(context, TURN, text)
    assert len(picky.requests) == 4


async def test_a_claim_is_as_large_as_the_room(picky: PickyServer, chat: OpenAIChat) -> None:
    picky.rule = thinks(2_000)
    assert await ask(context_of(chat), TURN, text) == PICKS
    assert chat.room == 4
    claimed: list[int] = []

    class Watched(Budget):
        def claim(self, tokens: int, cost_usd: float = 0.0, *, seconds: float = 0.0) -> Claim:
            claimed.append(tokens)
            return super().claim(tokens, cost_usd, seconds=seconds)

    context = CallContext(chat, FREE, Watched(20, 10_000, math.inf), UsageTotals())
    await ask(context, TURN, text)
    assert claimed == [estimated_input(TURN) + 4 * 600]


async def test_a_room_that_is_too_large_for_the_model_is_made_smaller(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    picky.rule = thinks(2_000)
    await ask(context_of(chat), TURN, text)
    picky.rule = lambda body: (
        refused(400, {"error": {"message": "max_tokens is too large: 2400. This model supports at "
                                "most 1024 completion tokens"}})
        if body["max_tokens"] > 1024
        else None
    )  # fmt: skip
    assert await ask(context_of(chat), TURN, text) == PICKS
    assert chat.room == 1
    picky.rule = thinks(2_000)
    with pytest.raises(SpentOnThinking):
        await ask(context_of(chat), TURN, text)


async def test_a_probe_finds_the_room(picky: PickyServer, chat: OpenAIChat) -> None:
    for needed, room in ((900, 4), (4_000, 16)):
        picky.rule = thinks(needed)
        assert await probed(chat, 10.0) is ReplyMode.JSON_SCHEMA
        assert chat.room == room


async def test_a_short_reply_gets_room_for_as_many_thoughts(
    picky: PickyServer, chat: OpenAIChat
) -> None:
    picky.rule = thinks(2_000)
    short = replace(TURN, max_output_tokens=20)
    assert await ask(context_of(chat), short, text) == PICKS
    assert [body["max_tokens"] for body in picky.requests] == [20, 2_048]


async def test_the_effort_is_passed_on_and_left_out_where_it_is_refused(
    picky: PickyServer,
) -> None:
    async with connect(picky.base_url, "key") as client:
        chat = OpenAIChat(client, "m", reasoning_effort="low")
        await chat.complete(TURN)
        assert picky.requests[-1]["reasoning_effort"] == "low"
        said = {"error": {"message": "Unrecognized request argument supplied: reasoning_effort"}}
        picky.rule = lambda body: refused(400, said) if "reasoning_effort" in body else None
        await chat.complete(TURN)
        await chat.complete(TURN)
        assert ["reasoning_effort" in body for body in picky.requests] == [True, True, False, False]
