"""The question to a model for the lines of some items, and the lines in its reply."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import msgspec

from app.llm import InvalidReply, Message, Picture, Reply, ReplyMode, Turn
from app.llm.chat import Form, JsonObject, JsonSchema, Text
from app.llm.json_reply import JsonReply, ListForm, in_either_form
from app.llm.slates import closed
from prompts import GUIDANCE_CHARS, load, numbered, one_line, phrase
from tree.item import Item

LINES = 30  # of one question
LINE_CHARS = 400
_ITEM_CHARS = 420
_TITLE_CHARS, _PATH_CHARS = 160, 100
_TOKENS_PER_LINE, _USUAL_TOKENS_PER_LINE = 160, 50

# "7 [slow film]: A line", also with bullets, in bold, or without brackets.
_LINE = re.compile(
    r"^[^\w\n\[]{0,8}(\d{1,3})[^\w\n\[]{0,4}\[([^\]\n]{1,200})\][^\w\n]{0,6}[:\u2013-]"
    r"[*_ ]{0,4}([^\n]{1,12000})$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class ShownItem:
    """An item as a question shows it, and the tag that its line has to repeat."""

    tag: str
    text: str  # with its title, on one line
    title: str
    picture: str = ""  # a URL


@dataclass(frozen=True, slots=True)
class LineQuestion:
    """At most `LINES` items, what the owner says of the catalogue, and the language to write in."""

    items: Sequence[ShownItem]
    language: str
    guidance: str = ""


class SaidLine(msgspec.Struct, frozen=True):
    """A line of a reply: the number and the tag that the model says it belongs to."""

    n: int
    tag: str
    line: str


_LINES = ListForm("lines", SaidLine, "n", aliases={"number": "n", "text": "line"})


def shown_text(item: Item) -> str:
    """What a model reads of an item: title, categories and the start of the description."""
    parts = [one_line(item.title, _TITLE_CHARS)]
    if item.categories:
        parts.append(one_line(" › ".join(item.categories), _PATH_CHARS))
    if item.keywords:
        parts.append(one_line(", ".join(item.keywords), _PATH_CHARS))
    if item.description:
        parts.append(item.description[: 2 * _ITEM_CHARS])
    return one_line(" — ".join(filter(None, parts)), _ITEM_CHARS)


def wording(language: str, guidance: str) -> str:
    """A hash of what a line depends on beside its item."""
    phrases = phrase("lines_json", wanted=LINES), phrase("lines_text", wanted=LINES)
    asked = (load("enrich").fingerprint, *phrases, language, one_line(guidance, GUIDANCE_CHARS))
    return sha256("\0".join(asked).encode()).hexdigest()[:16]


def turn_of(question: LineQuestion, mode: ReplyMode, timeout_s: float) -> Turn:
    """The call that asks for the lines. `mode` is one that writes text."""
    system, user = load("enrich").render(
        guidance=one_line(question.guidance, GUIDANCE_CHARS) or phrase("nothing"),
        language=question.language,
        items=numbered(
            [f"[{item.tag}] {item.text}" for item in question.items], _ITEM_CHARS + _TITLE_CHARS
        ),
    )
    wanted = len(question.items)
    form: Form = Text()
    how = phrase("lines_text", wanted=wanted)
    if mode is not ReplyMode.TEXT:
        how = phrase("lines_json", wanted=wanted)
        form = _schema() if mode is ReplyMode.JSON_SCHEMA else JsonObject()
    pictures = tuple(
        Picture(phrase("picture_of", number=number, tag=item.tag), item.picture)
        for number, item in enumerate(question.items, 1)
        if item.picture
    )
    messages = (Message("system", f"{system}\n\n{how}"), Message("user", user, pictures))
    return Turn(messages, form, 64 + _TOKENS_PER_LINE * wanted, timeout_s)


def usual_output_tokens(items: int) -> int:
    """About how many tokens a model writes for this number of items."""
    return 10 + _USUAL_TOKENS_PER_LINE * items


def read(mode: ReplyMode, reply: Reply) -> list[SaidLine]:
    """The lines of a reply, in its order; of one that was cut off, those that are whole.

    Raises InvalidReply when there are none.
    """
    json = mode is not ReplyMode.TEXT
    said = in_either_form(reply.text, _in_json, lambda _: _in_text(reply), json=json)
    if not said:
        raise InvalidReply("no lines in the reply")
    return said


def _in_json(reply: JsonReply) -> list[SaidLine]:
    return reply.entries(_LINES)


def _in_text(reply: Reply) -> list[SaidLine]:
    text = reply.text if reply.complete else reply.text.rpartition("\n")[0]
    return [SaidLine(int(n), tag, line) for n, tag, line in _LINE.findall(text)]


@lru_cache(maxsize=1)
def _schema() -> JsonSchema:
    """The same schema for every question: providers compile it once."""
    fields: dict[str, object] = {
        "n": {"type": "integer", "minimum": 1, "maximum": LINES},
        "tag": {"type": "string", "maxLength": 80},
        "line": {"type": "string", "maxLength": LINE_CHARS},
    }
    lines = {"type": "array", "maxItems": LINES, "items": closed(fields)}
    return JsonSchema("lines", closed({"lines": lines}))
