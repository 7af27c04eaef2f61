"""`OpenAIChat`: any OpenAI-compatible endpoint through the official client."""

import asyncio
import logging
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

logger = logging.getLogger(__name__)

_BACKOFF_S = 0.25
_MAX_TEXT = 65_536  # characters of a reply that are read; the reply to a slate has about 500
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
_NUMBER = re.compile(r"[0-9]{1,4}")
_OPTIONAL = ("temperature", "seed", "max_tokens", "logprobs", "response_format")
_REFUSING = r"(?:unsupported|not supported|does not support|unknown|unrecognized|not permitted)"
_COMPLAINT = re.compile(
    rf"{_REFUSING}\W+(?:\w+\W+){{0,3}}?({'|'.join(_OPTIONAL)})\b"
    rf"|\b({'|'.join(_OPTIONAL)})\b\W+(?:\w+\W+){{0,3}}?{_REFUSING}",
    re.IGNORECASE,
)
_ABOUT_PROMPT = ("context_length_exceeded", "exceed_context_size_error", "content_filter")
_UNACCEPTABLE = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_SHORTEST_KEY = 4


def connect(base_url: str | None, api_key: str | None) -> AsyncOpenAI:
    """A client for an endpoint; no connection is made yet. The caller closes it.

    The transport is aiohttp: a third of the CPU time of the default one. Retries are made by
    `ask`, which knows the request's deadline and budget. Redirects are not followed: they could
    send keys and prompts to any address.
    """
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or "none",  # local servers accept any key, and the client requires one
        max_retries=0,
        timeout=60,
        http_client=DefaultAioHttpClient(follow_redirects=False),
    )


