"""Delimited files, CSV and TSV: one line is one row, and its columns are found by their names.

A cell in quotes may contain no line break. If it could, one quote that never closes would take the
rest of the file with it: here it costs its own row, which is counted.
"""

import csv
from collections.abc import Collection, Iterator, Sequence

from app.data_files.columns import FieldName, fields_of
from app.data_files.files import DataFile

_SEPARATORS = (",", "\t", ";", "|")
_LONGEST_CELL = 131_072


def rows_of(
    file: DataFile, first: bytes, rest: Iterator[bytes], needed: Collection[FieldName]
) -> Iterator[dict[FieldName, str]]:
    """The cells of the fields that `columns` knows, for each well-formed row after the header.

    `first` is the header. Raises DataError where it lacks one of the fields that are `needed`.
    """
    file.header()
    header = file.text(first) or ""
    separator, names = _header(header, needed)
    fields = fields_of(names)
    if not fields.keys() >= set(needed):
        raise file.unusable(f"the header is {header[:80]!r}")
    places = [(field, names.index(name)) for field, name in fields.items()]
    for row in rest:
        cells = _cells(row, separator, file)
        if cells is None:
            continue
        if len(cells) != len(names):
            file.malformed(f"not {len(names)} columns")
            continue
        yield {field: cells[place].strip() for field, place in places}


def table(file: DataFile, needed: Collection[FieldName]) -> Iterator[dict[FieldName, str]]:
    """The rows of a file that begins with a header; see `rows_of`."""
    rows = file.rows()
    for first in rows:
        yield from rows_of(file, first, rows, needed)


def separated(file: DataFile, separator: str, columns: int) -> Iterator[list[str]]:
    """The rows of a file without header and quotes that have so many columns; others are counted.

    A row is UTF-8 or Latin-1: MovieLens 1M is the latter, 10M the former. No Latin-1 title is valid
    UTF-8 by chance.
    """
    for row in file.rows():
        try:
            text = row.decode()
        except UnicodeDecodeError:
            text = row.decode("latin-1")
        cells = text.split(separator)
        if len(cells) == columns:
            yield cells
        else:
            file.malformed(f"not {columns} columns")


def _header(text: str, needed: Collection[FieldName]) -> tuple[str, list[str]]:
    """The separator and the names: of the separators, the one that finds most needed fields."""
    found: list[tuple[int, str, list[str]]] = []
    for separator in _SEPARATORS:
        names = [name.strip() for name in _split(text, separator) or ()]
        found.append((len(fields_of(names).keys() & set(needed)), separator, names))
    _, separator, names = max(found, key=lambda one: one[0])
    return separator, names


def _cells(row: bytes, separator: str, file: DataFile) -> Sequence[str] | None:
    """The cells of a row; None for a malformed one, which is counted."""
    text = file.text(row)
    if text is None:
        return None
    if len(text) > _LONGEST_CELL:
        file.malformed(f"longer than {_LONGEST_CELL:,} characters")
        return None
    cells = _split(text, separator)
    if cells is None:
        file.malformed("a quote that is not closed in its line, or has text after it")
    return cells


def _split(text: str, separator: str) -> list[str] | None:
    """The cells of one line; None where its quotes are damaged."""
    if '"' not in text:
        return text.split(separator)
    try:
        return next(csv.reader((text,), delimiter=separator, strict=True), [])
    except csv.Error:
        return None
