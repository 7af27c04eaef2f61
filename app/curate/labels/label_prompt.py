"""The question to a model for the labels of some siblings, and what is used of its reply."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from app.llm import InvalidReply, Message, Reply, ReplyMode, Turn
from app.llm.chat import Form, JsonObject, JsonSchema, Text
from app.llm.json_reply import JsonReply, ListForm, in_either_form
from app.llm.slates import closed
from prompts import load, numbered, one_line, owner_note, phrase

GROUPS = 20  # of one question: siblings of the usual fan-out are one question
TITLE_CHARS, SIGNPOST_CHARS = 80, 200
_LINE_CHARS = 400
_SECTION_CHARS = 200
_TOKENS_PER_LABEL, _USUAL_TOKENS_PER_LABEL = 100, 45

_WRITTEN_AS_WORDS = 0.7  # least share of letters, digits and blanks in readable text
_NO_PLAIN_TEXT = re.compile(r"[<>{}|\\`]|://|\bwww\.", re.IGNORECASE)
_QUOTES = ('""', "''", "“”", "„“", "«»", "‘’", "「」")
# "7: Title | Signpost", also with bullets, in bold, or as the row of a table.
_LINE = re.compile(
    r"^[^\w\n]{0,8}(\d{1,3})[^\w\n]{0,3}[:.)|]([^|\n]{1,300}+)\|([^|\n]{1,600}+)\|?[ \t]*$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class NodeLabel:
    """The title and the signpost that a model gives to a group."""

    title: str
    signpost: str


@dataclass(frozen=True, slots=True)
class LabelQuestion:
    """At most `GROUPS` siblings as the model sees them, each a group with a `group_line`."""

    lines: Sequence[str]
    neighbours: Sequence[str]
    section: Sequence[str]
    language: str
    guidance: str = ""  # what the owner says of the catalogue


def group_line(
    label: str, words: str, *, stays: bool, titles: Sequence[str] = (), holds: Sequence[str] = ()
) -> str:
    """A group as the model sees it: its name, typical words, and some of its items or children."""
    name = phrase("name_stays", label=label) if stays else label
    parts = [f"{name}: {words}" if words else name]
    if holds:
        parts.append(phrase("group_holds", names="; ".join(one_line(n, 60) for n in holds)))
    if titles:
        parts.append(phrase("group_items", titles="; ".join(one_line(t, 60) for t in titles)))
    return one_line(" — ".join(parts), _LINE_CHARS)


def turn_of(question: LabelQuestion, mode: ReplyMode, timeout_s: float) -> Turn:
    """The call that asks for the labels. `mode` is one that writes text.

    The call depends on the question alone, so that a stored reply to it can be used.
    """
    prompt = load("label").with_note(owner_note(question.guidance))
    system, user = prompt.render(
        groups=numbered(question.lines, _LINE_CHARS),
        neighbours="\n".join(f"- {one_line(name, TITLE_CHARS)}" for name in question.neighbours)
        or phrase("nothing"),
        section=one_line(" › ".join(question.section), _SECTION_CHARS),
        language=question.language,
    )
    wanted = len(question.lines)
    form: Form = Text()
    how = phrase("signs_text", wanted=wanted)
    if mode is not ReplyMode.TEXT:
        how = phrase("signs_json", wanted=wanted)
        form = _schema() if mode is ReplyMode.JSON_SCHEMA else JsonObject()
    messages = (Message("system", f"{system}\n\n{how}"), Message("user", user))
    return Turn(messages, form, 64 + _TOKENS_PER_LABEL * wanted, timeout_s)


def usual_output_tokens(groups: int) -> int:
    """About how many tokens a model writes for this number of groups."""
    return 10 + _USUAL_TOKENS_PER_LABEL * groups


def read(wanted: int, mode: ReplyMode, reply: Reply) -> dict[int, NodeLabel | None]:
    """The labels by the numbers of their groups; None for an unusable label.

    Of a repeated number the first counts; unknown numbers are ignored. Raises InvalidReply when
    the reply was cut off or names none of the groups.
    """
    if not reply.complete:
        raise InvalidReply("the reply was cut off")
    json = mode is not ReplyMode.TEXT
    entries = in_either_form(reply.text, _in_json, _in_text, json=json)
    labels: dict[int, NodeLabel | None] = {}
    for entry in entries:
        if 1 <= entry.n <= wanted:
            labels.setdefault(entry.n, _label(entry))
    if not labels:
        raise InvalidReply("no labels in the reply", "out_of_range" if entries else "wrong_format")
    return labels


class _ReplyEntry(msgspec.Struct):
    n: int
    title: str
    signpost: str = ""


_SIGNS = ListForm(
    "signs", _ReplyEntry, "n", "title", {"number": "n", "name": "title", "description": "signpost"}
)


def _in_json(reply: JsonReply) -> list[_ReplyEntry]:
    return reply.entries(_SIGNS)


def _in_text(text: str) -> list[_ReplyEntry]:
    return [_ReplyEntry(int(n), title, signpost) for n, title, signpost in _LINE.findall(text)]


def _label(entry: _ReplyEntry) -> NodeLabel | None:
    title, signpost = _plain(entry.title, TITLE_CHARS), _plain(entry.signpost, SIGNPOST_CHARS)
    return NodeLabel(title, signpost) if title and signpost else None


def _plain(text: str, max_chars: int) -> str | None:
    """The text without quotes and emphasis; None unless it is one line of plain words.

    Labels are shown in prompts and on pages, so odd text is refused and not corrected.
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
    """The same schema for every question: providers compile it once."""
    fields: dict[str, object] = {
        "n": {"type": "integer", "minimum": 1, "maximum": GROUPS},
        "title": {"type": "string", "maxLength": TITLE_CHARS},
        "signpost": {"type": "string", "maxLength": SIGNPOST_CHARS},
    }
    signs = {"type": "array", "maxItems": GROUPS, "items": closed(fields)}
    return JsonSchema("signs", closed({"signs": signs}))
