"""The tables of a report: the same columns on the terminal and on the page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from app.evaluation.metrics import MetricEstimate
from app.evaluation.report import labels
from app.evaluation.report.labels import Group
from app.evaluation.report.result_row import Metrics, ResultRow

TOKENS = "tokens"  # the study whose tables show the use of models instead of quality
WISHES = "wishes"  # the study of wishes in words
COMPARED = ("recall", "ndcg")
_USUAL = ("recall", "ndcg", "mrr", "x_random", "ilad", "coverage", "gauc")
_STAGES = ("profile", "search", "recall", "rerank")
_FEWEST_BUCKETS = 2  # for a table by bucket


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as text."""

    value: str = "–"
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One cell per row of the table. `below` is a second line of the title."""

    title: str
    cells: Sequence[Cell]
    below: str = ""


@dataclass(frozen=True, slots=True)
class TableData:
    """A table. `corner` is the title of the column of labels."""

    corner: str
    labels: Sequence[str]
    columns: Sequence[TableColumn]

    @property
    def estimated(self) -> bool:
        """Whether any figure has an interval."""
        return any(cell.interval for column in self.columns for cell in column.cells)


def tables_of(group: Group, wanted: Sequence[str] | None = _USUAL) -> list[TableData]:
    """All tables of a group that have columns; a table of labels only where nothing was measured.

    `wanted` are metrics with or without `@k`; None for all. Rows that were measured by bucket only
    have no metrics in other tables.
    """
    rows = group.rows
    if group.study == TOKENS and any(row.usage for row in rows):
        return [_table(rows, _costs(rows))]
    chosen = labels.metrics_of(rows) if wanted is None else chosen_of(rows, wanted)
    overall = _table(rows, [*_metrics(rows, chosen), *_served(rows)])
    buckets = list(_by_bucket(rows)) if group.study != TOKENS else []
    made = [overall, *buckets] if chosen else [*buckets, overall]
    return [table for table in made if table.columns] or [overall]


def chosen_of(
    rows: Sequence[ResultRow], wanted: Sequence[str], *, by_bucket: bool = False
) -> list[str]:
    """The metrics with these names that the rows have; the largest k for names without `@k`."""
    metrics = labels.metrics_of(rows, by_bucket=by_bucket)
    found = [
        name if "@" in name else labels.largest_k(rows, name, by_bucket=by_bucket)
        for name in wanted
    ]
    return [metric for metric in dict.fromkeys(found) if metric in metrics]


def _table(
    rows: Sequence[ResultRow], columns: Iterable[TableColumn], corner: str = "system"
) -> TableData:
    return TableData(corner, [labels.label(row) for row in rows], list(columns))


def _metrics(rows: Sequence[ResultRow], chosen: Sequence[str]) -> Iterator[TableColumn]:
    for metric in chosen:
        best = labels.best(rows, metric)
        cells = [_estimate(row.metrics, metric, best) for row in rows]
        yield TableColumn(labels.metric_name(metric), cells)


def _served(rows: Sequence[ResultRow]) -> Iterator[TableColumn]:
    if any(row.usage for row in rows):
        yield _counts("tokens", rows, lambda row: row.tokens() if row.usage else None)
    if any(row.users_per_s is not None for row in rows):
        yield _counts("users/s", rows, lambda row: row.users_per_s)


def _costs(rows: Sequence[ResultRow]) -> Iterator[TableColumn]:
    known = {stage: place for place, stage in enumerate(_STAGES)}
    stages = {stage: None for row in rows for stage in row.usage}
    for stage in sorted(stages, key=lambda stage: known.get(stage, len(known))):

        def tokens(row: ResultRow, stage: str = stage) -> float | None:
            return row.tokens(stage) if stage in row.usage else None

        yield _counts(stage, rows, tokens, "tokens")
    yield _counts("total", rows, lambda row: row.tokens() if row.usage else None, "tokens")
    yield _counts("calls", rows, lambda row: row.calls if row.usage else None)
    yield _counts("rounds", rows, lambda row: row.rounds if row.usage else None)


def _by_bucket(rows: Sequence[ResultRow]) -> Iterator[TableData]:
    """One table per accuracy metric, with buckets as columns."""
    parted = [row for row in rows if row.buckets]
    buckets = labels.bucket_order(name for row in parted for name in row.buckets)
    if len(buckets) < _FEWEST_BUCKETS and any(row.metrics for row in rows):
        return
    chosen = chosen_of(parted, COMPARED, by_bucket=True) or chosen_of(
        parted, _USUAL, by_bucket=True
    )
    for metric in chosen:
        columns = []
        for name in buckets:
            found = [row.buckets.get(name) for row in parted]
            if not any(bucket and metric in bucket.metrics for bucket in found):
                continue
            cases = max(bucket.cases for bucket in found if bucket)
            cells = [_estimate(bucket.metrics if bucket else {}, metric) for bucket in found]
            columns.append(TableColumn(name, cells, labels.several(cases, "case")))
        yield _table(parted, columns, labels.metric_name(metric))


def _estimate(metrics: Metrics, metric: str, best: float | None = None) -> Cell:
    found: MetricEstimate | None = metrics.get(metric)
    if found is None:
        return Cell()
    return Cell(labels.figure(found.value), labels.bounds(found), found.value == best)


def _counts(
    title: str,
    rows: Sequence[ResultRow],
    value: Callable[[ResultRow], float | None],
    below: str = "",
) -> TableColumn:
    return TableColumn(title, [Cell(labels.count(value(row))) for row in rows], below)
