"""`OpenAIChat`: any OpenAI-compatible endpoint through the official client."""

import asyncio
import math
import re
from collections.abc import Mapping
from http import HTTPStatus

import httpx2
import msgspec
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from app.llm.chat import (
    Choice,
    Decisions,
    JsonObject,
    JsonSchema,
    Letters,
    Message,
    Predicate,
    Reply,
    TokenUsage,
    Turn,
)
from app.llm.errors import InvalidReply, ModelRejected, ModelUnavailable, UnsupportedReplyMode

_BACKOFF_S = 0.25
_MAX_TEXT = 65_536  # characters of a reply that are looked at; a slate's reply has some 500
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
_NUMBER = re.compile(r"[0-9]{1,4}")
_OPTIONAL = ("temperature", "seed", "max_tokens", "logprobs", "response_format")


def connect(base_url: str | None, api_key: str | None) -> AsyncOpenAI:
    """A client for an endpoint; no connection is made yet. The caller closes it.

    aiohttp carries the calls: a third of the CPU time of the default transport. Retries are left
    to `ask`, which knows the request's deadline and budget.
    """
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or "none",  # local servers take any, the client demands one
        max_retries=0,
        timeout=60,
        http_client=DefaultAioHttpClient(),
    )


class OpenAIChat:
    """See ChatModel. The caller owns and closes `client`.

    Replies are read by our own small structs: 1 ms of CPU per call against 3 ms by the client's
    models and 5 ms by its `parse`.
    """

    def __init__(self, client: AsyncOpenAI, model: str) -> None:
        self._client = client
        self._name = model
        self._refused: frozenset[str] = frozenset()  # parameters that this endpoint does not take

    @property
    def name(self) -> str:
        return self._name

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel. Learns which optional parameters the endpoint refuses."""
        try:
            async with asyncio.timeout(turn.timeout_s):  # the client's own is per read
                while True:
                    try:
                        return await self._once(turn)
                    except openai.BadRequestError as error:
                        self._give_up(_refused_parameter(error), error)
        except TimeoutError as error:
            raise _timed_out(turn.timeout_s) from error
        except openai.OpenAIError as error:
            raise _translated(error) from error

    def _give_up(self, parameter: str | None, error: openai.BadRequestError) -> None:
        if parameter is None or parameter in self._refused:
            raise error
        if parameter == "response_format":
            raise UnsupportedReplyMode(_message(error)) from error
        if parameter == "logprobs":
            raise UnsupportedReplyMode(_message(error)) from error
        self._refused |= {parameter}

    async def _once(self, turn: Turn) -> Reply:
        if isinstance(turn.form, Decisions):
            body = _decision_body(self._name, turn.messages, turn.form)
            content = await self._post("/decisions", body, turn.timeout_s)
            return _read_decision(content, turn.form)
        content = await self._post(
            "/chat/completions", _chat_body(self._name, turn, self._refused), turn.timeout_s
        )
        return _read_completion(content)

    async def _post(self, path: str, body: Mapping[str, object], timeout_s: float) -> bytes:
        response = await self._client.post(
            path, cast_to=httpx2.Response, body=body, options={"timeout": timeout_s}
        )
        return response.content


# -- what is sent


def _chat_body(model: str, turn: Turn, refused: frozenset[str]) -> dict[str, object]:
    body: dict[str, object] = {
        "model": model,
        "messages": _conversation(turn.messages),
        "max_tokens": turn.max_output_tokens,
        "temperature": 0,
        "seed": turn.seed,
    }
    match turn.form:
        case JsonSchema(name, schema):
            form = {"name": name, "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        case JsonObject():
            body["response_format"] = {"type": "json_object"}
        case Letters(count):
            body |= {"logprobs": True, "top_logprobs": count, "max_tokens": 1}
        case _:
            pass
    for name in refused & body.keys():
        value = body.pop(name)
        if name == "max_tokens":  # reasoning models know it by another name
            body["max_completion_tokens"] = value
    return body


def _decision_body(model: str, messages: tuple[Message, ...], form: Decisions) -> dict[str, object]:
    return {
        "model": model,
        "input": _conversation(messages),
        "questions": [_question(question) for question in form.questions],
    }


def _conversation(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _question(question: Choice | Predicate) -> dict[str, object]:
    match question:
        case Predicate(instructions):
            return {"type": "predicate", "instructions": instructions}
        case Choice(instructions, options):
            choices = [{"value": str(number)} for number in range(1, options + 1)]
            return {"type": "choice", "instructions": instructions, "choices": choices}


# -- what comes back


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Token(msgspec.Struct):
    token: str
    logprob: float


class _Position(msgspec.Struct):
    top_logprobs: list[_Token] = []


class _Logprobs(msgspec.Struct):
    content: list[_Position] | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Candidate(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Candidate]
    usage: _Usage | None = None


class _Probability(msgspec.Struct):
    probability: float
    value: str | bool


class _Answer(msgspec.Struct):
    type: str
    probability: float | None = None
    probabilities: list[_Probability] = []


class _DecisionUsage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Details | None = None


class _Decision(msgspec.Struct):
    answers: list[_Answer]
    usage: _DecisionUsage | None = None


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_completion = msgspec.json.Decoder(_Completion)
_decision = msgspec.json.Decoder(_Decision)


def _read_completion(content: bytes) -> Reply:
    try:
        found = _completion.decode(content)
    except _UNREADABLE as error:
        raise InvalidReply(f"the endpoint's answer is not a completion: {error}") from error
    if not found.choices:
        raise InvalidReply("the endpoint's answer holds no choice")
    first = found.choices[0]
    if first.message.refusal:
        raise InvalidReply(f"the model refused: {first.message.refusal[:200]}")
    letters: dict[str, float] = {}
    if first.logprobs and first.logprobs.content:
        letters = {
            token.token: token.logprob
            for token in first.logprobs.content[0].top_logprobs
            if math.isfinite(token.logprob)
        }
    usage = None
    if found.usage is not None:
        usage = TokenUsage(
            found.usage.prompt_tokens,
            found.usage.completion_tokens,
            _cached(found.usage.prompt_tokens_details),
        )
    return Reply(
        text=(first.message.content or "")[:_MAX_TEXT],
        letters=letters,
        usage=usage,
        complete=first.finish_reason != "length",
    )


def _read_decision(content: bytes, form: Decisions) -> Reply:
    try:
        found = _decision.decode(content)
    except _UNREADABLE as error:
        raise InvalidReply(f"the endpoint's answer is not a decision: {error}") from error
    answers = [_chances(answer) for answer in found.answers[: len(form.questions)]]
    answers += [None] * (len(form.questions) - len(answers))
    usage = None
    if found.usage is not None:
        usage = TokenUsage(
            found.usage.input_tokens,
            found.usage.output_tokens,
            _cached(found.usage.input_tokens_details),
        )
    return Reply(decisions=tuple(answers), usage=usage)


def _chances(answer: _Answer) -> Mapping[int, float] | None:
    """By option; a predicate's under 1. None for a refusal."""
    if answer.type == "predicate" and answer.probability is not None:
        return {1: answer.probability}
    if answer.type == "choice":
        return {
            int(entry.value): entry.probability
            for entry in answer.probabilities
            if isinstance(entry.value, str) and _NUMBER.fullmatch(entry.value)
        }
    return None


