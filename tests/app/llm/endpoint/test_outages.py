"""An endpoint in trouble after it has worked: an outage, told once and counted."""

import logging

import pytest
from starlette.responses import JSONResponse

from app.llm import STAGES, Models, StageModel
from app.llm.chat import Message, Text, Turn
from app.llm.client import OpenAIChat, connect
from app.llm.endpoint.known import KnownEndpoint
from app.llm.endpoint.outages import Outages
from app.llm.errors import ModelRejected, ModelUnavailable
from app.llm.slates import ReplyMode
from app.storage.documents import MemoryDocuments
from tests.app.llm.endpoint.picky import PickyServer, refused

KEY = "sk-secret-key"
TURN = Turn((Message("user", "Hi"),), Text(), 20, 10.0)

TROUBLE = [
    (401, f"Incorrect API key provided: {KEY}."),
    (402, "Insufficient Balance"),
    (400, "Your credit balance is too low to access the Anthropic API."),
    (403, "Your account is suspended"),
    (404, "The model `m` does not exist"),
    (400, "Model Not Exist"),
    (424, "Failed Dependency"),
    (307, ""),
]


@pytest.mark.parametrize(("status", "said"), TROUBLE)
async def test_it_is_told_once_in_the_words_of_the_endpoint(
    picky: PickyServer, caplog: pytest.LogCaptureFixture, status: int, said: str
) -> None:
    outages = Outages()
    async with connect(picky.base_url, KEY) as client:
        chat = OpenAIChat(client, "m", outages=outages)
        await chat.complete(TURN)
        picky.rule = lambda body: refused(status, {"error": {"message": said}})
        for _ in range(3):
            with pytest.raises(ModelUnavailable, match=str(status)):
                await chat.complete(TURN)
        assert len(picky.requests) == 4
        assert outages.counts == {("m", str(status)): 3}
        (told,) = caplog.messages
        assert said.replace(KEY, "…") in told
        assert KEY not in caplog.text
        picky.rule = lambda body: None
        await chat.complete(TURN)
        assert caplog.messages[1:] == ["m answers again"]


async def test_a_limit_that_fails_some_calls_does_not_fill_the_log(
    picky: PickyServer, caplog: pytest.LogCaptureFixture
) -> None:
    outages = Outages()
    async with connect(picky.base_url, KEY) as client:
        chat = OpenAIChat(client, "m", outages=outages)
        for _ in range(5):
            picky.rule = lambda body: refused(429, "slow down", **{"retry-after-ms": "70"})
            with pytest.raises(ModelUnavailable) as told:
                await chat.complete(TURN)
            assert told.value.retry_after_s == pytest.approx(0.07)
            picky.rule = lambda body: None
            await chat.complete(TURN)
    assert outages.counts == {("m", "429"): 5}
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "slow down", "code": 429}, ModelUnavailable),
        ({"message": "Rate limit exceeded", "code": "rate_limit"}, ModelUnavailable),
        ({"message": "overloaded"}, ModelUnavailable),
        ({"message": "bad key", "code": 401}, ModelRejected),
        ({"message": "Invalid API key", "code": "invalid_api_key"}, ModelRejected),
    ],
)
async def test_an_error_in_a_200_counts_by_its_code(
    picky: PickyServer, chat: OpenAIChat, error: dict[str, object], kind: type[Exception]
) -> None:
    picky.rule = lambda body: JSONResponse({"error": error, "choices": None})
    with pytest.raises(kind, match=str(error["message"])):
        await chat.complete(TURN)
    picky.rule = lambda body: None
    await chat.complete(TURN)
    picky.rule = lambda body: JSONResponse({"error": error, "choices": None})
    with pytest.raises(ModelUnavailable):
        await chat.complete(TURN)


async def test_what_is_refused_while_looking_is_no_failure(
    picky: PickyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    outages = Outages()
    picky.rule = lambda body: refused(400, "no seed") if "seed" in body else None
    async with connect(picky.base_url, KEY) as client:
        await OpenAIChat(client, "m", outages=outages).complete(TURN)
    assert not outages.counts
    assert not caplog.messages


async def test_a_process_that_starts_in_an_outage_knows_that_the_model_has_worked(
    picky: PickyServer,
) -> None:
    documents = MemoryDocuments()
    async with connect(picky.base_url, KEY) as client:

        def models() -> Models:
            known = KnownEndpoint("m", "here", documents)
            model = StageModel(OpenAIChat(client, "m", known))
            stages = dict.fromkeys(STAGES, model)
            return Models(stages, documents, endpoint="here", known={"m": known})

        before = models()
        assert await before.reply_mode() is ReplyMode.JSON_SCHEMA
        await before.forget_mode()
        picky.rule = lambda body: refused(401, "the key was revoked")
        after = models()
        with pytest.raises(ModelUnavailable, match="the key was revoked"):
            await after.reply_mode()
        with pytest.raises(ModelRejected, match="the key was revoked"):
            await models().check()
        for one in (before, after):
            await one.aclose()
