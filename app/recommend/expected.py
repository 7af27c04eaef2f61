"""What a user is expected to want next: titles that a model writes in the words of the catalogue.

Vectors and words compare items with items far better than with a wish, and a model knows what
such items are called (HyDE, Gao et al., arXiv 2212.10496).
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

import msgspec

from app.llm.chat import Form, JsonObject, JsonSchema, Message, Reply, Text, Turn
from app.llm.errors import InvalidReply
from app.llm.json_reply import JsonReply, ListForm, in_either_form
from app.llm.slates import ReplyMode, closed
from app.recommend.history import History
from prompts import Prompt, one_line, phrase

_BY_WISH, _BY_HISTORY = 6, 10  # titles
_TITLE_CHARS = 120
_OUTPUT_TOKENS = 400
# "1. Dune", "[2] Solaris", "- Emma", and with asterisks around.
_LISTED = re.compile(
    r"^[ \t*\[(]{0,8}(?:\d{1,2}[.):\]]|[-\u2022*\u2013])[ \t*]{1,8}([^\n]{2,240})", re.MULTILINE
)


class Expected(msgspec.Struct, frozen=True):
    """Titles of items that a user may want, the likeliest first."""

    titles: tuple[str, ...]


def prompt_name(history: History) -> str:
    """The question about a user: a wish in words says more than the past."""
    return "expect_wish" if history.wishes else "expect_next"


def expected_key(history: History, whose: Sequence[object], mode: ReplyMode, prompt: Prompt) -> str:
    """A name for stored titles, which changes with all that they depend on except the examples.

    `whose` are the catalogue, the domains, the task, the endpoint and the model.
    """
    wanted = (phrase("titles_json", wanted=0), phrase("titles_text", wanted=0))
    asked = (history, whose, mode, prompt.fingerprint, wanted, _wanted(history))
    return sha256(msgspec.json.encode(asked)).hexdigest()


def expected_turn(
    history: History,
    examples: Sequence[str],
    mode: ReplyMode,
    prompt: Prompt,
    *,
    timeout_s: float,
) -> Turn:
    """The call that asks for titles. `examples` show how the catalogue words its own.

    `mode` is one that writes text.
    """
    values = {"history": history.lines()}
    if history.wishes:
        shown = (one_line(example, _TITLE_CHARS) for example in examples)
        listed = "\n".join(f"- {line}" for line in shown) or phrase("nothing")
        values |= {"wish": history.wish(), "examples": listed}
    system, user = prompt.render(**values)
    wanted = _wanted(history)
    form: Form = Text()
    how = phrase("titles_text", wanted=wanted)
    if mode is not ReplyMode.TEXT:
        how = phrase("titles_json", wanted=wanted)
        form = _schema(wanted) if mode is ReplyMode.JSON_SCHEMA else JsonObject()
    messages = (Message("system", f"{system}\n\n{how}"), Message("user", user))
    return Turn(messages, form, _OUTPUT_TOKENS, timeout_s)


def read_expected(mode: ReplyMode, reply: Reply) -> Expected:
    """The titles in a reply, each once, at most ten. Raises InvalidReply when there are none."""
    is_json = mode is not ReplyMode.TEXT or reply.text.lstrip().startswith("[")
    found = in_either_form(reply.text, _in_json, _in_lines, json=is_json)
    lines = (one_line(title, _TITLE_CHARS) for title in found)
    titles = dict.fromkeys(line for line in lines if any(map(str.isalpha, line)))
    if not titles:
        raise InvalidReply("no titles in the reply", "missing")
    return Expected(tuple(titles)[:_BY_HISTORY])


def _wanted(history: History) -> int:
    return _BY_WISH if history.wishes else _BY_HISTORY


class _Title(msgspec.Struct):
    title: str


_TITLES = ListForm("titles", _Title, key="title", aliases={"name": "title", "item": "title"})


def _in_lines(text: str) -> list[str]:
    """The lines of a list; without marks of a list, all lines, unless there is only one.

    One line alone is a refusal more often than a title, and those before and after a list are talk.
    """
    listed = _LISTED.findall(text)
    if listed:
        return listed
    lines = [line for line in text.splitlines() if line.strip() and not line.rstrip().endswith(":")]
    return lines if len(lines) > 1 else []


def _in_json(reply: JsonReply) -> list[str]:
    texts = reply.strings("titles") or reply.unnamed_strings()
    return texts or [entry.title for entry in reply.entries(_TITLES)]


@lru_cache(maxsize=2)
def _schema(wanted: int) -> JsonSchema:
    words = {"type": "string", "maxLength": _TITLE_CHARS}
    titles = {"type": "array", "maxItems": wanted, "items": words}
    return JsonSchema("titles", closed({"titles": titles}))
