"""Plain JSON lines: `items.jsonl` and `histories.jsonl`.

An item is a row of an import: `id` and `title`, and what else of `Item` there is; other fields are
ignored. A history is `{"user_id", "history"}`, item ids, oldest first, and where there are any:
`timestamps` and `ratings` (one per event), `time` (of the row), `impression` (a list of
`[id, 0 or 1]`), `impressions` (a list of such lists), `candidates` and `profile` (a sentence).
Numbers may stand for ids.
"""

import msgspec

from app.evaluation.dataset import Reader
from app.evaluation.formats.catalogue import Catalogue
from app.evaluation.formats.files import Reading, Source
from app.evaluation.formats.histories import LOW_RATING, Row, RowLog, seconds
from app.evaluation.formats.objects import decoded
from app.evaluation.formats.recognition import Files, Role
from tree.item import Item

_Id = str | int
_Shown = list[tuple[_Id, int]]
_Time = float | str


class _Line(msgspec.Struct):
    user_id: _Id
    history: list[_Id]
    timestamps: list[_Time] | None = None
    ratings: list[float] | None = None
    time: _Time | None = None
    impression: _Shown | None = None
    impressions: list[_Shown] | None = None
    candidates: list[_Id] | None = None
    profile: str | None = None


_line = msgspec.json.Decoder(_Line)
_object = msgspec.json.Decoder(dict[str, object])
_ITEM_FIELDS = frozenset(Item.model_fields)


def read(
    files: Files, reading: Reading, min_rating: float | None
) -> tuple[list[Item], list[Reader]]:
    """See `formats.load`."""
    catalogue = Catalogue()
    for path in files[Role.ITEMS]:
        source = reading.open(path, 'an item per line, {"id": …, "title": …}')
        for row in source.rows():
            fields = decoded(_object, row, source)
            if fields is not None:
                catalogue.add(source, _item(fields))
    log = RowLog()
    for path in files[Role.EVENTS]:
        source = reading.open(path, 'a reader per line, {"user_id": …, "history": [item ids]}')
        for row in source.rows():
            line = decoded(_line, row, source)
            if line is not None:
                _add(line, source, catalogue, log, min_rating)
    return catalogue.items, log.readers(reading.skipped)


def _item(fields: dict[str, object]) -> dict[str, object]:
    if isinstance(fields.get("id"), int):
        fields["id"] = str(fields["id"])
    return {name: value for name, value in fields.items() if name in _ITEM_FIELDS}


def _add(
    line: _Line, source: Source, catalogue: Catalogue, log: RowLog, min_rating: float | None
) -> None:
    for values, name in ((line.timestamps, "timestamps"), (line.ratings, "ratings")):
        if values is not None and len(values) != len(line.history):
            source.malformed(f"not as many {name} as events in history")
            return
    if min_rating is not None and line.ratings is None:
        source.malformed("no ratings, though a least rating is asked for")
        return
    try:
        stamps = [seconds(value) for value in line.timestamps or ()]
        time = None if line.time is None else seconds(line.time)
    except ValueError:
        source.malformed("a time that is neither seconds since the epoch nor ISO 8601")
        return
    ids = [str(each) for each in line.history]
    if min_rating is not None and line.ratings is not None:
        high = [at for at, rating in enumerate(line.ratings) if rating >= min_rating]
        for _ in range(len(ids) - len(high)):
            source.leave_out(LOW_RATING)
        ids, stamps = [ids[at] for at in high], [stamps[at] for at in high if stamps]
    times = [stamp for each, stamp in zip(ids, stamps, strict=False) if each in catalogue.positions]
    lists = [line.impression] if line.impression else []
    shown = [_seen(each, source, catalogue) for each in [*lists, *(line.impressions or ())]]
    row = Row(
        tuple(catalogue.known(ids, source)),
        tuple(times),
        time,
        tuple(each for each in shown if each[0]),
        line.profile or "",
        tuple(catalogue.known([str(each) for each in line.candidates or ()], source)),
    )
    log.add(str(line.user_id), row, source.place)


def _seen(
    shown: _Shown, source: Source, catalogue: Catalogue
) -> tuple[tuple[str, ...], frozenset[str]]:
    chosen = [str(each) for each, label in shown if label]
    return catalogue.seen([str(each) for each, _ in shown], chosen, source)
