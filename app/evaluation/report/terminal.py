"""The report on a terminal, and as JSON."""

import math
from collections.abc import Iterable, Iterator, Sequence
from textwrap import fill

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.evaluation.report import wording
from app.evaluation.report.rows import Row
from app.evaluation.report.sheets import COMPARED, Cell, Column, Sheet, chosen_of, sheets
from app.evaluation.report.wording import Group

_NARROWEST = 16  # of a column of labels
_INTERVAL = len(".0480 – .0750")  # no heading needs to be wider where there is little room


def show(console: Console, rows: Sequence[Row], *, metrics: Sequence[str] | None = None) -> None:
    """Print one table per study, data set and protocol: systems as rows, metrics as columns.

    `metrics` are names with or without `@k`; without it the largest k counts. Where the terminal
    is too narrow, intervals move below their values, and then columns into further tables.
    """
    for group in wording.groups(rows):
        console.print(Text(group.title, style="bold"), soft_wrap=True)
        shown = sheets(group, metrics) if metrics else sheets(group)
        for sheet in shown:
            for table in _fitting(console, sheet):
                console.print(table)
        for note in _notes(group, shown):
            console.print(Text(note, style="dim"))
        console.print()


def as_json(rows: Iterable[Row]) -> dict[str, object]:
    """All rows as one object."""
    return {"rows": [msgspec.to_builtins(row) for row in rows]}


def _fitting(console: Console, sheet: Sheet) -> Iterator[Table]:
    """One table if it fits in the console's width, else as few as it takes."""
    for beside in (True, False):
        table = _table(sheet, sheet.columns, beside=beside)
        if _fits(console, table):
            yield table
            return
    longest = max(len(word) for label in sheet.labels for word in label.split() or [""])
    narrow = max(_NARROWEST, console.width // 3, min(longest, console.width // 2))
    left = sheet.columns
    while True:
        taken = len(left)
        while taken > 1 and not _fits(console, _table(sheet, left[:taken], narrow=narrow)):
            taken -= 1
        if taken < len(left):
            tables = math.ceil(len(left) / taken)
            taken = math.ceil(len(left) / tables)  # no table of a single column at the end
        yield _table(sheet, left[:taken], narrow=narrow)
        left = left[taken:]
        if not left:
            return


def _fits(console: Console, table: Table) -> bool:
    return console.measure(table, options=console.options.update(width=10_000)).maximum <= (
        console.width
    )


def _table(
    sheet: Sheet, columns: Sequence[Column], *, beside: bool = False, narrow: int | None = None
) -> Table:
    """`narrow`: how wide the labels may be before they are folded."""
    table = Table(header_style="bold cyan", border_style="dim")
    table.add_column(sheet.corner, overflow="fold", max_width=narrow)
    for column in columns:
        heading = Text(fill(column.title, _INTERVAL) if narrow else column.title)
        if column.below:
            heading.append(f"\n{column.below}", style="dim")
        table.add_column(heading, justify="right", no_wrap=True)
    for row, label in enumerate(sheet.labels):
        cells = [_cell(column.cells[row], beside=beside) for column in columns]
        table.add_row(Text(label), *cells)
    return table


def _cell(cell: Cell, *, beside: bool) -> Text:
    value = Text(cell.value, style="bold" if cell.best else "")
    if cell.interval:
        value.append(" " if beside else "\n").append(cell.interval, style="dim")
    return value


def _pairs(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for name, found in row.against.items():
            told = [
                f"{wording.metric_name(metric)} {wording.share(pair.ratio.value)} "
                f"({wording.share(pair.ratio.low)} – {wording.share(pair.ratio.high)})"
                for metric in chosen_of(rows, COMPARED)
                if (pair := found.get(metric)) and pair.ratio
            ]
            if told:
                yield f"{wording.label(row)} reaches of {name}, reader by reader: {', '.join(told)}"


def _notes(group: Group, shown: Sequence[Sheet]) -> Iterator[str]:
    rows = group.rows
    notes = [wording.cases_of(rows)]
    if any(sheet.estimated for sheet in shown):
        notes.append("beside or below each value its 95 % interval (bootstrap over readers)")
    if any(row.usage for row in rows):
        notes.append("tokens: input per reader")
    if any(column.title == "rounds" for sheet in shown for column in sheet.columns):
        notes.append("calls and rounds: per reader, too")
    yield "; ".join(notes)
    if models := wording.models_of(rows):
        yield f"model: {models}"
    yield from _pairs(rows)
    skipped = rows[0].run.data.skipped
    if skipped:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in skipped.items())
        yield f"rows of the data that were skipped: {reasons}"
    for row in rows:
        if row.degraded:
            failed = wording.several(row.degraded, "answer")
            yield (
                f"{wording.label(row)}: the model failed in {failed}, which the embedded "
                "ranker gave"
            )
        if row.flaws:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in row.flaws.items())
            yield f"{wording.label(row)} named items in vain: {reasons}"
