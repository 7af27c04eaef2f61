"""Calls to OpenAI-compatible endpoints as JSON: what is sent, and what comes back."""

import math
import re
from collections.abc import Mapping

import msgspec

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
from app.llm.errors import InvalidReply

_MAX_TEXT = 65_536  # characters of a reply that are read; the reply to a slate has about 500
_NUMBER = re.compile(r"[0-9]{1,4}")


# -- what is sent


def chat_body(model: str, turn: Turn, refused: frozenset[str]) -> dict[str, object]:
    """The body for /chat/completions, without the optional parameters `refused`."""
    body: dict[str, object] = {
        "model": model,
        "messages": conversation(turn.messages),
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


def decision_body(model: str, messages: tuple[Message, ...], form: Decisions) -> dict[str, object]:
    """The body for /decisions."""
    return {
        "model": model,
        "input": conversation(messages),
        "questions": [_question(question) for question in form.questions],
    }


def conversation(messages: tuple[Message, ...]) -> list[dict[str, object]]:
    """Messages as JSON. Keys of caches and recordings depend on it: pictures are part of them."""
    return [{"role": message.role, "content": _content(message)} for message in messages]


def _content(message: Message) -> str | list[dict[str, object]]:
    if not message.pictures:
        return message.content
    parts: list[dict[str, object]] = [{"type": "text", "text": message.content}]
    for picture in message.pictures:
        parts.append({"type": "text", "text": picture.caption})
        shown = {"url": picture.url, "detail": "low"}
        parts.append({"type": "image_url", "image_url": shown})
    return parts


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


class _OnlyUsage(msgspec.Struct):
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
_only_usage = msgspec.json.Decoder(_OnlyUsage)
_decision = msgspec.json.Decoder(_Decision)


def read_completion(content: bytes) -> Reply:
    """The reply in an answer of /chat/completions. Raises InvalidReply."""
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
    return Reply(
        text=(first.message.content or "")[:_MAX_TEXT],
        letters=letters,
        usage=_chat_usage(found.usage),
        complete=first.finish_reason != "length",
    )


def read_usage(content: bytes) -> TokenUsage | None:
    """The usage in an answer of /chat/completions, also where its reply cannot be used."""
    try:
        return _chat_usage(_only_usage.decode(content).usage)
    except _UNREADABLE:
        return None


def _chat_usage(found: _ChatUsage | None) -> TokenUsage | None:
    if found is None:
        return None
    return _usage(found.prompt_tokens, found.completion_tokens, found.prompt_tokens_details)


def read_decision(content: bytes, form: Decisions) -> Reply:
    """The reply in an answer of /decisions. Raises InvalidReply."""
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
