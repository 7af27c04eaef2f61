"""Untrusted text as lines of a prompt."""

import re
from collections.abc import Sequence

# Invisible characters: controls become blanks; soft hyphens, zero-width and bidirectional
# marks, tag characters and variation selectors (known ways to smuggle instructions past the eye)
# and lone surrogates (no UTF-8) vanish. U+200C and U+200D stay: Persian and emoji need them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_INVISIBLE = re.compile(
    "[\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e01ef\ud800-\udfff]+"
)

_HEAD, _TAIL = 84, 32  # variants of an article often differ in their last words
LINE_CHARS = _HEAD + _TAIL + 3


def one_line(text: str, max_chars: int) -> str:
    """`text` on one line of at most `max_chars` visible characters; "…" marks what was cut."""
    if max_chars < 1:
        raise ValueError(f"max_chars must be positive, not {max_chars}")
    plain = text.isprintable() and "  " not in text and len(text) <= max_chars
    if plain and (text.isascii() or not _INVISIBLE.search(text)):
        return text.strip()  # nearly always, and several times as fast
    line = " ".join(_INVISIBLE.sub("", _CONTROL.sub(" ", text)).split())
    return line if len(line) <= max_chars else line[: max_chars - 1].rstrip() + "…"


def both_ends(text: str) -> str:
    """`text` on one line; of more than 119 characters the first 84 and the last 32."""
    line = one_line(text, max(1, len(text)))
    if len(line) <= LINE_CHARS:
        return line
    return f"{line[:_HEAD]} … {line[-_TAIL:]}"


def numbered(options: Sequence[str], max_chars: int, labels: Sequence[str] | None = None) -> str:
    """One line per option, counted from 1 or under its label, each option cut to `max_chars`.

    An option without visible text keeps its number. No options: the empty string.
    """
    names = labels or [str(number) for number in range(1, len(options) + 1)]
    return "\n".join(
        f"{name}. {one_line(option, max_chars)}".rstrip()
        for name, option in zip(names, options, strict=True)
    )
