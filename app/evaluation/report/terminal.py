"""The report on a terminal, and as JSON."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.evaluation.report import wording
from app.evaluation.report.rows import Row

_FEWEST_BUCKETS = 2  # to be told apart

USUAL = ("recall", "ndcg", "mrr", "x_random", "ilad", "coverage", "gauc")
_COMPARED = ("recall", "ndcg")


def show(console: Console, rows: Sequence[Row], *, metrics: Sequence[str] | None = None) -> None:
    """Print one table per study, data set and protocol: systems as rows, metrics as columns.

    `metrics` are names with or without `@k`; without it the largest k counts. Where the terminal
    is too narrow, intervals move below their values, and then columns into further tables.
    """
    for group in wording.groups(rows):
        console.print(Text(group.title, style="bold"), soft_wrap=True)
        for table in _fitting(console, group.rows, _chosen(group.rows, metrics or USUAL)):
            console.print(table)
        for table in _by_bucket(group.rows):
            console.print(table)
        for note in _notes(group.rows):
            console.print(Text(note, style="dim"))
        console.print()


def as_json(rows: Iterable[Row]) -> dict[str, object]:
    """All rows as one object."""
    return {"rows": [msgspec.to_builtins(row) for row in rows]}


def _chosen(rows: Sequence[Row], wanted: Sequence[str]) -> list[str]:
    metrics = wording.metrics_of(rows)
    found = [name if "@" in name else wording.largest_k(rows, name) for name in wanted]
    return [metric for metric in dict.fromkeys(found) if metric in metrics]


def _fitting(console: Console, rows: Sequence[Row], metrics: list[str]) -> Iterator[Table]:
    """One table if it fits in the console's width, else as few as it takes."""
    for beside in (True, False):
        table = _table(rows, metrics, beside=beside, rest=True)
        if _fits(console, table):
            yield table
            return
    left = metrics
    while left:
        taken = len(left)
        while taken > 1 and not _fits(console, _table(rows, left[:taken], beside=False)):
            taken -= 1
        last = _table(rows, left[:taken], beside=False, rest=True)
        if taken == len(left) and _fits(console, last):
            yield last
            return
        yield _table(rows, left[:taken], beside=False)
        left = left[taken:]
    yield _table(rows, [], beside=False, rest=True)


def _by_bucket(rows: Sequence[Row]) -> Iterator[Table]:
    """A table per metric of accuracy: systems as rows, buckets of readers as columns."""
    buckets = wording.bucket_order(name for row in rows for name in row.buckets)
    if len(buckets) < _FEWEST_BUCKETS:
        return
    for metric in _chosen(rows, _COMPARED):
        table = Table(header_style="bold cyan", border_style="dim")
        table.add_column(wording.metric_name(metric), overflow="fold")
        for name in buckets:
            cases = max(row.buckets[name].cases for row in rows if name in row.buckets)
            heading = Text(name).append(f"\n{cases:,} cases", style="dim")
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(Text(wording.label(row)), *(_of_bucket(row, n, metric) for n in buckets))
        yield table


def _of_bucket(row: Row, bucket: str, metric: str) -> Text:
    found = row.buckets.get(bucket)
    estimate = found.metrics.get(metric) if found else None
    if estimate is None:
        return Text("–", style="dim")
    return Text(wording.figure(estimate.value)).append(f"\n{wording.bounds(estimate)}", style="dim")


def _fits(console: Console, table: Table) -> bool:
    return console.measure(table, options=console.options.update(width=10_000)).maximum <= (
        console.width
    )


def _table(
    rows: Sequence[Row], metrics: Sequence[str], *, beside: bool, rest: bool = False
) -> Table:
    table = Table(header_style="bold cyan", border_style="dim")
    table.add_column("system", overflow="fold")
    for metric in metrics:
        table.add_column(wording.metric_name(metric), justify="right", no_wrap=True)
    if rest:
        for name in ("tokens", "users/s"):
            table.add_column(name, justify="right", no_wrap=True)
    best = {metric: wording.best(rows, metric) for metric in metrics}
    for row in rows:
        cells = [_cell(row, metric, best[metric], beside=beside) for metric in metrics]
        if rest:
            tokens = wording.count(row.tokens()) if row.usage else "–"
            cells += [Text(tokens), Text(wording.count(row.users_per_s))]
        table.add_row(Text(wording.label(row)), *cells)
    return table


def _cell(row: Row, metric: str, best: float | None, *, beside: bool) -> Text:
    estimate = row.metrics.get(metric)
    if estimate is None:
        return Text("–", style="dim")
    value = Text(wording.figure(estimate.value), style="bold" if estimate.value == best else "")
    return value.append(" " if beside else "\n").append(wording.bounds(estimate), style="dim")


def _pairs(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for name, found in row.against.items():
            told = [
                f"{wording.metric_name(metric)} {wording.share(pair.ratio.value)} "
                f"({wording.share(pair.ratio.low)} – {wording.share(pair.ratio.high)})"
                for metric in _chosen(rows, _COMPARED)
                if (pair := found.get(metric)) and pair.ratio
            ]
            if told:
                yield f"{wording.label(row)} reaches of {name}, reader by reader: {', '.join(told)}"


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    cases = sorted({row.cases for row in rows})
    yield (
        f"{' or '.join(f'{n:,}' for n in cases)} cases; beside each value its 95 % interval "
        "(bootstrap over readers); tokens: input per reader"
    )
    yield from _pairs(rows)
    skipped = rows[0].run.data.skipped
    if skipped:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in skipped.items())
        yield f"rows of the data that were skipped: {reasons}"
    for row in rows:
        if row.degraded:
            yield (
                f"{wording.label(row)}: the model failed in {row.degraded:,} answers, which the "
                "embedded ranker gave"
            )
        if row.flaws:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in row.flaws.items())
            yield f"{wording.label(row)} named items in vain: {reasons}"
