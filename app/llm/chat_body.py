"""The bodies of calls to OpenAI-compatible endpoints."""

from collections.abc import Mapping

from app.llm.chat import (
    Choice,
    Decisions,
    JsonObject,
    JsonSchema,
    Letters,
    Message,
    Predicate,
    Turn,
)
from app.llm.endpoint.dialect import Change, Dialect

_STRUCTURE = frozenset({"type", "properties", "required", "additionalProperties", "items", "enum"})


def chat_body(
    model: str, turn: Turn, dialect: Dialect, reasoning_effort: str | None = None
) -> dict[str, object]:
    """The body for /chat/completions."""
    changes = dialect.changes
    messages = turn.messages
    if Change.SYSTEM_ROLE in changes:
        messages = _folded(messages)
    body: dict[str, object] = {
        "model": model,
        "messages": conversation(messages),
        "max_tokens": turn.longest(dialect.room),
        "temperature": 0,
        "seed": turn.seed,
        "stream": False,
    }
    if reasoning_effort:
        body["reasoning_effort"] = reasoning_effort
    match turn.form:
        case JsonSchema(name, schema):
            form = {"name": name, "strict": True, "schema": _schema(schema, changes)}
            if Change.STRICT in changes:
                del form["strict"]
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        case JsonObject():
            body["response_format"] = {"type": "json_object"}
        case Letters(count):
            body |= {"logprobs": True, "top_logprobs": count, "max_tokens": 1}
        case _:
            pass
    for change in changes & body.keys():
        value = body.pop(change)
        if change is Change.MAX_TOKENS:  # reasoning models have another name for it
            body["max_completion_tokens"] = value
    if Change.OUTPUT_LIMIT in changes:
        body.pop("max_tokens", None)
        body.pop("max_completion_tokens", None)
    if Change.STREAMED in changes:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if Change.THINKING in changes:
        body["enable_thinking"] = False
    return body


def possible_changes(turn: Turn, dialect: Dialect, reasoning_effort: str | None) -> list[Change]:
    """The changes that make a difference for this turn and are not made yet."""
    body = chat_body("", turn, dialect, reasoning_effort)
    return [
        change
        for change in Change
        if change not in dialect.changes
        and chat_body("", turn, dialect.changed(change), reasoning_effort) != body
    ]


def _folded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with the text of the system at the start of the first message of the user."""
    system = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    if not system or not others:
        return messages
    first = others[0]
    text = "\n\n".join([*system, first.content])
    return (Message(first.role, text, first.pictures), *others[1:])


def _schema(found: Mapping[str, object], changes: frozenset[Change]) -> dict[str, object]:
    """A schema without the keywords that are left out."""
    if not changes & {Change.BOUNDS, Change.ADDITIONAL}:
        return dict(found)
    kept: dict[str, object] = {}
    for keyword, value in found.items():
        if keyword == "properties" and isinstance(value, Mapping):
            kept[keyword] = {name: _schema(one, changes) for name, one in value.items()}
        elif isinstance(value, Mapping):
            kept[keyword] = _schema(value, changes)
        elif keyword == "additionalProperties":
            if Change.ADDITIONAL not in changes:
                kept[keyword] = value
        elif keyword in _STRUCTURE or Change.BOUNDS not in changes:
            kept[keyword] = value
    return kept


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
