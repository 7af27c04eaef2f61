"""The plain format, JSON Lines: `items.jsonl` and `histories.jsonl`.

An item is a row as in an import: `id`, `title` and other fields of `Item`; unknown fields are
ignored. A history is `{"user_id", "history"}`: item ids, oldest first. Optional fields:
`timestamps` and `ratings` (one per event), `time` (of the row), `impression` (a list of
`[id, 0 or 1]`), `impressions` (a list of such lists), `candidates` and `profile` (a sentence).
Ids may be numbers.
"""

import msgspec

from app.evaluation.dataset import DatasetUser
from app.evaluation.formats.catalogue import Catalogue
from app.evaluation.formats.data_files import DataFile, DatasetLoad
from app.evaluation.formats.histories import LOW_RATING, RowLog, UserRow, seconds
from app.evaluation.formats.objects import decoded
from app.evaluation.formats.recognition import Files, Role
from tree.item import Item

_Id = str | int
_Shown = list[tuple[_Id, int]]
_Time = float | str


class _HistoryLine(msgspec.Struct):
    user_id: _Id
    history: list[_Id]
    timestamps: list[_Time] | None = None
    ratings: list[float] | None = None
    time: _Time | None = None
    impression: _Shown | None = None
    impressions: list[_Shown] | None = None
    candidates: list[_Id] | None = None
    profile: str | None = None


_line = msgspec.json.Decoder(_HistoryLine)
_object = msgspec.json.Decoder(dict[str, object])
_ITEM_FIELDS = frozenset(Item.model_fields)


def read(
    files: Files, loading: DatasetLoad, min_rating: float | None
) -> tuple[list[Item], list[DatasetUser]]:
    """See `formats.load`."""
    catalogue = Catalogue()
    for path in files[Role.ITEMS]:
        file = loading.open(path, 'an item per line, {"id": …, "title": …}')
        for row in file.rows():
            fields = decoded(_object, row, file)
            if fields is not None:
                catalogue.add(file, _item(fields))
    log = RowLog()
    for path in files[Role.EVENTS]:
        file = loading.open(path, 'a user per line, {"user_id": …, "history": [item ids]}')
        for row in file.rows():
            line = decoded(_line, row, file)
            if line is not None:
                _add(line, file, catalogue, log, min_rating)
    return catalogue.items, log.users(loading.skipped)


def _item(fields: dict[str, object]) -> dict[str, object]:
    if isinstance(fields.get("id"), int):
        fields["id"] = str(fields["id"])
    return {name: value for name, value in fields.items() if name in _ITEM_FIELDS}


def _add(
    line: _HistoryLine, file: DataFile, catalogue: Catalogue, log: RowLog, min_rating: float | None
) -> None:
    for values, name in ((line.timestamps, "timestamps"), (line.ratings, "ratings")):
        if values is not None and len(values) != len(line.history):
            file.malformed(f"the number of {name} is not that of events in history")
            return
    if min_rating is not None and line.ratings is None:
        file.malformed("no ratings, which a lowest rating needs")
        return
    try:
        stamps = [seconds(value) for value in line.timestamps or ()]
        time = None if line.time is None else seconds(line.time)
    except ValueError:
        file.malformed("a time that is neither seconds since the epoch nor ISO 8601")
        return
    ids = [str(each) for each in line.history]
    if min_rating is not None and line.ratings is not None:
        kept = [at for at, rating in enumerate(line.ratings) if rating >= min_rating]
        for _ in range(len(ids) - len(kept)):
            file.leave_out(LOW_RATING)
        ids, stamps = [ids[at] for at in kept], [stamps[at] for at in kept if stamps]
    times = [stamp for each, stamp in zip(ids, stamps, strict=False) if each in catalogue.positions]
    lists = [line.impression] if line.impression else []
    shown = [_seen(each, file, catalogue) for each in [*lists, *(line.impressions or ())]]
    row = UserRow(
        tuple(catalogue.known(ids, file)),
        tuple(times),
        time,
        tuple(each for each in shown if each[0]),
        line.profile or "",
        tuple(catalogue.known([str(each) for each in line.candidates or ()], file)),
    )
    log.add(str(line.user_id), row, file.place)


def _seen(
    shown: _Shown, file: DataFile, catalogue: Catalogue
) -> tuple[tuple[str, ...], frozenset[str]]:
    chosen = [str(each) for each, label in shown if label]
    return catalogue.seen([str(each) for each, _ in shown], chosen, file)