class OpenAIChat:
    """See ChatModel. The caller owns and closes `client`.

    Replies are decoded into our own small structs: 1 ms of CPU per call, against 3 ms with the
    client's models and 5 ms with its `parse`.
    """

    def __init__(self, client: AsyncOpenAI, model: str) -> None:
        self._client = client
        self._name = model
        self._works = False  # after its first answer, a 400 is about one prompt
        self._refused: frozenset[str] = frozenset()  # parameters that this endpoint rejects

    @property
    def name(self) -> str:
        return self._name

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel. Learns which optional parameters the endpoint rejects."""
        try:
            async with asyncio.timeout(turn.timeout_s):  # the client's own timeout is per read
                while True:
                    try:
                        reply = await self._once(turn)
                        self._works = True
                        return reply
                    except openai.BadRequestError as error:
                        self._stop_sending(_refused_parameter(error), error)
        except TimeoutError as error:
            raise _timed_out(turn.timeout_s) from error
        except openai.OpenAIError as error:
            key = self._client.api_key
            raise translated(error, self._name, key, about_prompt=self._works) from error
        except (ValueError, UnicodeError) as error:
            raise ModelRejected("the address or the key of the endpoint cannot be used") from error

    def _stop_sending(self, parameter: str | None, error: openai.BadRequestError) -> None:
        if parameter is None or parameter in self._refused:
            raise error
        if parameter in ("response_format", "logprobs"):
            raise UnsupportedReplyMode(f"the endpoint does not support {parameter}") from error
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
        if name == "max_tokens":  # reasoning models have another name for it
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


class _ChatUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Token(msgspec.Struct):
    token: str
    logprob: float


class _Position(msgspec.Struct):
    top_logprobs: list[_Token] = []


class _Logprobs(msgspec.Struct):
    content: list[_Position] | None = None


class _ReplyMessage(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Candidate(msgspec.Struct):
    message: _ReplyMessage
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Candidate]
    usage: _ChatUsage | None = None


class _Probability(msgspec.Struct):
    probability: float
    value: str | bool


class _Answer(msgspec.Struct):
    type: str
    probability: float | None = None
    probabilities: list[_Probability] = []


class _DecisionUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
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
        reported = found.usage
        usage = _usage(
            reported.prompt_tokens, reported.completion_tokens, reported.prompt_tokens_details
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
    answers = [_probabilities(answer) for answer in found.answers[: len(form.questions)]]
    answers += [None] * (len(form.questions) - len(answers))
    usage = None
    if found.usage is not None:
        reported = found.usage
        usage = _usage(reported.input_tokens, reported.output_tokens, reported.input_tokens_details)
    return Reply(decisions=tuple(answers), usage=usage)


def _probabilities(answer: _Answer) -> Mapping[int, float] | None:
    """Probabilities by option; that of a predicate under 1. None when the model declined."""
    if answer.type == "predicate" and answer.probability is not None:
        return {1: answer.probability}
    if answer.type == "choice":
        return {
            int(entry.value): entry.probability
            for entry in answer.probabilities
            if isinstance(entry.value, str) and _NUMBER.fullmatch(entry.value)
        }
    return None


def _usage(read: int | None, written: int | None, details: _Details | None) -> TokenUsage | None:
    """The usage that a provider reports, with plausible values; None when it reports none."""
    if read is None or read < 0:
        return None
    cached = (details.cached_tokens or 0) if details is not None else 0
    return TokenUsage(read, max(0, written or 0), min(max(0, cached), read))


# -- what goes wrong


def translated(
    error: openai.OpenAIError, name: str, key: str, *, about_prompt: bool
) -> ModelUnavailable | ModelRejected | InvalidReply:
    """The error of this package for one of the client.

    Its message is our own: that of a provider may hold keys, prompts and addresses. With
    `about_prompt`, a rejection concerns this prompt, as the endpoint has accepted others.
    """
    if isinstance(error, openai.APIStatusError):
        message = _without_key(" ".join(error.message.split())[:500], key)
        logger.warning("%s: the endpoint answers %d: %s", name, error.status_code, message)
        return _of_status(error, about_prompt=about_prompt)
    cause = error.__cause__ or error
    # aiohttp's transport reports a refused connection as a timeout.
    refused = isinstance(cause, httpx2.ConnectTimeout)
    if isinstance(error, openai.APITimeoutError) and not refused:
        return ModelUnavailable("the model did not answer in time", timed_out=True)
    if isinstance(error, openai.APIConnectionError):
        logger.warning("%s: no connection: %s", name, cause)
        return ModelUnavailable("no connection to the model", retry_after_s=_BACKOFF_S)
    return ModelRejected(f"the client refuses the call: {type(error).__name__}")


def _of_status(
    error: openai.APIStatusError, *, about_prompt: bool
) -> ModelUnavailable | ModelRejected | InvalidReply:
    status, code = error.status_code, error.code
    named = f"{status} ({code})" if isinstance(code, str) else str(status)
    if code == "insufficient_quota":
        return ModelUnavailable("the account at the endpoint is used up")
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ModelUnavailable(f"the endpoint answers {named}", retry_after_s=_wait(error))
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return ModelRejected(f"the endpoint answers {named}: it has moved; set its new address")
    if code in _ABOUT_PROMPT or error.type in _ABOUT_PROMPT:
        return InvalidReply(f"the endpoint does not take this prompt: {named}")
    if about_prompt and status in _UNACCEPTABLE:  # it accepts other prompts
        return InvalidReply(f"the endpoint does not take this prompt: {named}")
    return ModelRejected(f"the endpoint answers {named}: check its address, the key and the model")


def _timed_out(timeout_s: float) -> ModelUnavailable:
    return ModelUnavailable(f"no answer from the model within {timeout_s:.1f} s", timed_out=True)


def _wait(error: openai.APIStatusError) -> float:
    """Seconds to wait before a retry: `Retry-After` of the endpoint, or our own."""
    given = error.response.headers.get("retry-after", "")
    try:
        wait = float(given)
    except ValueError:  # missing, or a date, which no model endpoint sends
        return _BACKOFF_S
    return wait if wait >= 0 else _BACKOFF_S


def _without_key(text: str, key: str) -> str:
    return text.replace(key, "…") if len(key) >= _SHORTEST_KEY else text


def _refused_parameter(error: openai.BadRequestError) -> str | None:
    """The optional parameter that a 400 is about; None when it is about something else."""
    if error.param in _OPTIONAL:
        return error.param
    found = _COMPLAINT.search(error.message)
    return found[1] or found[2] if found else None
