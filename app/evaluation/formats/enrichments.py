"""Lines of items in a file beside a data set."""

from dataclasses import replace
from pathlib import Path

import msgspec

from app.data_files.files import FileLoad
from app.data_files.objects import decoded
from app.evaluation.dataset import DataError, Dataset
from app.evaluation.formats.recognition import resemblance
from tree.item_line import InvalidLine, ItemLine, line_text

_EXPECTED = 'a line of an item per row, {"item_id": …, "text": …}'


class _GivenLine(msgspec.Struct):
    item_id: str | int
    text: str


def with_enrichments(data: Dataset, path: Path) -> Dataset:
    """The data whose items have the lines of a file, which may be a gzip file.

    Malformed rows, and rows of other items, are left out and counted. Raises DataError.
    """
    loading = FileLoad([path], resemblance=resemblance)
    file = loading.open(path, _EXPECTED)
    known = {item.id for item in data.items}
    lines: dict[str, ItemLine] = {}
    for row in file.rows():
        given = decoded(_rows, row, file)
        if given is None:
            continue
        item_id = str(given.item_id)
        if item_id not in known:
            file.leave_out("line of an item that the catalogue lacks")
            continue
        try:
            lines[item_id] = ItemLine(line_text(given.text))
        except InvalidLine as error:
            file.malformed(f"invalid line: it {error}")
    if not lines:
        raise DataError(f"{path.name}: no line is for an item of {data.name}.")
    data.skipped.include(loading.skipped)
    items = [item.with_line(lines.get(item.id)) for item in data.items]
    # The same file may also say which items to keep, and results without lines are others.
    checksums = {f"lines of {name}": checksum for name, checksum in loading.checksums.items()}
    return replace(data, items=items, checksums=data.checksums | checksums)


_rows = msgspec.json.Decoder(_GivenLine)
