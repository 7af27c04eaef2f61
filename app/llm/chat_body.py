"""The bodies of calls to OpenAI-compatible endpoints."""

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
