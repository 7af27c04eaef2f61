"""The question to a model for the signs of some siblings, and what may be taken from its reply."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from app.llm import InvalidReply, Message, Reply, ReplyMode, Turn
from app.llm.chat import Form, JsonObject, JsonSchema, Text
from app.llm.slates import closed
from prompts import load, numbered, one_line, phrase

GROUPS = 20  # of one question: a family of the usual fan-out is asked for at once
TITLE_CHARS, SIGNPOST_CHARS = 80, 200
_LINE_CHARS = 400
_SECTION_CHARS = 200
_TOKENS_PER_SIGN, _USUAL_TOKENS_PER_SIGN = 100, 45

_WRITTEN_AS_WORDS = 0.7  # least share of letters, digits and blanks in what people can read
_NO_PLAIN_TEXT = re.compile(r"[<>{}|\\`]|://|\bwww\.", re.IGNORECASE)
_QUOTES = ('""', "''", "“”", "„“", "«»", "‘’", "「」")
_OBJECT = re.compile(r"\{[^{}]{1,800}\}")
# "7: Title | Signpost", and what models make of it: bullets, bold, rows of a table.
_LINE = re.compile(
    r"^[^\w\n]{0,8}(\d{1,3})[^\w\n]{0,3}[:.)|]([^|\n]{1,300})\|([^|\n]{1,600})\|?[ \t]*$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Sign:
    """What a model says of a group."""

    title: str
    signpost: str


@dataclass(frozen=True, slots=True)
class Groups:
    """Siblings to be told apart, at most `GROUPS` of them, one line each (see `group_line`)."""

    lines: Sequence[str]
    neighbours: Sequence[str]
    section: Sequence[str]
    language: str


def group_line(
    label: str, words: str, *, stays: bool, titles: Sequence[str] = (), holds: Sequence[str] = ()
) -> str:
    """A group as the model sees it: its name, telling words, and some of what is inside."""
    name = phrase("name_stays", label=label) if stays else label
    parts = [f"{name}: {words}" if words else name]
    if holds:
        parts.append(phrase("group_holds", names="; ".join(one_line(n, 60) for n in holds)))
    if titles:
        parts.append(phrase("group_items", titles="; ".join(one_line(t, 60) for t in titles)))
    return one_line(" — ".join(parts), _LINE_CHARS)


def turn_of(groups: Groups, mode: ReplyMode, timeout_s: float) -> Turn:
    """The call that asks for the signs. `mode` is one that writes text.

    The same groups make the same call, whatever their nodes are called and whoever asks.
    """
    system, user = load("label").render(
        groups=numbered(groups.lines, _LINE_CHARS),
        neighbours="\n".join(f"- {one_line(name, TITLE_CHARS)}" for name in groups.neighbours)
        or phrase("nothing"),
        section=one_line(" › ".join(groups.section), _SECTION_CHARS),
        language=groups.language,
    )
    wanted = len(groups.lines)
    form: Form = Text()
    how = phrase("signs_text", wanted=wanted)
    if mode is not ReplyMode.TEXT:
        how = phrase("signs_json", wanted=wanted)
        form = _schema() if mode is ReplyMode.JSON_SCHEMA else JsonObject()
    messages = (Message("system", f"{system}\n\n{how}"), Message("user", user))
    return Turn(messages, form, 64 + _TOKENS_PER_SIGN * wanted, timeout_s)


def usual_output_tokens(groups: int) -> int:
    """About how many tokens a model writes for so many groups."""
    return 10 + _USUAL_TOKENS_PER_SIGN * groups


def read(wanted: int, mode: ReplyMode, reply: Reply) -> dict[int, Sign | None]:
    """The signs by the numbers of their groups; None where what is said cannot be a sign.

    Of a number said twice the first counts; numbers that nobody asked for are passed over.
    Raises InvalidReply when the reply was cut off or names none of the groups.
    """
    if not reply.complete:
        raise InvalidReply("the reply was cut off")
    said = _in_text(reply.text) if mode is ReplyMode.TEXT else _in_json(reply.text)
    signs: dict[int, Sign | None] = {}
    for one in said:
        if 1 <= one.n <= wanted:
            signs.setdefault(one.n, _sign(one))
    if not signs:
        raise InvalidReply("no signs in the reply", "out_of_range" if said else "wrong_format")
    return signs


class _Said(msgspec.Struct):
    n: int
    title: str
    signpost: str = ""


class _Signs(msgspec.Struct):
    signs: list[_Said]


_UNREADABLE = (msgspec.DecodeError, UnicodeEncodeError, RecursionError)
_signs = msgspec.json.Decoder(_Signs)
_one = msgspec.json.Decoder(_Said, strict=False)


def _in_json(text: str) -> list[_Said]:
    """All signs, or out of a broken reply those that are whole."""
    try:
        return _signs.decode(text).signs
    except _UNREADABLE:
        found = []
        for part in _OBJECT.findall(text):
            try:
                found.append(_one.decode(part))
            except _UNREADABLE:
                continue
        return found


def _in_text(text: str) -> list[_Said]:
    return [_Said(int(n), title, signpost) for n, title, signpost in _LINE.findall(text)]


def _sign(said: _Said) -> Sign | None:
    title, signpost = _plain(said.title, TITLE_CHARS), _plain(said.signpost, SIGNPOST_CHARS)
    return Sign(title, signpost) if title and signpost else None


def _plain(text: str, max_chars: int) -> str | None:
    """Words without quotes and emphasis; None for what is no line of plain words.

    It will stand in prompts and on pages of other readers: nothing is mended that looks odd.
    """
    text = re.sub(" +", " ", text.strip(" *_#`"))
    if text[:1] + text[-1:] in _QUOTES and len(text) > 2:
        text = text[1:-1].strip(" ")
    if not text or _NO_PLAIN_TEXT.search(text) or one_line(text, max_chars) != text:
        return None
    words = sum(c.isalnum() or c == " " or unicodedata.category(c)[0] == "M" for c in text)
    if words < _WRITTEN_AS_WORDS * len(text) or not any(map(str.isalpha, text)):
        return None
    return text


@lru_cache(maxsize=1)
def _schema() -> JsonSchema:
    """The same for every question, so that providers compile it once."""
    fields: dict[str, object] = {
        "n": {"type": "integer", "minimum": 1, "maximum": GROUPS},
        "title": {"type": "string", "maxLength": TITLE_CHARS},
        "signpost": {"type": "string", "maxLength": SIGNPOST_CHARS},
    }
    signs = {"type": "array", "maxItems": GROUPS, "items": closed(fields)}
    return JsonSchema("signs", closed({"signs": signs}))