def _cached(details: _Details | None) -> int:
    return (details.cached_tokens or 0) if details is not None else 0


# -- what goes wrong


def _translated(error: openai.OpenAIError) -> ModelUnavailable | ModelRejected | InvalidReply:
    if isinstance(error, openai.APIStatusError):
        return _translated_status(error)
    cause = error.__cause__ or error
    # aiohttp's transport calls a refused connection a timeout, too.
    if isinstance(error, openai.APITimeoutError) and not isinstance(cause, httpx2.ConnectTimeout):
        return ModelUnavailable("the model did not answer in time", timed_out=True)
    if isinstance(error, openai.APIConnectionError):
        return ModelUnavailable(f"no connection to the model: {cause}", retry_after_s=_BACKOFF_S)
    return ModelRejected(str(error))


def _translated_status(
    error: openai.APIStatusError,
) -> ModelUnavailable | ModelRejected | InvalidReply:
    status, code, said = error.status_code, error.code, _message(error)
    if code == "context_length_exceeded" or error.type == "exceed_context_size_error":
        return InvalidReply(f"the prompt is too long for the model: {said}")
    if code == "insufficient_quota":
        return ModelUnavailable(f"the account is used up: {said}")
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ModelUnavailable(
            f"the endpoint answers {status}: {said}", retry_after_s=_wait(error)
        )
    return ModelRejected(f"the endpoint answers {status}: {said}")


def _timed_out(timeout_s: float) -> ModelUnavailable:
    return ModelUnavailable(f"no answer from the model within {timeout_s:.1f} s", timed_out=True)


def _wait(error: openai.APIStatusError) -> float:
    """Seconds that the endpoint asks to wait, by `Retry-After` where it says so."""
    given = error.response.headers.get("retry-after", "")
    try:
        wait = float(given)
    except ValueError:  # absent, or a date, which no model endpoint sends
        return _BACKOFF_S
    return wait if wait >= 0 else _BACKOFF_S


def _message(error: openai.APIStatusError) -> str:
    return " ".join(error.message.split())[:300]


def _refused_parameter(error: openai.BadRequestError) -> str | None:
    """Which of the optional parameters a 400 is about."""
    said = f"{error.param or ''} {error.message}"
    return next((name for name in _OPTIONAL if name in said), None)
