"""Each server of the tests, through the client that the service uses."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)

from tests.servers.decisions import DecisionsServer, Input, Question, predicate
from tests.servers.hostile import Behaviour, HostileServer
from tests.servers.llama import CONTEXT_TOKENS, MODEL, SLOTS

Open: TypeAlias = Callable[..., AbstractAsyncContextManager[AsyncOpenAI]]

_PICK = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 40},
        "score": {"type": "integer", "minimum": 0, "maximum": 100},
        "for": {"type": "integer", "enum": [1, 2, 3]},
        "why": {"type": "string", "minLength": 1, "maxLength": 12},
    },
    "required": ["n", "score", "for", "why"],
    "additionalProperties": False,
}
_PICKS = {
    "type": "object",
    "properties": {"picks": {"type": "array", "items": _PICK, "minItems": 1, "maxItems": 3}},
    "required": ["picks"],
    "additionalProperties": False,
}
_SHAPED = {
    "type": "json_schema",
    "json_schema": {"name": "picks", "strict": True, "schema": _PICKS},
}


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[AsyncOpenAI]:
    client = AsyncOpenAI(base_url=url, api_key="key", **{"max_retries": 0, "timeout": 5, **options})
    async with client:
        yield client


@pytest.fixture
async def llama(llama_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(llama_url) as client:
        yield client


@pytest.fixture
async def hostile(hostile_server: HostileServer) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(hostile_server.base_url) as client:
        yield client


@pytest.fixture
async def decisions(decisions_server: DecisionsServer) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(decisions_server.base_url) as client:
        yield client


async def say(client: AsyncOpenAI, prompt: str = "Hi", **options: Any) -> Any:
    messages: Any = [{"role": "system", "content": "Rank."}, {"role": "user", "content": prompt}]
    return await client.chat.completions.create(model=MODEL, messages=messages, **options)


class TestLlama:
    async def test_lists_its_model(self, llama: AsyncOpenAI) -> None:
        assert [model.id async for model in llama.models.list()] == [MODEL]

    async def test_reads_any_text_and_counts_tokens(self, llama: AsyncOpenAI) -> None:
        reply = await say(llama, "Hällo 世界 🙂", max_completion_tokens=5, logit_bias={"2": -100})
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 5
        assert reply.usage.prompt_tokens > 10
        again = await say(llama, "Hällo 世界 🙂", max_completion_tokens=1)
        assert again.usage is not None
        assert again.usage.prompt_tokens_details is not None
        assert again.usage.prompt_tokens_details.cached_tokens > 10

    async def test_obeys_a_schema(self, llama: AsyncOpenAI) -> None:
        replies = await asyncio.gather(
            *(say(llama, response_format=_SHAPED, seed=seed) for seed in range(4 * SLOTS))
        )
        for reply in replies:
            assert reply.choices[0].finish_reason == "stop"
            picks = json.loads(reply.choices[0].message.content or "")["picks"]
            assert 1 <= len(picks) <= 3
            for pick in picks:
                assert 1 <= pick["n"] <= 40
                assert 0 <= pick["score"] <= 100
                assert pick["for"] in {1, 2, 3}
                assert 1 <= len(pick["why"]) <= 12

    async def test_writes_a_json_object(self, llama: AsyncOpenAI) -> None:
        reply = await say(
            llama, response_format={"type": "json_object"}, max_completion_tokens=2_000, seed=1
        )
        assert isinstance(json.loads(reply.choices[0].message.content or ""), dict)

    async def test_repeats_itself_for_a_seed(self, llama: AsyncOpenAI) -> None:
        replies = [await say(llama, max_completion_tokens=20, seed=seed) for seed in (1, 1, 2)]
        first, again, other = (reply.choices[0].message.content for reply in replies)
        assert first == again != other

    async def test_gives_log_probabilities(self, llama: AsyncOpenAI) -> None:
        reply = await say(llama, logprobs=True, top_logprobs=20, max_completion_tokens=2)
        logprobs = reply.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert len(logprobs.content[0].top_logprobs) == 20

    async def test_streams(self, llama: AsyncOpenAI) -> None:
        options: dict[str, Any] = {"seed": 1, "max_completion_tokens": 20}
        whole = await say(llama, **options)
        chunks = [
            chunk
            async for chunk in await say(
                llama, stream=True, stream_options={"include_usage": True}, **options
            )
        ]
        parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert len(parts) > 2
        assert "".join(parts) == whole.choices[0].message.content
        assert chunks[-1].usage is not None

    async def test_refuses_what_does_not_fit(self, llama: AsyncOpenAI) -> None:
        with pytest.raises(BadRequestError, match="exceeds the available context size"):
            await say(llama, "!" * (CONTEXT_TOKENS + 1))


_CHOICE = {
    "type": "choice",
    "name": "best",
    "instructions": "Which fits?",
    "choices": [{"value": "1"}, {"value": "2", "description": "A film"}, {"value": True}],
}
_PREDICATE = {"type": "predicate", "instructions": "It is a film."}
_SCORE = {"type": "score", "instructions": "How good?", "levels": [{"label": "a"}, {"label": "b"}]}


class TestDecisions:
    async def test_answers_every_kind(self, decisions: AsyncOpenAI) -> None:
        asked: Any = [_CHOICE, _PREDICATE, _SCORE]
        decision, again = [
            await decisions.decisions.create(model="m", input="x" * 400, questions=asked)
            for _ in range(2)
        ]
        choice, predicate, score = decision.answers
        assert decision == again
        assert choice.type == "choice"
        assert choice.name == "best"
        shares = {(type(p.value), p.value): p.probability for p in choice.probabilities}
        assert shares.keys() == {(str, "1"), (str, "2"), (bool, True)}
        assert sum(shares.values()) == pytest.approx(1)
        assert (
            choice.confidence == max(shares.values()) == shares[type(choice.choice), choice.choice]
        )
        assert predicate.type == "predicate"
        assert 0 <= predicate.probability <= 1
        assert score.type == "score"
        assert score.score == pytest.approx(score.probabilities[1].probability)
        assert 100 < decision.usage.total_tokens < 300

    async def test_is_scripted(
        self, decisions: AsyncOpenAI, decisions_server: DecisionsServer
    ) -> None:
        def answer(question: Question, shown: Input) -> object:
            return predicate(question, 1.0 if question["instructions"] == shown else 0.0)

        decisions_server.answer = answer  # type: ignore[assignment]  # whatever is JSON
        decisions_server.refused = {2}
        decisions_server.answers_at_most = 3
        asked: Any = [{"type": "predicate", "instructions": letter} for letter in "abcd"]
        decision: Any = await decisions.decisions.create(model="m", input="b", questions=asked)
        assert [answer.type for answer in decision.answers] == ["predicate"] * 2 + ["refusal"]
        assert [answer.probability for answer in decision.answers[:2]] == [0, 1]
        assert len(decisions_server.requests) == 1

    async def test_leaves_out_options(
        self, decisions: AsyncOpenAI, decisions_server: DecisionsServer
    ) -> None:
        decisions_server.options_at_most = 1
        asked: Any = [_CHOICE]
        decision: Any = await decisions.decisions.create(model="m", input="", questions=asked)
        assert [share.value for share in decision.answers[0].probabilities] == ["1"]

    @pytest.mark.parametrize(
        "questions",
        [
            [],
            [_PREDICATE] * 401,
            [{**_CHOICE, "choices": [{"value": "1"}]}],
            [{**_CHOICE, "choices": [{"value": "1"}] * 2}],
            [{**_CHOICE, "choices": [{"value": str(n)} for n in range(256)]}],
            [{**_CHOICE, "choices": [{"value": 1}, {"value": 2}]}],
            [{"type": "choice", "instructions": "?"}],
            [{**_SCORE, "levels": []}],
        ],
    )
    async def test_refuses_what_the_types_forbid(
        self, decisions: AsyncOpenAI, questions: list[Any]
    ) -> None:
        with pytest.raises(BadRequestError):
            await decisions.decisions.create(model="m", input="x", questions=questions)


_FAILURES = {
    Behaviour.UNAUTHORIZED: AuthenticationError,
    Behaviour.UNKNOWN_MODEL: NotFoundError,
    Behaviour.NO_SCHEMAS: BadRequestError,
    Behaviour.OUT_OF_QUOTA: RateLimitError,
    Behaviour.BUSY: RateLimitError,
    Behaviour.BUSY_RETRY_SOON: RateLimitError,
    Behaviour.BUSY_RETRY_LATE: RateLimitError,
    Behaviour.BROKEN: InternalServerError,
    Behaviour.UNAVAILABLE: InternalServerError,
    Behaviour.RESET: APIConnectionError,
    Behaviour.HANG: APITimeoutError,
    Behaviour.HALF_BODY: ValueError,
}
_CONTENTS = {
    Behaviour.INVENTED_NUMBERS: '"n": 9999',
    Behaviour.REPEATED_NUMBERS: '"n": 1, "score": 10',
    Behaviour.WRONG_SHAPE: '"ranking"',
    Behaviour.HALF_JSON: '{"picks"',
    Behaviour.CUT_BY_LENGTH: '{"picks"',
    Behaviour.EMPTY: "",
    Behaviour.NULL: None,
    Behaviour.REFUSAL: None,
    Behaviour.FOREIGN_PROSE: "祝",
    Behaviour.HUGE: "lorem",
    Behaviour.NO_USAGE: '{"picks"',
}


class TestHostile:
    async def test_is_well_formed_unless_told(
        self, hostile: AsyncOpenAI, hostile_server: HostileServer
    ) -> None:
        hostile_server.content = str.upper
        reply = await say(hostile, "shout")
        assert reply.choices[0].message.content == "SHOUT"
        assert [model.id async for model in hostile.models.list()] == ["hostile"]
        assert hostile_server.counts == {Behaviour.WELL_FORMED: 1}
        assert hostile_server.requests[0]["model"] == MODEL

    @pytest.mark.parametrize("behaviour", _FAILURES)
    async def test_fails(
        self, hostile: AsyncOpenAI, hostile_server: HostileServer, behaviour: Behaviour
    ) -> None:
        hostile_server.play([behaviour])
        with pytest.raises(_FAILURES[behaviour]) as failure:
            await say(
                hostile,
                response_format=_SHAPED,
                timeout=0.2 if behaviour is Behaviour.HANG else 5,
            )
        if isinstance(failure.value, APIStatusError) and failure.value.status_code != 503:
            assert failure.value.type
        assert hostile_server.counts == {behaviour: 1}
        assert (await say(hostile)).choices[0].message.content

    @pytest.mark.parametrize("behaviour", _CONTENTS)
    async def test_talks_nonsense(
        self, hostile: AsyncOpenAI, hostile_server: HostileServer, behaviour: Behaviour
    ) -> None:
        hostile_server.play([behaviour])
        reply = await say(hostile)
        said, expected = reply.choices[0].message.content, _CONTENTS[behaviour]
        assert said == expected or (said and expected and expected in said)
        cut = behaviour is Behaviour.CUT_BY_LENGTH
        assert reply.choices[0].finish_reason == ("length" if cut else "stop")
        assert (reply.choices[0].message.refusal is None) == (behaviour is not Behaviour.REFUSAL)
        assert (reply.usage is None) == (behaviour is Behaviour.NO_USAGE)

    async def test_answers_without_choices(
        self, hostile: AsyncOpenAI, hostile_server: HostileServer
    ) -> None:
        hostile_server.play([Behaviour.NO_CHOICES])
        assert (await say(hostile)).choices == []

    async def test_answers_with_a_web_page(
        self, hostile: AsyncOpenAI, hostile_server: HostileServer
    ) -> None:
        hostile_server.play([Behaviour.HTML])
        reply: object = await say(hostile)
        assert isinstance(reply, str)  # the client does not check
        assert "<h1>" in reply

    async def test_drips_past_the_timeout_of_a_read(
        self, hostile: AsyncOpenAI, hostile_server: HostileServer
    ) -> None:
        hostile_server.play([Behaviour.DRIP])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await say(hostile, timeout=0.4)

    async def test_plays_in_order(
        self, hostile: AsyncOpenAI, hostile_server: HostileServer
    ) -> None:
        script = [Behaviour.BROKEN, Behaviour.BUSY, Behaviour.RESET]
        hostile_server.play(script)
        for behaviour in script:
            with pytest.raises(_FAILURES[behaviour]):
                await say(hostile)
        await say(hostile)
        assert list(hostile_server.counts) == [*script, Behaviour.WELL_FORMED]

    async def test_says_when_to_retry(self, hostile_server: HostileServer) -> None:
        hostile_server.play([Behaviour.BUSY_RETRY_SOON])
        async with client_of(hostile_server.base_url, max_retries=1) as client:
            assert (await say(client)).choices[0].message.content
        assert hostile_server.counts.total() == 2

    async def test_stops_while_requests_hang(self) -> None:
        server = HostileServer()
        server.play([Behaviour.HANG, Behaviour.DRIP])
        async with client_of(server.base_url) as client:
            waiting = [asyncio.create_task(say(client)) for _ in range(2)]
            async with asyncio.timeout(5):
                while server.counts.total() < 2:
                    await asyncio.sleep(0.01)
            started = time.monotonic()
            await asyncio.to_thread(server.stop)
            assert time.monotonic() - started < 2
            for task in waiting:
                with pytest.raises(APIConnectionError):
                    await task
