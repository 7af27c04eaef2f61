"""JSON as models write it: between words, with comments, quotes of any kind, commas too many.

Own code, as json-repair 0.64 takes 6 s for 64 KiB of "{" and longer for others (2026-12). Every
character is looked at a bounded number of times.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.llm.plain_json import UNREADABLE

Container = dict[str, object] | list[object]

_LEVELS = 3  # of JSON in strings of JSON
_DEEPEST = 32  # containers in each other; deeper ones are not read
_TOKEN = re.compile(
    r"""
    (?P<blank>\s+|//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/)?)
    |(?P<sign>[{}\[\],:])
    |(?P<quote>["'])
    |[“”„](?P<curly>[^“”"\n]{0,2000})[“”"]
    |(?P<word>(?:[^\s{}\[\],:"'“”„/]|/(?![/*]))++)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_APOSTROPHE = "'"
# A quote ends a string where a sign of JSON follows; others belong to the words.
_ENDS = {
    quote: re.compile(rf"\\.|{quote}(?=\s{{0,9}}(?:[,:}}\]/]|\Z))", re.DOTALL) for quote in "\"'"
}
_OPENING = re.compile(r"[{\[]")
_FIRST_QUOTE = re.compile(r"[{\[]\s{0,9}(\\{0,3})\"")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_CLOSING = {"{": "}", "[": "]"}
_CONSTANTS: dict[str, object] = {
    "true": True, "false": False, "null": None, "True": True, "False": False, "None": None,
}  # fmt: skip


@dataclass(slots=True)
class Found:
    """An object or a list of a text. `depth` is 0 for one that stands by itself."""

    value: Container
    depth: int
    whole: bool = True


def containers(text: str) -> list[Found]:
    """All objects and lists in a text, in the order of their ends; unfinished ones come last.

    An unfinished list or object holds what is whole of it.
    """
    for _ in range(_LEVELS):
        first = _FIRST_QUOTE.search(text)
        if first is None or not first[1]:
            break
        text = _unescaped(text)  # JSON encoded twice
    return list(_parsed(text, 0))


def _parsed(text: str, level: int) -> Iterator[Found]:
    at, quotes = 0, _Quotes()
    while found := _OPENING.search(text, at):
        parser = _Parser(text, found.start(), level, quotes)
        yield from parser.run()
        at = parser.at


@dataclass(slots=True)
class _Unclosed:
    """A container that is not closed yet, and what stands in it since the last comma."""

    value: Container
    key: str | None = None
    said: list[object] = field(default_factory=list)

    def colon(self) -> None:
        """What was said is the key of what comes."""
        if isinstance(self.value, dict) and self.key is None and self.said:
            self.key = _text(self.said)
            self.said = []

    def comma(self) -> None:
        """What was said is a member."""
        if not self.said:
            self.key = None
            return
        inner = [said for said in self.said if isinstance(said, dict | list)]
        if isinstance(self.value, list):
            self.value += inner or [_joined(self.said)]
        else:  # a value without a key is found by itself
            key = self.key if self.key is not None else f"\0{len(self.value)}"
            self.value[key] = inner[-1] if inner else _joined(self.said)
        self.key, self.said = None, []


@dataclass(slots=True)
class _Quotes:
    """From where on an apostrophe begins no string: none of them ends."""

    no_end_from: float = math.inf


class _Parser:
    """Reads one container of a text, with all that is in it."""

    def __init__(self, text: str, start: int, level: int, quotes: _Quotes) -> None:
        self._text = text
        self._quotes = quotes
        self._level = level
        self.at = start
        self._stack: list[_Unclosed] = []

    def run(self) -> Iterator[Found]:
        while self.at < len(self._text):
            token = _TOKEN.match(self._text, self.at)
            assert token is not None  # `other` matches anything
            self.at = token.end()
            kind = token.lastgroup
            if kind == "sign":
                yield from self._sign(token[0])
                if not self._stack:
                    return
            elif kind == "word":
                self._stack[-1].said.append(_word(token[0]))
            elif kind == "quote":
                yield from self._quoted(token[0])
            elif kind == "curly":
                yield from self._string(token["curly"])
        yield from self._unfinished()

    def _sign(self, sign: str) -> Iterator[Found]:
        if sign in _CLOSING:
            self._stack.append(_Unclosed({} if sign == "{" else []))
            if len(self._stack) > _DEEPEST:
                self.at = len(self._text)
        elif sign == ":":
            self._stack[-1].colon()
        elif sign == ",":
            self._stack[-1].comma()
        else:
            yield from self._close(sign)

    def _close(self, sign: str) -> Iterator[Found]:
        """Close the innermost container; one of the other kind before it was not closed."""
        wanted = dict if sign == "}" else list
        if not isinstance(self._stack[-1].value, wanted):
            if len(self._stack) < 2 or not isinstance(self._stack[-2].value, wanted):
                return  # a sign too many
            yield self._popped()
        yield self._popped()

    def _popped(self) -> Found:
        closed = self._stack.pop()
        closed.comma()
        if self._stack:
            self._stack[-1].said.append(closed.value)
        return Found(closed.value, len(self._stack) + self._level)

    def _quoted(self, quote: str) -> Iterator[Found]:
        """A string. One without an end is cut off; an apostrophe without an end is none."""
        start = self.at
        if quote == _APOSTROPHE and start >= self._quotes.no_end_from:
            return
        for end in _ENDS[quote].finditer(self._text, start):
            if end[0] == quote:
                self.at = end.end()
                inner = self._text[start : end.start()]
                yield from self._string(_decoded(inner) if quote == '"' else _unescaped(inner))
                return
        if quote == _APOSTROPHE:
            self._quotes.no_end_from = start
        else:
            self.at = len(self._text)
            self._stack[-1].said = []

    def _string(self, said: str) -> Iterator[Found]:
        opened = self._stack[-1]
        opened.said.append(said)
        start = said.lstrip()[:1]
        if start in ("{", "[") and start and self._level < _LEVELS:
            yield from _parsed(said, self._level + 1)

    def _unfinished(self) -> Iterator[Found]:
        """What is whole of containers without an end, the innermost first.

        An object in an unfinished list is left out, and so is a number, which may be cut.
        """
        innermost = self._stack[-1]
        innermost.said = [said for said in innermost.said if isinstance(said, dict | list)]
        innermost.comma()
        for outer, inner in zip(self._stack, self._stack[1:], strict=False):
            if isinstance(inner.value, list) or isinstance(outer.value, dict):
                outer.said = [inner.value]
                outer.comma()
            else:
                break
        for depth, opened in reversed(list(enumerate(self._stack))):
            yield Found(opened.value, depth + self._level, whole=False)
        self._stack = []


def _word(text: str) -> object:
    """A number, a constant, or the word itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= 40:
        try:
            number = int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError:
            return text
        return number if math.isfinite(number) else text
    return text


def _text(said: list[object]) -> str:
    return said[-1] if isinstance(said[-1], str) else str(said[-1])


def _joined(said: list[object]) -> object:
    """A single value; words without a comma between them as one text."""
    return said[0] if len(said) == 1 else " ".join(map(str, said))


def _decoded(inner: str) -> str:
    """What stands between two quotes, without its escapes."""
    if "\\" not in inner:
        return inner
    try:
        return str(json.loads(f'"{inner}"', strict=False))
    except UNREADABLE:
        return _unescaped(inner)


def _unescaped(text: str) -> str:
    """The text without the escapes of JSON, those that it does not know included."""

    def plain(found: re.Match[str]) -> str:
        escape = found[1]
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        return _ESCAPES.get(escape, escape)

    return _ESCAPE.sub(plain, text) if "\\" in text else text
