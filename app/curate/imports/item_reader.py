"""The items of an import: one a line, and an error for each bad line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from app.curate.imports.file_lines import MAX_LINE_BYTES, line_batches
from app.limits import ITEM_VALUES, SMALL_BYTES, TooMuch, check_fields, check_text
from tree.domains import Domains
from tree.errors import TooManyDomains
from tree.item import Item
from tree.item_line import InvalidLine, ItemLine, line_text

_REPORTED_ERRORS = 100
_FLAWS_PER_LINE = 10


class LineError(BaseModel):
    """Why a line was not accepted."""

    line: int
    id: str | None = None
    problem: str


class ImportReport(BaseModel):
    """How many lines were accepted and rejected; blank lines are neither."""

    read: int = 0  # lines, from the start of the file
    position: int = 0  # in the file, in bytes
    accepted: int = 0
    rejected: int = 0
    errors: list[LineError] = Field(default_factory=list)

    def reject(self, error: Callable[[], LineError]) -> None:
        self.rejected += 1
        if len(self.errors) < _REPORTED_ERRORS:
            self.errors.append(error())

    def result(self, *, stored: bool) -> dict[str, object]:
        """The result of the job; `stored`: whether accepted items stay, however the job ends."""
        return {
            "stored": stored and self.accepted > 0,
            "lines": self.accepted + self.rejected,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "errors": [error.model_dump(exclude_none=True) for error in self.errors],
            "errors_not_shown": self.rejected - len(self.errors),
        }


def read_items(
    path: Path, report: ImportReport, domains: Domains, *, most_bytes: int | None = None
) -> Iterator[list[Item]]:
    """The acceptable items of each batch of lines, after the lines that `report` covers.

    `report` covers the lines of a batch as soon as its items are returned. Raises Unreadable after
    the last line that can be read.
    """
    found = line_batches(path, read=report.read, position=report.position, most_bytes=most_bytes)
    for batch in found:
        items = [_item(line, number, report, domains) for number, line in batch.lines]
        report.read, report.position = batch.read, batch.position
        yield [item for item in items if item is not None]


def _item(line: bytes | None, number: int, report: ImportReport, domains: Domains) -> Item | None:
    if line is None:
        report.reject(
            lambda: LineError(line=number, problem=f"longer than {MAX_LINE_BYTES:,} bytes")
        )
        return None
    text = line.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        return None
    try:
        _check_size(text)
        item = _validated(text)
        domains.check(item.domain)
    except TooMuch as error:
        too_much = str(error)
        report.reject(lambda: LineError(line=number, problem=too_much))
        return None
    except (InvalidLine, TooManyDomains) as error:
        is_line = isinstance(error, InvalidLine)
        problem = f"enrichment: the line {error}" if is_line else f"domain: {error}"
        report.reject(lambda: LineError(line=number, id=_id_of(text), problem=problem))
        return None
    except ValidationError as error:
        flaw = error
        report.reject(lambda: LineError(line=number, id=_id_of(text), problem=describe(flaw)))
        return None
    report.accepted += 1
    return item


def _validated(text: bytes) -> Item:
    """The item of a line, with its `enrichment` where it has one, as in an export.

    Raises ValidationError, InvalidLine.
    """
    if b'"enrichment"' not in text:
        return Item.model_validate_json(text)
    try:
        fields = from_json(text)
        given = fields.pop("enrichment", None)
    except (ValueError, AttributeError, TypeError):
        return Item.model_validate_json(text)  # raises the error
    item = Item.model_validate(fields)
    if given is None:
        return item
    try:
        line = ItemLine(given) if isinstance(given, str) else msgspec.convert(given, ItemLine)
    except msgspec.ValidationError as error:
        raise InvalidLine(f"is not a text, nor an object with text and source: {error}") from error
    of = (line.of or item.content_digest) if line.source == "model" else ""
    line = ItemLine(line_text(line.text), line.source, of)
    return item.with_line(line) if line.fits(item.content_digest) else item


def _check_size(text: bytes) -> None:
    """Raises TooMuch."""
    if len(text) <= SMALL_BYTES:
        return
    check_text(text, ITEM_VALUES)
    try:
        fields = from_json(text)
    except ValueError:
        return  # the validation of the item says what is wrong
    check_fields(fields)


def describe(error: ValidationError) -> str:
    """One sentence for all that is wrong with an item."""
    parts = []
    found = error.errors(include_url=False, include_input=False, include_context=False)
    for detail in found[:_FLAWS_PER_LINE]:
        place = ".".join(map(str, detail["loc"]))
        parts.append(f"{place}: {detail['msg']}" if place else str(detail["msg"]))
    return "; ".join(parts)[:500]


def _id_of(line: bytes) -> str | None:
    """The id of a bad line; None when no id can be read."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    given = row.get("id") if isinstance(row, dict) else None
    return given[:256] if isinstance(given, str) and given.isprintable() else None
