"""Limits on the number of values in a JSON text, checked before it is parsed.

Parsing holds Python's interpreter lock: for 4 MB of empty lists, no other thread runs for more
than a second. Counting takes about 4 ms per megabyte, in pieces.
"""

# A text up to this size is not checked: it is parsed within milliseconds.
SMALL_BYTES = 16_384
# A list or an object counts as this many values: making it takes as long.
CONTAINER_VALUES = 5
_PIECE_BYTES = 131_072  # other threads run between two pieces
# The most fields of an object in a request or an item.
FIELDS = 256

# The most values in a text of each kind.
ITEM_VALUES = 12_000
BATCH_VALUES = 200_000
EVENTS_VALUES = 40_000
RECOMMEND_VALUES = 90_000
USER_VALUES = 12_000
SETTINGS_VALUES = 2_000


class TooMuch(ValueError):
    """A JSON text holds more values than allowed."""


def check_text(text: bytes, values: int) -> None:
    """Raises TooMuch when `text` holds more than `values` values.

    Takes linear time. A text that is not JSON may pass; the parser rejects it later.
    """
    if len(text) <= SMALL_BYTES or _values(text) <= values:  # counts commas in strings too
        return
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    found = 0
    inside = 0  # 1 when a piece begins inside a string
    for start in range(0, len(text), _PIECE_BYTES):
        parts = text[start : start + _PIECE_BYTES].split(b'"')
        found += _values(b"".join(parts[inside::2]))
        inside ^= len(parts) & 1 ^ 1
        if found > values:
            raise _too_much(values)


def _too_much(values: int) -> TooMuch:
    return TooMuch(
        f"holds more than {values:,} values, where a list or an object counts for "
        f"{CONTAINER_VALUES}: send less at once"
    )


def _values(text: bytes) -> int:
    return text.count(b",") + CONTAINER_VALUES * (text.count(b"[") + text.count(b"{"))


def check_row(value: object) -> None:
    """Raises TooMuch when one parsed item of several holds more values than an item may."""
    check_fields(value)
    found, left = 0, [value]
    while left:
        one = left.pop()
        if not isinstance(one, dict | list):
            continue
        found += CONTAINER_VALUES + max(len(one) - 1, 0)  # as commas in a text
        if found > ITEM_VALUES:
            raise _too_much(ITEM_VALUES)
        left += one.values() if isinstance(one, dict) else one


def check_fields(value: object) -> None:
    """Raises TooMuch when an object in the parsed `value` has more than `FIELDS` fields."""
    left = [value]
    while left:
        match left.pop():
            case dict() as fields:
                if len(fields) > FIELDS:
                    raise TooMuch(f"an object has {len(fields):,} fields: at most {FIELDS}")
                left += [one for one in fields.values() if isinstance(one, dict | list)]
            case list() as values:
                left += [one for one in values if isinstance(one, dict | list)]
