"""The paper's user profile (§2.3.1): a model sums up in topics what a reader looks for."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256

import msgspec
import numpy as np

from app.llm.chat import Form, JsonObject, JsonSchema, Message, Reply, Text, Turn
from app.llm.errors import InvalidReply
from app.llm.slates import (
    SLATE_WIDTH,
    ReplyMode,
    Scored,
    closed,
    pick_list,
    picks_in_json,
    scored,
)
from app.ranking import Interest, Need
from app.recommend.lines import LINE_CHARS
from app.recommend.need import Words
from prompts import Perspective, load, numbered, one_line, phrase

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


class Topics(msgspec.Struct, frozen=True):
    """What a reader looks for, the most important first, and what they avoid."""

    topics: tuple[Topic, ...]
    avoid: tuple[str, ...] = ()


class History(msgspec.Struct, frozen=True):
    """What a model is told of a reader's past: the latest choices, and categories before them."""

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


def cache_key(
    history: History,
    model: tuple[str, str],
    mode: ReplyMode,
    perspective: Perspective,
    language: str,
) -> str:
    """A name for a profile that changes with all that it depends on but the branches shown.

    `model` is the endpoint and the name there.
    """
    prompts = [load(name, perspective).fingerprint for name in ("profile", "opening")]
    asked = (history, model, mode, language, prompts, phrase("topics_json"), phrase("topics_text"))
    return sha256(msgspec.json.encode(asked)).hexdigest()


def turn_of(
    history: History,
    mode: ReplyMode,
    *,
    perspective: Perspective,
    language: str,
    timeout_s: float,
) -> Turn:
    """The call that asks for the topics. `mode` is one that writes text."""
    system, user = load("profile", perspective).render(
        history=history.lines(), wish=history.wish(), language=language
    )
    form: Form = Text()
    how = phrase("topics_text")
    if mode is not ReplyMode.TEXT:
        how = phrase("topics_json")
        form = _schema() if mode is ReplyMode.JSON_SCHEMA else JsonObject()
    messages = (Message("system", f"{system}\n\n{how}"), Message("user", user))
    return Turn(messages, form, _OUTPUT_TOKENS, timeout_s)


def read(mode: ReplyMode, reply: Reply) -> Topics:
    """The topics in a reply. Raises InvalidReply when there are none."""
    if mode is ReplyMode.TEXT:
        return _checked(_from_lines(reply.text))
    return _checked(_decoded(reply.text))


def opening_turn(
    history: History,
    options: Sequence[str],
    mode: ReplyMode,
    *,
    perspective: Perspective,
    language: str,
    wanted: int,
    timeout_s: float,
) -> Turn:
    """Topics and the first level of the tree in one call, for a reader who is new to us."""
    system, user = load("opening", perspective).render(
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
    said = _decoded(reply.text)
    topics = _checked(said)
    picks, flaws = picks_in_json(reply.text)
    place = {number: at for at, number in enumerate(_usable(said), 1)}  # blank topics have gone
    for pick in picks:
        pick.interest = place.get(pick.interest or 1, MAX_TOPICS)
    return topics, scored(picks, flaws, options, len(topics.topics))


def silent(need: Need, topics: Topics) -> list[str]:
    """The topics to which no direction of the need belongs: `regrouped` wants their vectors."""
    owners, _ = _owners(need, topics)
    return [topic.topic for at, topic in enumerate(topics.topics) if at not in owners]


def regrouped(need: Need, topics: Topics, words: Words) -> Need:
    """The need with its directions under the model's topics.

    A direction belongs to the first topic that names its choice, else to the topic of the nearest
    one that does; a topic that names none gets a direction by its words, the vectors of which are
    `words`, or is left out. What the reader said stays an interest of its own. `need.sources`
    start with the listed choices, in their order.
    """
    if need.is_empty and not topics.topics:
        return need
    owners, said = _owners(need, topics)
    directions, weights, sources = [*need.directions], [*need.weights], [*need.sources]
    interests = [
        Interest(one_line(topic.topic, _TOPIC_CHARS), max(topic.weight, 1.0) / 100)
        for topic in topics.topics
    ]
    for at in np.flatnonzero(said).tolist():
        owners[at] = len(interests)
        interests.append(need.interests[int(need.owner[at])])
    for at, topic in enumerate(topics.topics):
        vector = words.get(topic.topic)
        if at not in owners and vector is not None and vector.any():
            directions.append(vector)
            weights.append(np.float32(0.5 * max(topic.weight, 1.0) / 100))
            sources.append(topic.topic)
            owners.append(at)
    return _packed(interests, directions, weights, owners, sources, need)


def _owners(need: Need, topics: Topics) -> tuple[list[int], list[bool]]:
    """For every direction its topic, and whether it is what the reader said."""
    named = {
        number - 1: at
        for at, topic in reversed(list(enumerate(topics.topics)))
        for number in topic.choices
    }
    said = [need.interests[int(owner)].said == "wish" for owner in need.owner]
    owner = np.array([named.get(at, -1) for at in range(len(need.owner))], np.int64)
    owner[said] = -1
    return _nearest_named(need, owner, said), said


def _nearest_named(need: Need, owner: "np.ndarray", said: Sequence[bool]) -> list[int]:
    wide = need.directions.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = wide / np.maximum(lengths, 1e-9)
    known = np.flatnonzero(owner >= 0)
    found = owner.tolist()
    for at, own in enumerate(found):
        if own < 0 and not said[at]:
            found[at] = int(owner[known[(unit[known] @ unit[at]).argmax()]]) if len(known) else 0
    return found


def _packed(
    interests: Sequence[Interest],
    directions: Sequence["np.ndarray"],
    weights: Sequence[np.float32],
    owners: Sequence[int],
    sources: Sequence[str],
    need: Need,
) -> Need:
    """Without the interests that no direction stands for."""
    used = sorted(set(owners))
    place = {old: new for new, old in enumerate(used)}
    shares = np.array(weights, np.float32)
    total = sum(interests[at].weight for at in used) or 1.0
    return replace(
        need,
        interests=tuple(replace(interests[at], weight=interests[at].weight / total) for at in used),
        directions=np.stack(directions) if directions else need.directions,
        weights=shares / shares.sum() if len(shares) else shares,
        owner=np.array([place[at] for at in owners], np.int64),
        sources=tuple(sources),
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


def _decoded(text: str) -> Topics:
    start, end = text.find("{"), text.rfind("}")
    try:
        return msgspec.json.decode(text[start : end + 1], type=Topics, strict=False)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidReply(f"no topics in the reply: {error}") from error


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
    """Numbers, from 1, of the topics that say something; at most 5."""
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
