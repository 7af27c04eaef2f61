"""What an endpoint answers to /chat/completions: a reply, read as leniently as it can be."""

from collections.abc import Iterator

import msgspec

from app.llm.chat import Reply, TokenUsage
from app.llm.errors import AnsweredWithError, InvalidReply
from app.llm.event_stream import completion_of, is_stream, without_comments
from app.llm.plain_json import UNREADABLE, decoded, items_of, member, number_of
from app.llm.thinking import answer_in, holds_answer

_MAX_TEXT = 65_536  # characters of a reply that are read; the reply to a slate has about 500
_MAX_WORDS = 2_000  # of an error; some quote the whole prompt
_CUT_OFF = ("length", "max_tokens", "max_output_tokens", "model_length", "token_limit")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts")


def read_completion(content: bytes) -> Reply:
    """The reply in an answer of /chat/completions.

    Raises InvalidReply, and AnsweredWithError for an error in the place of a reply.
    """
    body = _body(content)
    choice = next(items_of(member(body, "choices")), None)
    said = member(choice, "message", "delta")
    found = _answer(choice, said)
    if not found and (error := _error(body, choice)) is not None:
        raise error
    if not isinstance(choice, dict):
        raise InvalidReply("the endpoint's answer holds no choice")
    refusal = member(said, "refusal")
    if refusal and not found:
        raise InvalidReply(f"the model refused: {str(refusal)[:200]}")
    text, thought = answer_in(found)
    thoughts = _text(member(said, *_THOUGHTS))
    complete = not _is_cut_off(choice)
    if not text and complete and holds_answer(thoughts):
        text = thoughts
    usage = _usage(body, text or found)
    reasoning = usage.reasoning_tokens if usage is not None else 0
    return Reply(
        text=_shortened(text),
        letters=_letters(choice),
        usage=usage,
        complete=complete,
        only_thinking=not text and (thought or bool(thoughts) or reasoning > 0 or not complete),
    )


def read_usage(content: bytes) -> TokenUsage | None:
    """The usage in an answer of /chat/completions, also where its reply cannot be used."""
    try:
        return _usage(_body(content), "")
    except InvalidReply:
        return None


def _body(content: bytes) -> object:
    """The answer as plain values; that of a stream put together. Raises InvalidReply."""
    content = without_comments(content)
    if is_stream(content):
        return completion_of(content)
    try:
        return decoded(content)
    except UNREADABLE as error:
        raise InvalidReply(f"the endpoint's answer is not a completion: {error}") from error


# -- the text


def _answer(choice: object, said: object) -> str:
    """The text of a choice: its content, or the arguments of a function that it calls."""
    text = _text(said) if isinstance(said, str) else _text(member(said, "content"))
    if text.strip():
        return text
    text = _text(member(choice, "text"))
    return text if text.strip() else _arguments(said)


def _text(content: object) -> str:
    """Content as text: a string, a list of parts, or the very object that was asked for."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, str | dict) for part in content):
        parts = [_part(part) for part in content]
        if any(part is not None for part in parts) or not content:
            return "".join(part for part in parts if part is not None)
    if isinstance(content, dict | list):
        part = _part(content)
        return msgspec.json.encode(content).decode() if part is None else part
    return ""


def _part(part: object) -> str | None:
    """The text of a part of the content; "" for thoughts and pictures, None for other values."""
    if isinstance(part, str):
        return part
    if isinstance(kind := member(part, "type"), str):
        text = member(part, "text", "content")
        return text if isinstance(text, str) and "think" not in kind and kind != "reasoning" else ""
    text = member(part, "text")
    return text if isinstance(text, str) else None


def _arguments(said: object) -> str:
    """What a model says to a function that nobody offered: some put their JSON there."""
    calls = [member(call, "function", "custom") for call in items_of(member(said, "tool_calls"))]
    for call in (*calls, member(said, "function_call")):
        given = member(call, "arguments", "input")
        if isinstance(given, dict | list):
            return msgspec.json.encode(given).decode()
        if isinstance(given, str) and given.strip():
            return given
    return ""


def _shortened(text: str) -> str:
    """The text without half characters; of a very long one the beginning and the end."""
    text = text.encode(errors="replace").decode()
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2
    return f"{text[:half]}\n{text[1 - half :]}"


def _is_cut_off(choice: object) -> bool:
    reason = member(choice, "finish_reason", "stop_reason")
    if isinstance(reason, dict):
        reason = member(reason, "type", "reason")
    return isinstance(reason, str) and reason.lower() in _CUT_OFF


# -- letters


def _letters(choice: object) -> dict[str, float]:
    """The log-probabilities of the first token's alternatives, in any of the known forms."""
    logprobs = member(choice, "logprobs")
    first = next(items_of(member(logprobs, "content")), None)
    if first is None:  # as of /completions: a list per field
        first = {name: next(items_of(member(logprobs, name)), None) for name in _OLD_FIELDS}
    found = dict(_alternatives(member(first, "top_logprobs")))
    if not found:
        found = dict(_alternatives([first]))
    return found


