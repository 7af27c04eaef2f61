"""Lines that were written elsewhere, from a file: one object with `item_id` and `text` a line."""

from bisect import insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from app.curate.imports.file_lines import MAX_LINE_BYTES, line_batches
from app.curate.imports.item_reader import LineError
from app.curate.writes import LineResult
from tree.item_line import InvalidLine, ItemLine, line_text

_REPORTED_ERRORS = 20
_ID_CHARS = 256
_PROBLEMS: Mapping[LineResult, str] = {
    "unknown": "there is no such item in this catalogue",
    "outdated": "the item's text has changed since",
}


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    item_id: str
    text: str | None


@dataclass(slots=True)
class LineBatchOfFile:
    """Lines of distinct items, with their numbers in the file, up to a position in bytes."""

    lines: dict[str, ItemLine | None]
    numbers: dict[str, int]
    position: int


@dataclass(slots=True)
class EnrichmentReport:
    """What became of the lines of a file; blank ones do not count."""

    read: int = 0
    set: int = 0
    removed: int = 0
    unchanged: int = 0
    rejected: int = 0
    errors: list[LineError] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """How many items read otherwise now."""
        return self.set + self.removed

    def reject(self, number: int, item_id: str | None, problem: str) -> None:
        """Count a line that was not used."""
        self.rejected += 1
        shown = item_id[:_ID_CHARS] if item_id and item_id.isprintable() else None
        error = LineError(line=number, id=shown, problem=problem)
        insort(self.errors, error, key=lambda one: one.line)  # a batch is read before it is set
        del self.errors[_REPORTED_ERRORS:]

    def add(self, batch: LineBatchOfFile, results: Mapping[str, LineResult]) -> None:
        """Count what became of a batch."""
        for item_id, result in results.items():
            match result:
                case "set":
                    self.set += 1
                case "removed":
                    self.removed += 1
                case "unchanged":
                    self.unchanged += 1
                case "unknown" | "outdated":
                    self.reject(batch.numbers[item_id], item_id, _PROBLEMS[result])

    def facts(self) -> dict[str, object]:
        """The report as JSON."""
        return {
            "lines": self.read,
            "set": self.set,
            "removed": self.removed,
            "unchanged": self.unchanged,
            "rejected": self.rejected,
            "errors": [error.model_dump(exclude_none=True) for error in self.errors],
            "errors_not_shown": self.rejected - len(self.errors),
        }


def read_lines(path: Path, report: EnrichmentReport) -> Iterator[LineBatchOfFile]:
    """The acceptable lines of a file, gzipped or not, in batches of at most 1,000.

    The others are in the report. Of two lines of one item in a batch the later one counts, and the
    earlier one counts as unchanged. Raises Unreadable after the last line that can be read.
    """
    for batch in line_batches(path):
        found = LineBatchOfFile({}, {}, batch.position)
        for number, given in batch.lines:
            _read(number, given, found, report)
        yield found


def _read(
    number: int, given: bytes | None, found: LineBatchOfFile, report: EnrichmentReport
) -> None:
    text = b"" if given is None else given.removeprefix(b"\xef\xbb\xbf").strip()
    if given is not None and not text:
        return
    report.read += 1
    if given is None:
        report.reject(number, None, f"longer than {MAX_LINE_BYTES:,} bytes")
        return
    row: _Row | None = None
    try:
        row = msgspec.json.decode(text, type=_Row)
        line = None if row.text is None else ItemLine(line_text(row.text))
    except msgspec.MsgspecError as error:
        report.reject(number, None, f'not {{"item_id": …, "text": …}}: {error}')
    except InvalidLine as error:
        report.reject(number, row.item_id if row else None, f"the line {error}")
    else:
        report.unchanged += row.item_id in found.lines
        found.lines[row.item_id] = line
        found.numbers[row.item_id] = number
