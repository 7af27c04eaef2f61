"""The report on a terminal, and as JSON."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import fill

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.evaluation.metrics import MetricEstimate, PairedComparison
from app.evaluation.report import labels
from app.evaluation.report.labels import Group
from app.evaluation.report.result_row import ResultRow
from app.evaluation.report.tables import (
    COMPARED,
    WISHES,
    Cell,
    TableColumn,
    TableData,
    chosen_of,
    tables_of,
)

_NARROWEST = 16  # width of a column of labels
_INTERVAL = len(".0480 – .0750")  # headings are folded to this width on narrow terminals


def show(
    console: Console, rows: Sequence[ResultRow], *, metrics: Sequence[str] | None = None
) -> None:
    """Print one table per study, data set and protocol: systems as rows, metrics as columns.

    `metrics` are names with or without `@k` (then the largest k). Where the terminal is too narrow,
    intervals move below their values, and then columns into further tables.
    """
    for group in labels.groups(rows):
        console.print(Text(group.title, style="bold"), soft_wrap=True)
        shown = tables_of(group, metrics) if metrics else tables_of(group)
        for data in shown:
            for table in _fitting(console, data):
                console.print(table)
        for note in _notes(group, shown):
            console.print(Text(note, style="dim"))
        console.print()


def as_json(rows: Iterable[ResultRow]) -> dict[str, object]:
    """All rows as one object."""
    return {"rows": [msgspec.to_builtins(row) for row in rows]}


def _fitting(console: Console, data: TableData) -> Iterator[Table]:
    """One table if it fits the width of the console, otherwise as few tables as possible."""
    for beside in (True, False):
        table = _table(data, data.columns, beside=beside)
        if _fits(console, table):
            yield table
            return
    longest = max(len(word) for label in data.labels for word in label.split() or [""])
    narrow = max(_NARROWEST, console.width // 3, min(longest, console.width // 2))
    left = data.columns
    while True:
        taken = len(left)
        while taken > 1 and not _fits(console, _table(data, left[:taken], narrow=narrow)):
            taken -= 1
        if taken < len(left):
            tables = math.ceil(len(left) / taken)
            taken = math.ceil(len(left) / tables)  # so that the last table is not much narrower
        yield _table(data, left[:taken], narrow=narrow)
        left = left[taken:]
        if not left:
            return


def _fits(console: Console, table: Table) -> bool:
    return console.measure(table, options=console.options.update(width=10_000)).maximum <= (
        console.width
    )


def _table(
    data: TableData,
    columns: Sequence[TableColumn],
    *,
    beside: bool = False,
    narrow: int | None = None,
) -> Table:
    """A table for the terminal. `narrow` is the largest width of the labels."""
    table = Table(header_style="bold cyan", border_style="dim")
    table.add_column(data.corner, overflow="fold", max_width=narrow)
    for column in columns:
        heading = Text(fill(column.title, _INTERVAL) if narrow else column.title)
        if column.below:
            heading.append(f"\n{column.below}", style="dim")
        table.add_column(heading, justify="right", no_wrap=True)
    for row, label in enumerate(data.labels):
        cells = [_cell(column.cells[row], beside=beside) for column in columns]
        table.add_row(Text(label), *cells)
    return table


def _cell(cell: Cell, *, beside: bool) -> Text:
    value = Text(cell.value, style="bold" if cell.best else "")
    if cell.interval:
        value.append(" " if beside else "\n").append(cell.interval, style="dim")
    return value


def _pairs(rows: Sequence[ResultRow]) -> Iterator[str]:
    for row in rows:
        for name, found in row.against.items():
            pairs = [
                f"{labels.metric_name(metric)} {_pair(pair, row.run.study)}"
                for metric in chosen_of(rows, COMPARED)
                if (pair := found.get(metric)) and (pair.ratio or row.run.study == WISHES)
            ]
            if pairs:
                yield f"{labels.label(row)} against {name}, user by user: {', '.join(pairs)}"


def _pair(pair: PairedComparison, study: str) -> str:
    """The ratio with its interval; the difference for wishes, of which one may find none."""
    if pair.ratio and study != WISHES:
        return f"{_shown(pair.ratio, labels.share)}"
    return f"{_shown(pair.difference, labels.change)}"


def _shown(estimate: MetricEstimate, text: Callable[[float], str]) -> str:
    return f"{text(estimate.value)} ({text(estimate.low)} – {text(estimate.high)})"


def _notes(group: Group, shown: Sequence[TableData]) -> Iterator[str]:
    rows = group.rows
    notes = [labels.cases_of(rows)]
    if any(data.estimated for data in shown):
        notes.append("beside or below each value: its 95 % interval (bootstrap over users)")
    if any(row.usage for row in rows):
        notes.append("tokens: input per user")
    if any(column.title == "rounds" for data in shown for column in data.columns):
        notes.append("calls and rounds: per user")
    yield "; ".join(notes)
    if models := labels.models_of(rows):
        yield f"model: {models}"
    yield from _pairs(rows)
    skipped = rows[0].run.data.skipped
    if skipped:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in skipped.items())
        yield f"skipped rows of the data: {reasons}"
    for row in rows:
        if row.degraded:
            failed = labels.several(row.degraded, "answer")
            yield (
                f"{labels.label(row)}: the model failed for {failed}; the embedded ranker answered"
            )
        if row.flaws:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in row.flaws.items())
            yield f"{labels.label(row)} gave invalid items: {reasons}"
