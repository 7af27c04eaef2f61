"""Kinds of endpoints that send an answer in another envelope."""

import json
from collections.abc import Callable

from tests.servers.endpoints.answerer import Json
from tests.servers.endpoints.kind import Kind, Sending, Sent, Written

_COMMENTS = ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"


def _with(change: Callable[[Json], object]) -> Sending:
    """The usual completion after a change."""

    def sends(written: Written) -> Sent:
        said = written.completion()
        change(said)
        return Sent(said)

    return sends


def _message(change: Callable[[Written], Json]) -> Sending:
    """A completion with another message."""
    return lambda written: Sent(
        written.completion({"role": "assistant", "content": None, **change(written)})
    )


def _usage(change: Callable[[int], object]) -> Sending:
    """A completion whose counts are written otherwise."""

    def sends(written: Written) -> Sent:
        counts = {name: change(count) for name, count in written.usage.items()}
        return Sent(written.completion(usage=counts))

    return sends


def _finish(reason: object) -> Sending:
    return _with(lambda said: said["choices"][0].update(finish_reason=reason))


def _raw(change: Callable[[str], str], media: str = "application/json") -> Sending:
    """The bytes of a completion after a change."""
    return lambda written: Sent(change(json.dumps(written.completion())), media=media)


def _stream(written: Written, before: str = "") -> Sent:
    """The pieces of the text as events, and the usage at the end."""
    text = written.text
    pieces = [text[at : at + 40] for at in range(0, len(text), 40)]
    deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": p} for p in pieces)]
    events: list[Json] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": written.finish}]})
    events.append({"choices": [], "usage": written.usage})
    said = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Sent(f"{before}{said}data: [DONE]\n\n", media="text/event-stream")


def _as_object(written: Written) -> object:
    """The object that was asked for; text stays text."""
    try:
        return json.loads(written.text)
    except ValueError:
        return written.text


def _called(written: Written) -> Json:
    return {"name": "json_tool_call", "arguments": written.text}


def _nan(said: str) -> str:
    return said.replace('"finish_reason"', '"logprobs": {"content": [NaN]}, "finish_reason"')


KINDS = (
    Kind("plain", "OpenAI's gpt-4 models: nothing special"),
    Kind(
        "content-parts",
        "gateways to Anthropic and Cohere: content as a list of parts",
        sends=_message(lambda said: {"content": [{"type": "text", "text": said.text}]}),
    ),
    Kind(
        "content-object",
        "gateways that parse what the model wrote: content is the object itself",
        sends=_message(lambda said: {"content": _as_object(said)}),
    ),
    Kind(
        "tool-call",
        "LiteLLM for models without JSON mode: the JSON in the arguments of a tool",
        sends=_message(
            lambda said: {"tool_calls": [{"type": "function", "function": _called(said)}]}
        ),
    ),
    Kind(
        "function-call",
        "older gateways: function_call in place of tool_calls",
        sends=_message(lambda said: {"function_call": _called(said)}),
    ),
    Kind("usage-strings", "gateways: counts of tokens as strings", sends=_usage(str)),
    Kind("usage-floats", "gateways: counts with a fraction", sends=_usage(lambda n: n + 0.5)),
    Kind("usage-lists", "gateways: counts in a list", sends=_usage(lambda n: [n])),
    Kind("usage-zero", "local servers: all counts are 0", sends=_usage(lambda n: 0)),
    Kind("usage-negative", "local servers: counts of −1", sends=_usage(lambda n: -1)),
    Kind(
        "usage-is-text",
        "gateways: usage is a string",
        sends=_with(lambda said: said.update(usage="?")),
    ),
    Kind("finish-number", "gateways: finish_reason is a number", sends=_finish(1)),
    Kind("finish-object", "TGI: finish_reason is an object", sends=_finish({"type": "eos"})),
    Kind("finish-list", "gateways: finish_reason is a list", sends=_finish(["stop"])),
    Kind("byte-order-mark", "Windows: a BOM before the JSON", sends=_raw("\ufeff".__add__)),
    Kind(
        "comments-first",
        "OpenRouter: comments keep the connection open until the JSON comes",
        sends=_raw(_COMMENTS.__add__),
    ),
    Kind("blank-lines-first", "gateways that send blank lines while they wait",
         sends=_raw("\n\n \n".__add__)),
    Kind("stream-unasked", "gateways that always stream", sends=_stream),
    Kind(
        "stream-with-comments",
        "OpenRouter behind a gateway that always streams",
        sends=lambda written: _stream(written, _COMMENTS),
    ),
    Kind("logprobs-nan", "local servers: NaN in the JSON", sends=_raw(_nan)),
    Kind(
        "keys-doubled",
        "gateways that add a field that is already there",
        sends=_raw(lambda said: said.replace('"choices":', '"choices": [], "choices":', 1)),
    ),
    Kind(
        "text-in-choice",
        "servers that answer as /completions does",
        sends=_with(lambda said: said["choices"][0].update(
            text=said["choices"][0].pop("message")["content"])),
    ),
    Kind(
        "extra-null",
        "servers that fill what they do not know with null",
        sends=_with(lambda said: said.update(error=None, service_tier=None, usage=None)),
    ),
)  # fmt: skip
