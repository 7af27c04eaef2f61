"""The paper's user profile (§2.3.1): the topics in which a model sums up what a user looks for."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256

import msgspec
import numpy as np

from app.llm.chat import Form, JsonObject, JsonSchema, Message, Reply, Text, Turn
from app.llm.errors import InvalidReply
from app.llm.json_reply import JsonReply, ListForm, in_either_form
from app.llm.slates import (
    SLATE_WIDTH,
    ReplyMode,
    Scored,
    closed,
    pick_list,
    picks_in_json,
    scored,
)
from app.ranking import Direction, Interest, Need
from app.recommend.prompt_lines import LINE_CHARS
from app.recommend.resolve import TextVectors
from prompts import Prompt, numbered, one_line, phrase

MAX_TOPICS = 5
_TOPIC_CHARS = 80
_HISTORY_CHARS = 100
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


class History(msgspec.Struct, frozen=True):
    """A user's past as a prompt shows it: the latest choices, and categories before them."""

    choices: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    wishes: tuple[str, ...] = ()

    def lines(self) -> str:
        if not self.choices:
            return phrase("nothing")
        listed = numbered(self.choices, _HISTORY_CHARS)
        if not self.categories:
            return listed
        before = "; ".join(one_line(name, _TOPIC_CHARS) for name in self.categories)
        return f"{listed}\n{phrase('categories_before', categories=before)}"

    def wish(self) -> str:
        return "\n".join(f"- {one_line(wish, 500)}" for wish in self.wishes) or phrase("nothing")

    @property
    def is_empty(self) -> bool:
        return not self.choices and not self.wishes


def profile_key(
    history: History,
    model: tuple[str, str],
    mode: ReplyMode,
    prompts: Sequence[str],
    language: str,
) -> str:
    """A name for a stored profile, which changes with all of its inputs except the branches.

    `model` is the endpoint and the name there, `prompts` the fingerprints of those that may be
    asked.
    """
    asked = (history, model, mode, language, prompts, phrase("topics_json"), phrase("topics_text"))
    return sha256(msgspec.json.encode(asked)).hexdigest()


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


def opening_turn(
    history: History,
    options: Sequence[str],
    mode: ReplyMode,
    prompt: Prompt,
    *,
    language: str,
    wanted: int,
    timeout_s: float,
) -> Turn:
    """The call that asks for topics and for the first level of the tree, for a new user."""
    system, user = prompt.render(
        options=numbered(options, LINE_CHARS),
        history=history.lines(),
        wish=history.wish(),
        language=language,
    )
    form: Form = JsonObject() if mode is ReplyMode.JSON_OBJECT else _opening_schema(wanted)
    how = phrase("opening_json", wanted=wanted)
    messages = (Message("system", f"{system}\n\n{how}"), Message("user", user))
    return Turn(messages, form, _OUTPUT_TOKENS + 16 * wanted, timeout_s)


def read_opening(options: int, reply: Reply) -> tuple[Topics, Scored]:
    """The topics, and float32[options, topics]. Raises InvalidReply unless both can be used."""
    said = JsonReply(reply.text)
    named = _in_json(said)
    topics = _checked(named)
    picks, flaws = picks_in_json(said)
    place = {number: at for at, number in enumerate(_usable(named), 1)}  # without blank topics
    for pick in picks:
        pick.interest = place.get(pick.interest or 1, MAX_TOPICS)
    return topics, scored(picks, flaws, options, len(topics.topics))


def topics_without_directions(need: Need, topics: Topics) -> list[str]:
    """The topics to which no direction of the need belongs: `regrouped` wants their vectors."""
    used = set(_topic_of_directions(need, topics))
    return [topic.topic for at, topic in enumerate(topics.topics) if at not in used]


def regrouped(need: Need, topics: Topics, vectors: TextVectors) -> Need:
    """The need with its directions under the model's topics.

    A direction belongs to the first topic that names its choice, else to the topic of the nearest
    one that does. A topic that names none gets a direction by its words, whose vectors are
    `vectors`, or is left out. A wish of the user stays an interest of its own. The directions of
    `need` start with the listed choices, in their order.
    """
    if need.is_empty and not topics.topics:
        return need
    interests = [
        Interest(one_line(topic.topic, _TOPIC_CHARS), max(topic.weight, 1.0) / 100)
        for topic in topics.topics
    ]
    directions: list[Direction] = []
    used = _topic_of_directions(need, topics)
    for direction, weight, topic_index in zip(need.directions, need.weights, used, strict=True):
        index = topic_index
        if index is None:
            index = len(interests)
            interests.append(need.interest_of(direction))
        directions.append(replace(direction, weight=float(weight), interest_index=index))
    for at, topic in enumerate(topics.topics):
        vector = vectors.get(topic.topic)
        if at not in used and vector is not None and vector.any():
            weight = 0.5 * max(topic.weight, 1.0) / 100
            directions.append(Direction(vector, weight, at, topic.topic))
    return _packed(need, interests, directions)


def _topic_of_directions(need: Need, topics: Topics) -> list[int | None]:
    """For every direction the position of its topic; None for a wish of the user."""
    named = {
        number - 1: at
        for at, topic in reversed(list(enumerate(topics.topics)))
        for number in topic.choices
    }
    wide = need.vectors.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = wide / np.maximum(lengths, 1e-9)
    is_wish = [need.interest_of(direction).origin == "wish" for direction in need.directions]
    known = [at for at in range(len(is_wish)) if at in named and not is_wish[at]]
    found: list[int | None] = []
    for at, wish in enumerate(is_wish):
        if wish:
            found.append(None)
        elif at in named:
            found.append(named[at])
        else:
            nearest = known[int((unit[known] @ unit[at]).argmax())] if known else None
            found.append(0 if nearest is None else named[nearest])
    return found


def _packed(need: Need, interests: Sequence[Interest], directions: Sequence[Direction]) -> Need:
    """The need without the interests that no direction stands for."""
    used = sorted({direction.interest_index for direction in directions})
    place = {old: new for new, old in enumerate(used)}
    total = sum(interests[at].weight for at in used) or 1.0
    return replace(
        need,
        interests=tuple(replace(interests[at], weight=interests[at].weight / total) for at in used),
        directions=tuple(
            replace(direction, interest_index=place[direction.interest_index])
            for direction in directions
        ),
    )


# -- the reply


@lru_cache(maxsize=1)
def _schema() -> JsonSchema:
    return JsonSchema("topics", closed(_topic_fields()))


@lru_cache(maxsize=64)
def _opening_schema(wanted: int) -> JsonSchema:
    fields: dict[str, object] = {**_topic_fields(), "picks": pick_list(MAX_TOPICS, wanted)}
    return JsonSchema("opening", closed(fields))


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
