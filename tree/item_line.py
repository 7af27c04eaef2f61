"""`ItemLine`: one line that says in plain words what an item is, for whom and what for."""

import re
import unicodedata
from typing import Literal, TypeAlias

import msgspec

LINE_CHARS = 400
LineSource: TypeAlias = Literal["owner", "model"]
LINE_CODES: dict[LineSource | None, int] = {None: 0, "owner": 1, "model": 2}
"""How a tree notes the line of an item, in `Rows.lines`."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Direction marks make a text read otherwise than it is stored.
_TURNS = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MARKUP = re.compile(
    r"</?[a-zA-Z][^<>]*>|<!--|&(#\d+|#x[0-9a-fA-F]+|[a-zA-Z]{2,8});"  # HTML and XML
    r"|\]\(|```|`[^`]+`|\*\*|__|^\s*(#{1,6}\s|[-*+>]\s|\d{1,2}[.)]\s)"  # Markdown
)


class InvalidLine(ValueError):
    """A text that cannot be the line of an item; the message completes "the line …"."""


class ItemLine(msgspec.Struct, frozen=True):
    """A line that `source` wrote.

    `of` is the `Item.content_digest` of what it describes. A model's line is about that text and
    leaves with it; an owner's line stays until the owner replaces or removes it.
    """

    text: str
    source: LineSource = "owner"
    of: str = ""

    def fits(self, content_digest: str) -> bool:
        """Whether it may stay with an item of that content."""
        return self.source == "owner" or self.of == content_digest


def line_text(given: str) -> str:
    """The text of a line as it is stored: without blanks around it, in NFC.

    Raises InvalidLine for what is not one line of 1 to `LINE_CHARS` characters of plain text.
    """
    text = given.strip()
    if not text:
        raise InvalidLine("is empty")
    if len(text) <= 2 * LINE_CHARS:  # before work that grows with the length
        text = unicodedata.normalize("NFC", text)
    if len(text) > LINE_CHARS:
        raise InvalidLine(f"has {len(text):,} characters: at most {LINE_CHARS}")
    if _CONTROL.search(text):
        raise InvalidLine("has line breaks or other control characters")
    if _TURNS.search(text):
        raise InvalidLine("has characters that turn the direction of the text")
    if _MARKUP.search(text):
        raise InvalidLine("has markup: plain text is needed")
    if not any(map(str.isalpha, text)):
        raise InvalidLine("has no letters")
    return text
