"""JSON of unknown shape, as endpoints and models write it, and single values of it."""

import json
import math
import re
from collections.abc import Iterator

import msgspec

_NUMBER = re.compile(r"([+-]?\d{1,15}(?:\.\d{0,15})?)(?: ?%| ?/ ?100)?")

UNREADABLE = (ValueError, RecursionError)
"""What msgspec and `json` raise for text that is no JSON; UnicodeError and DecodeError included."""


def decoded(content: bytes | str) -> object:
    """The value in JSON that may hold NaN, Infinity and doubled keys. Raises UNREADABLE."""
    try:
        return msgspec.json.decode(content)
    except UNREADABLE:
        text = content if isinstance(content, str) else content.decode("utf-8-sig", "replace")
        return json.loads(text.lstrip("\ufeff"))


def member(value: object, *names: str) -> object:
    """What an object has under the first of these names that it has and that is not null."""
    if isinstance(value, dict):
        for name in names:
            if (found := value.get(name)) is not None:
                return found
    return None


def items_of(value: object) -> Iterator[object]:
    """The items of a list; none of anything else."""
    if isinstance(value, list):
        yield from value


def number_of(value: object) -> float | None:
    """A finite number, also written as "85", "85 %" or "85/100"; None for anything else."""
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip())
        return float(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