_OLD_FIELDS = ("top_logprobs", "tokens", "token_logprobs")


def _alternatives(value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):  # {"A": -0.1}
        pairs = list(value.items())
    else:
        pairs = [
            (member(one, "token", "tokens"), member(one, "logprob", "token_logprobs"))
            for one in items_of(value)
        ]
    for token, logprob in pairs:
        if isinstance(token, str) and (chance := number_of(logprob)) is not None:
            yield token, chance


# -- usage


def _usage(body: object, text: str) -> TokenUsage | None:
    """The usage that a provider reports; None where it reports none, or what cannot be true.

    Some providers leave reasoning tokens out of those that were written and add them to the total.
    """
    found = member(body, "usage")
    if isinstance(found, list):
        found = next(reversed(found), None)
    read = _count(member(found, "prompt_tokens", "input_tokens"))
    written = _count(member(found, "completion_tokens", "output_tokens"))
    total = _count(member(found, "total_tokens"))
    if not read or (text.strip() and not written):
        return None
    if total is not None:
        written = max(written or 0, total - read)
    details = member(found, "completion_tokens_details", "output_tokens_details")
    reasoning = _count(member(details, "reasoning_tokens", "thinking_tokens"))
    if reasoning is None:
        reasoning = _count(member(found, "reasoning_tokens"))
    details = member(found, "prompt_tokens_details", "input_tokens_details")
    cached = _count(member(details, "cached_tokens"))
    if cached is None:
        cached = _count(member(found, "prompt_cache_hit_tokens", "cached_tokens"))
    return TokenUsage(read, written or 0, min(cached or 0, read), min(reasoning or 0, written or 0))


def _count(value: object) -> int | None:
    """A number of tokens; None for what is none."""
    number = number_of(value)
    return int(number) if number is not None and 0 <= number < 1e12 else None


# -- errors


def _error(body: object, choice: object) -> AnsweredWithError | None:
    """The error that an answer holds in place of a reply."""
    found = member(body, "error") or member(choice, "error")
    if found is None and member(body, "choices") is None:
        found = _named_otherwise(body)
    if not found:
        return None
    if isinstance(found, dict):
        code = member(found, "code", "status", "type")
        words = member(found, "message", "msg", "detail") or found
    else:
        code, words = member(body, "code", "status"), found
    number = number_of(code)
    words = words if isinstance(words, str) else str(words)
    return AnsweredWithError(
        " ".join(words[:_MAX_WORDS].split()),
        int(number) if number is not None else None,
        code if isinstance(code, str) else None,
    )


def _named_otherwise(body: object) -> object:
    """An error under another name; that of MiniMax, vLLM's and those of gateways."""
    if isinstance(base := member(body, "base_resp"), dict):
        code, words = member(base, "status_code"), member(base, "status_msg")
        return {"code": code, "message": words} if code else None
    for name in ("detail", "message", "msg", "errors"):
        if (words := member(body, name)) is not None:
            return {"code": member(body, "code", "status", "status_code"), "message": words}
    return None
