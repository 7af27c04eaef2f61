"""Files beside a data set: wishes in words, and lists of items."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from app.data_files.files import FileLoad
from app.data_files.objects import decoded
from app.evaluation.dataset import DataError, Skipped
from app.evaluation.formats.recognition import resemblance

_Id = str | int
_Words = Annotated[str, msgspec.Meta(max_length=4_000, pattern=r"\S")]  # as a request takes them

WISH = 'a wish per line, {"wish": …, "item_id": …} or {"query": …, "item_ids": […]}'


@dataclass(frozen=True, slots=True)
class Wish:
    """Words for what a user wants, and the items that it was written for."""

    words: str
    targets: tuple[str, ...]
    data: str = ""  # the name of the data set, where the file says it


@dataclass(frozen=True, slots=True)
class Wishes:
    """The wishes of a file, what was left out, and the SHA-256 of the file by its name."""

    rows: Sequence[Wish]
    skipped: Skipped
    checksums: dict[str, str]


class _Line(msgspec.Struct):
    wish: _Words | None = None
    query: _Words | None = None
    item_id: _Id | None = None
    item_ids: list[_Id] = []
    data: str = ""


class _ItemLine(msgspec.Struct):
    item_id: _Id


def read_wishes(path: Path) -> Wishes:
    """The wishes of a file, which may be a gzip file. Malformed rows are left out and counted.

    Raises DataError.
    """
    loading = FileLoad([path], resemblance=resemblance)
    file = loading.open(path, WISH)
    found = []
    for row in file.rows():
        line = decoded(_lines, row, file)
        if line is None:
            continue
        words = line.wish or line.query
        ids = [line.item_id] if line.item_id is not None else line.item_ids
        if words is None or not ids:
            file.malformed("no words, or no item that they are for")
            continue
        found.append(Wish(words, tuple(dict.fromkeys(map(str, ids))), line.data))
    return Wishes(found, loading.skipped, loading.checksums)


def read_ids(path: Path) -> tuple[frozenset[str], dict[str, str]]:
    """The item ids of a file, and its SHA-256 by its name.

    A line is an id, or an object with an `item_id`. Raises DataError for a line that is neither.
    """
    loading = FileLoad([path], resemblance=resemblance)
    file = loading.open(path, 'an item id per line, or {"item_id": …}')
    ids = set()
    for row in file.rows():
        if not row.lstrip().startswith(b"{"):
            ids.add(row.decode("utf-8", "replace").strip())
        elif (line := decoded(_item_lines, row, file)) is None:
            raise file.unusable("not an object with an item_id")
        else:
            ids.add(str(line.item_id))
    return frozenset(ids), loading.checksums


def by_data(wishes: Wishes, file: Path, folders: Sequence[Path]) -> dict[Path, list[Wish]]:
    """The wishes of each data set, by its folder.

    A wish is for the folder with the name of its data set. Without `folders`, these are beside the
    file; a wish without a name is then for the folder of the file, otherwise for the only folder.
    With `folders`, other wishes are ignored. Raises DataError where nothing is left.
    """
    beside = file.resolve().parent
    if not folders:
        groups: dict[Path, list[Wish]] = {}
        for wish in wishes.rows:
            groups.setdefault(beside / wish.data if wish.data else beside, []).append(wish)
        return groups
    named = {folder.resolve().name: folder for folder in folders}
    alone = next(iter(named)) if len(named) == 1 else ""
    groups = {folder: [] for folder in folders}
    for wish in wishes.rows:
        if folder := named.get(wish.data or alone):
            groups[folder].append(wish)
    groups = {folder: rows for folder, rows in groups.items() if rows}
    if not groups:
        held = Counter(wish.data for wish in wishes.rows)
        found = ", ".join(f"{count} for {name!r}" for name, count in held.items() if name)
        raise DataError(
            f"{file.name}: no wish is for {', '.join(named)}; found {found or 'no names of data'}."
        )
    return groups


_lines = msgspec.json.Decoder(_Line)
_item_lines = msgspec.json.Decoder(_ItemLine)
