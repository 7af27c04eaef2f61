"""The plain format: `items.jsonl`, and `histories.jsonl` or `events` (JSON Lines, CSV, TSV).

An item is a row as in an import: `id`, `title` and other fields of `Item`; unknown fields are
ignored. A history is `{"user_id", "history"}`: item ids, oldest first. Optional fields:
`timestamps` and `ratings` (one per event), `time` (of the row), `impression` (a list of
`[id, 0 or 1]`), `impressions` (a list of such lists), `candidates` and `profile` (a sentence).
Events are a row each; see `app.data_files.columns` for the names of columns. Ids may be numbers.
"""

import msgspec

from app.data_files.event_rows import EventRow, HistoryRow, event_rows
from app.data_files.files import DataFile, FileLoad
from app.data_files.objects import decoded
from app.evaluation.dataset import DatasetUser
from app.evaluation.formats.catalogue import Catalogue
from app.evaluation.formats.histories import RowLog, user_row
from app.evaluation.formats.recognition import Files, Role
from tree.item import Item

_object = msgspec.json.Decoder(dict[str, object])
_ITEM_FIELDS = frozenset(Item.model_fields)


def read(
    files: Files, loading: FileLoad, min_rating: float | None
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
        file = loading.open(
            path, 'a user per line, {"user_id": …, "history": [item ids]}', skip_undecodable=True
        )
        for event in event_rows(file):
            _add(event, file, catalogue, log, min_rating)
    return catalogue.items, log.users(loading.skipped)


def _item(fields: dict[str, object]) -> dict[str, object]:
    if isinstance(fields.get("id"), int):
        fields["id"] = str(fields["id"])
    return {name: value for name, value in fields.items() if name in _ITEM_FIELDS}


def _add(
    row: EventRow | HistoryRow,
    file: DataFile,
    catalogue: Catalogue,
    log: RowLog,
    min_rating: float | None,
) -> None:
    history = row if isinstance(row, HistoryRow) else _history_of(row)
    if min_rating is not None and not history.ratings:
        file.malformed("no ratings, which a lowest rating needs")
        return
    log.add(row.user_id, user_row(history, catalogue, file, min_rating), file.place)


def _history_of(row: EventRow) -> HistoryRow:
    """The event as a history of one item."""
    times = () if row.at is None else (row.at,)
    ratings = () if row.rating is None else (row.rating,)
    return HistoryRow(row.user_id, (row.item_id,), times, ratings, time=row.at)
