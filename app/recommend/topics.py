"""The paper's user profile (§2.3.1), for its own chain: topics that a model sums up."""

import re
from functools import lru_cache

import msgspec

from app.llm.chat import Form, JsonObject, JsonSchema, Message, Reply, Text, Turn
from app.llm.errors import InvalidReply
from app.llm.json_reply import JsonReply, ListForm, in_either_form
from app.llm.slates import SLATE_WIDTH, ReplyMode, closed
from app.recommend.history import History
from prompts import Prompt, one_line, phrase

MAX_TOPICS = 5
_TOPIC_CHARS = 80
_OUTPUT_TOKENS = 400
_AVOIDED = 5
_LINE = re.compile(
    r"^[^\w\n]*(\d{1,3})\s*[:.\-\u2013]\s*([^\n(]{2,120})(?:\(([\d,; ]*)\))?", re.MULTILINE
)


class Topic(msgspec.Struct, frozen=True):
    """One line of interest, and which of the listed choices (from 1) show it."""

    topic: str
    weight: float = 50.0
    choices: tuple[int, ...] = ()


_TOPICS = ListForm(
    "topics",
    Topic,
    "topic",
    "weight",
    {"name": "topic", "importance": "weight", "items": "choices"},
)


class Topics(msgspec.Struct, frozen=True):
    """What a user looks for, the most important first, and what the user avoids."""

    topics: tuple[Topic, ...]
    avoid: tuple[str, ...] = ()


def topics_turn(
    history: History,
    mode: ReplyMode,
    prompt: Prompt,
    *,
    language: str,
    timeout_s: float,
) -> Turn:
    """The call that asks for the topics. `mode` is one that writes text."""
    system, user = prompt.render(history=history.lines(), wish=history.wish(), language=language)
    form: Form = Text()
    how = phrase("topics_text")
    if mode is not ReplyMode.TEXT:
        how = phrase("topics_json")
        form = _schema() if mode is ReplyMode.JSON_SCHEMA else JsonObject()
    messages = (Message("system", f"{system}\n\n{how}"), Message("user", user))
    return Turn(messages, form, _OUTPUT_TOKENS, timeout_s)


def read_topics(mode: ReplyMode, reply: Reply) -> Topics:
    """The topics in a reply. Raises InvalidReply when there are none."""
    json = mode is not ReplyMode.TEXT
    return _checked(in_either_form(reply.text, _in_json, _from_lines, json=json))


# -- the reply


@lru_cache(maxsize=1)
def _schema() -> JsonSchema:
    return JsonSchema("topics", closed(_topic_fields()))


def _topic_fields() -> dict[str, object]:
    topic: dict[str, object] = {
        "topic": {"type": "string", "maxLength": _TOPIC_CHARS},
        "weight": {"type": "integer", "minimum": 0, "maximum": 100},
        "choices": {
            "type": "array",
            "maxItems": 10,
            "items": {"type": "integer", "minimum": 1, "maximum": SLATE_WIDTH},
        },
    }
    words = {"type": "string", "maxLength": 60}
    return {
        "topics": {"type": "array", "maxItems": MAX_TOPICS, "items": closed(topic)},
        "avoid": {"type": "array", "maxItems": _AVOIDED, "items": words},
    }


def _in_json(reply: JsonReply) -> Topics:
    """The topics as they were said. Raises InvalidReply."""
    return Topics(tuple(reply.entries(_TOPICS)), tuple(reply.strings("avoid")))


def _from_lines(text: str) -> Topics:
    found = [
        (int(weight), words.strip(), numbers) for weight, words, numbers in _LINE.findall(text)
    ]
    return Topics(
        tuple(
            Topic(words, weight, tuple(map(int, re.findall(r"\b\d{1,3}\b", numbers))))
            for weight, words, numbers in found
            if weight
        ),
        tuple(words for weight, words, _ in found if not weight),
    )


def _usable(topics: Topics) -> list[int]:
    """Numbers, from 1, of the topics that are not blank; at most 5."""
    numbers = (
        number
        for number, topic in enumerate(topics.topics, 1)
        if one_line(topic.topic, _TOPIC_CHARS)
    )
    return list(numbers)[:MAX_TOPICS]


def _checked(topics: Topics) -> Topics:
    kept = tuple(topics.topics[number - 1] for number in _usable(topics))
    if not kept:
        raise InvalidReply("no topics in the reply", "missing")
    return Topics(
        tuple(
            msgspec.structs.replace(topic, weight=min(max(0.0, topic.weight), 100.0))  # NaN: 0
            for topic in kept
        ),
        topics.avoid[:_AVOIDED],
    )
