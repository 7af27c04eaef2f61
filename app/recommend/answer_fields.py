"""The fields of items in an answer, within a limit."""

from collections.abc import Sequence

from pydantic_core import to_json

from app.recommend.filters import field_of
from app.recommend.response import AnswerWarning
from tree.item import Item

# As JSON, of all items together. The event loop writes a megabyte within 25 ms.
MOST_BYTES = 1_000_000


def fields_of(
    items: Sequence[Item], names: Sequence[str]
) -> tuple[list[dict[str, object]], list[AnswerWarning]]:
    """The named fields of each item, and a warning if some are left out.

    Each item has the same share of the limit. Its fields come in the given order, up to the first
    one that does not fit.
    """
    share = MOST_BYTES // max(len(items), 1)
    shown = [_fitting(item, names, share) for item in items]
    cut = sum(not whole for _, whole in shown)
    message = (
        f"{cut} of the items come without some fields, which would make the answer larger than "
        f"{MOST_BYTES:,} bytes: ask for fewer fields or items, or read the items one by one"
    )
    warnings = [AnswerWarning(code="fields_left_out", message=message)] if cut else []
    return [fields for fields, _ in shown], warnings


def _fitting(item: Item, names: Sequence[str], room: int) -> tuple[dict[str, object], bool]:
    """The fields that fit, and whether all of them do."""
    fields: dict[str, object] = {}
    for name in dict.fromkeys(names):
        value = field_of(item, name)
        if value is None:
            continue
        room -= _size(value, room)
        if room < 0:
            return fields, False
        fields[name] = value
    return fields, True


def _size(value: object, room: int) -> int:
    """The bytes of a value as JSON. It is not encoded if its characters alone exceed the room."""
    match value:
        case str():
            least = len(value)
        case tuple() if 3 * len(value) <= room:
            least = sum(map(len, value))
        case tuple():
            least = 3 * len(value)
        case _:
            least = 0
    return least if least > room else len(to_json(value))
