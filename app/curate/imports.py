"""Reading an import: JSON Lines, perhaps gzipped, one item a line; a report per bad line."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import BaseModel, Field, ValidationError

from tree.item import Item

MAX_LINE_BYTES = 1_048_576
_REPORTED_ERRORS = 100
_GZIP_MAGIC = b"\x1f\x8b"


class LineError(BaseModel):
    """Why a line was not accepted."""

    line: int
    id: str | None = None
    problem: str


class ImportReport(BaseModel):
    """What became of the lines; blank ones are neither accepted nor rejected."""

    read: int = 0  # lines, from the start of the file
    position: int = 0  # and bytes
    accepted: int = 0
    rejected: int = 0
    errors: list[LineError] = Field(default_factory=list)

    def reject(self, error: LineError) -> None:
        self.rejected += 1
        if len(self.errors) < _REPORTED_ERRORS:
            self.errors.append(error)

    def result(self) -> dict[str, object]:
        return {
            "lines": self.accepted + self.rejected,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "errors": [error.model_dump(exclude_none=True) for error in self.errors],
            "errors_not_shown": self.rejected - len(self.errors),
        }


class Unreadable(Exception):
    """The file as a whole cannot be read any further."""


def read_items(path: Path, report: ImportReport, *, size: int = 1_000) -> Iterator[list[Item]]:
    """The acceptable items of a file, in batches; `report` is true of all lines up to the batch.

    Goes on where `report` has come to. Memory does not depend on the file's size. Raises
    Unreadable when its compression is broken.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == _GZIP_MAGIC
        raw.seek(0 if zipped else report.position)
        lines = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if zipped else raw
        batch: list[Item] = []
        try:
            if zipped:
                _pass_over(lines, report.read)
            while line := lines.readline(MAX_LINE_BYTES + 1):
                report.read += 1
                whole = _rest_of(line, lines)
                item = _item(line if whole else None, report.read, report)
                if item is not None:
                    batch.append(item)
                if len(batch) == size:
                    report.position = raw.tell()
                    yield batch
                    batch = []
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            if batch:
                yield batch
            raise Unreadable(
                f"the compression breaks off after line {report.read}: {error}"
            ) from error
        report.position = raw.tell()
        if batch:
            yield batch


def _pass_over(lines: IO[bytes], count: int) -> None:
    for _ in range(count):
        _rest_of(lines.readline(MAX_LINE_BYTES + 1), lines)


def _rest_of(line: bytes, lines: IO[bytes]) -> bool:
    """Whether `line` came whole; skips to the end of one that did not."""
    if len(line) <= MAX_LINE_BYTES:
        return True
    while line and not line.endswith(b"\n"):
        line = lines.readline(MAX_LINE_BYTES)
    return False


def _item(line: bytes | None, number: int, report: ImportReport) -> Item | None:
    if line is None:
        report.reject(LineError(line=number, problem=f"longer than {MAX_LINE_BYTES} bytes"))
        return None
    text = line.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        return None
    try:
        item = Item.model_validate_json(text)
    except ValidationError as error:
        report.reject(LineError(line=number, id=_id_of(text), problem=describe(error)))
        return None
    report.accepted += 1
    return item


def describe(error: ValidationError) -> str:
    """One sentence for all that is wrong with an item."""
    parts = []
    for detail in error.errors(include_url=False, include_context=False):
        place = ".".join(map(str, detail["loc"]))
        parts.append(f"{place}: {detail['msg']}" if place else str(detail["msg"]))
    return "; ".join(parts)[:500]


def _id_of(line: bytes) -> str | None:
    """The id of a line that is not acceptable, where it has one that can be read."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    given = row.get("id") if isinstance(row, dict) else None
    return given[:256] if isinstance(given, str) and given.isprintable() else None
