"""Rows of events and of whole histories, whatever the layout of their file.

| layout | rows |
|---|---|
| JSON Lines | an event each, or a whole history: `{"user_id", "history"}` |
| CSV, TSV | a header, then an event each |
| MovieLens `.dat` | `user::item::rating::time` |
| MIND `behaviors.tsv` | a history, and the news shown and clicked after it |

`columns` says by which names a field is known. A row that cannot be read is left out and counted
with its reason, which names the field.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TypeVar

import msgspec

from app.data_files.columns import FieldName, fields_of
from app.data_files.files import DataFile
from app.data_files.objects import decoded
from app.data_files.tables import rows_of
from app.data_files.values import id_text, seconds

EXPECTED_EVENTS = (
    "events: JSON Lines, or CSV or TSV with a header, with a user, an item and perhaps a time, a "
    "type or a rating; or a history per line"
)
_HISTORY = re.compile(rb'"history"\s*:')
_DAT_FIELDS: tuple[FieldName, ...] = ("user_id", "item_id", "rating", "at")
_MIND_COLUMNS = 5
_NEEDED: tuple[FieldName, ...] = ("user_id", "item_id")

_Id = str | int
_Shown = list[tuple[_Id, int]]
_Time = float | str
_Value = TypeVar("_Value")


class EventRow(msgspec.Struct, frozen=True, gc=False):
    """One event of a file. `at` is in seconds since the epoch."""

    user_id: str
    item_id: str
    at: float | None = None
    type: str | None = None
    rating: float | None = None
    value: float | None = None
    event_id: str | None = None
    recommendation_id: str | None = None
    rank: int | None = None


class HistoryRow(msgspec.Struct, frozen=True):
    """A history, oldest first, and what was shown to its user after it.

    `times`, `ratings` and `types` have one entry per item, or none. `time` is that of the row.
    `impressions` are the items shown together, each with whether the user chose it.
    """

    user_id: str
    history: tuple[str, ...]
    times: tuple[float, ...] = ()
    ratings: tuple[float, ...] = ()
    types: tuple[str, ...] = ()
    time: float | None = None
    impressions: tuple[tuple[tuple[str, bool], ...], ...] = ()
    candidates: tuple[str, ...] = ()
    profile: str = ""


class Malformed(ValueError):
    """A row cannot be read; the message names its field."""


def event_rows(file: DataFile) -> Iterator[EventRow | HistoryRow]:
    """The rows of a file of any layout, which its first row decides.

    Raises DataError where the file cannot be read, is empty, or has only malformed rows.
    """
    rows = file.rows()
    for first in rows:
        if first.lstrip().startswith(b"{"):
            yield from _objects(file, chain((first,), rows))
        elif _is_rating(first):
            yield from _double_colons(file, chain((first,), rows))
        elif _is_behaviour(first):
            yield from _behaviours(file, chain((first,), rows))
        else:
            for cells in rows_of(file, first, rows, _NEEDED):
                row = event_of(cells, file)
                if row is not None:
                    yield row


def history_row(line: bytes, file: DataFile) -> HistoryRow | None:
    """The history of a line of JSON; None for a malformed one, which is counted."""
    given = decoded(_history_line, line, file)
    return None if given is None else _kept(_history, given, file)


def behaviour_row(text: str, file: DataFile) -> HistoryRow | None:
    """The history of a line of `behaviors.tsv`; None for a malformed one, which is counted."""
    cells = text.split("\t")
    if len(cells) != _MIND_COLUMNS:
        file.malformed(f"not {_MIND_COLUMNS} columns")
        return None
    _, user, written, history, shown = cells
    try:
        time = seconds(written)
    except ValueError:
        file.malformed("a time that is not like 11/13/2019 5:53:12 AM")
        return None
    labelled = shown.split()
    if not all(each.endswith(("-0", "-1")) for each in labelled):
        file.leave_out("impression without labels")  # the test part of MIND has none
        labelled = []
    seen = tuple((each[:-2], each.endswith("-1")) for each in labelled)
    return HistoryRow(user, tuple(history.split()), time=time, impressions=(seen,) if seen else ())


def event_of(fields: Mapping[FieldName, object], file: DataFile) -> EventRow | None:
    """The event of a row with these fields; None for a malformed one, which is counted."""
    return _kept(_event, fields, file)


# -- layouts


def _is_rating(line: bytes) -> bool:
    cells = line.split(b"::")
    return len(cells) == len(_DAT_FIELDS) and cells[-1].isdigit()


def _is_behaviour(line: bytes) -> bool:
    cells = line.split(b"\t")
    return len(cells) == _MIND_COLUMNS and cells[2].count(b"/") == 2


def _objects(file: DataFile, lines: Iterator[bytes]) -> Iterator[EventRow | HistoryRow]:
    for line in lines:
        if _HISTORY.search(line):
            history = history_row(line, file)
            if history is not None:
                yield history
            continue
        fields = decoded(_object, line, file)
        if fields is None:
            continue
        known = {field: fields[name] for field, name in fields_of(fields).items()}
        row = event_of(known, file)
        if row is not None:
            yield row


def _double_colons(file: DataFile, lines: Iterator[bytes]) -> Iterator[EventRow]:
    for line in lines:
        text = file.text(line)
        if text is None:
            continue
        cells = text.split("::")
        if len(cells) != len(_DAT_FIELDS):
            file.malformed(f"not {len(_DAT_FIELDS)} columns")
            continue
        row = event_of(dict(zip(_DAT_FIELDS, cells, strict=True)), file)
        if row is not None:
            yield row


def _behaviours(file: DataFile, lines: Iterator[bytes]) -> Iterator[HistoryRow]:
    for line in lines:
        text = file.text(line)
        row = None if text is None else behaviour_row(text, file)
        if row is not None:
            yield row


# -- one row


def _kept(make: Callable[[_Value], "_Row"], given: _Value, file: DataFile) -> "_Row | None":
    try:
        return make(given)
    except Malformed as error:
        file.malformed(str(error))
        return None


_Row = TypeVar("_Row", EventRow, HistoryRow)


def _event(fields: Mapping[FieldName, object]) -> EventRow:
    get = fields.get
    rank = _number("rank", get("rank"))
    if rank is not None and not rank.is_integer():
        raise Malformed("rank: expected a whole number")
    return EventRow(
        _id("user_id", get("user_id")),
        _id("item_id", get("item_id")),
        _time("at", get("at")),
        _word("type", get("type")),
        _number("rating", get("rating")),
        _number("value", get("value")),
        _optional_id("event_id", get("event_id")),
        _optional_id("recommendation_id", get("recommendation_id")),
        None if rank is None else int(rank),
    )


def _history(line: "_HistoryLine") -> HistoryRow:
    for values, name in (
        (line.timestamps, "timestamps"),
        (line.ratings, "ratings"),
        (line.types, "types"),
    ):
        if values is not None and len(values) != len(line.history):
            raise Malformed(f"the number of {name} is not that of events in history")
    lists = [line.impression] if line.impression else []
    return HistoryRow(
        str(line.user_id),
        tuple(map(str, line.history)),
        tuple(_known_time("timestamps", value) for value in line.timestamps or ()),
        tuple(line.ratings or ()),
        tuple(line.types or ()),
        None if line.time is None else _known_time("time", line.time),
        tuple(
            tuple((str(each), bool(label)) for each, label in shown)
            for shown in [*lists, *(line.impressions or ())]
        ),
        tuple(map(str, line.candidates or ())),
        line.profile or "",
    )


def _id(name: FieldName, value: object) -> str:
    try:
        text = id_text(value) if value is not None else ""
    except ValueError as error:
        raise Malformed(f"{name}: {error}") from None
    if not text:
        raise Malformed(f"{name}: missing")
    return text


def _optional_id(name: FieldName, value: object) -> str | None:
    return None if value is None or value == "" else _id(name, value)


def _time(name: str, value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Malformed(f"{name}: expected a number or a text")
    return _known_time(name, value)


def _known_time(name: str, value: float | str) -> float:
    try:
        return seconds(value)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{name}: {error}") from None


def _word(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise Malformed(f"{name}: expected a text")
    return value


def _number(name: str, value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Malformed(f"{name}: expected a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise Malformed(f"{name}: expected a number") from None
    if not math.isfinite(number):
        raise Malformed(f"{name}: expected a finite number")
    return number


class _HistoryLine(msgspec.Struct):
    user_id: _Id
    history: list[_Id]
    timestamps: list[_Time] | None = None
    ratings: list[float] | None = None
    types: list[str] | None = None
    time: _Time | None = None
    impression: _Shown | None = None
    impressions: list[_Shown] | None = None
    candidates: list[_Id] | None = None
    profile: str | None = None


_history_line = msgspec.json.Decoder(_HistoryLine)
_object = msgspec.json.Decoder(dict[str, object])
