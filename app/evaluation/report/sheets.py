"""What stands in the tables: the same columns on the terminal and on the page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from app.evaluation.metrics import Estimate
from app.evaluation.report import wording
from app.evaluation.report.rows import Metrics, Row
from app.evaluation.report.wording import Group

TOKENS = "tokens"  # the study whose tables tell what was asked of models, not how good it was
COMPARED = ("recall", "ndcg")
_USUAL = ("recall", "ndcg", "mrr", "x_random", "ilad", "coverage", "gauc")
_STAGES = ("profile", "search", "recall", "rerank")
_FEWEST_BUCKETS = 2  # to be told apart


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it is written out."""

    value: str = "–"
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """One cell for every row of its sheet. `below` stands under the title."""

    title: str
    cells: Sequence[Cell]
    below: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: `corner` stands above the labels of its rows."""

    corner: str
    labels: Sequence[str]
    columns: Sequence[Column]

    @property
    def estimated(self) -> bool:
        """Whether any figure has an interval."""
        return any(cell.interval for column in self.columns for cell in column.cells)


def sheets(group: Group, wanted: Sequence[str] | None = _USUAL) -> list[Sheet]:
    """All tables of a group, none of them empty; one of labels alone where nothing was measured.

    `wanted` are metrics with or without `@k`; None for all there are. Rows that were measured by
    bucket only have no other metrics in any table.
    """
    rows = group.rows
    if group.study == TOKENS and any(row.usage for row in rows):
        return [_sheet(rows, _costs(rows))]
    chosen = wording.metrics_of(rows) if wanted is None else chosen_of(rows, wanted)
    overall = _sheet(rows, [*_metrics(rows, chosen), *_served(rows)])
    buckets = list(_by_bucket(rows)) if group.study != TOKENS else []
    made = [overall, *buckets] if chosen else [*buckets, overall]
    return [sheet for sheet in made if sheet.columns] or [overall]


def chosen_of(rows: Sequence[Row], wanted: Sequence[str], *, by_bucket: bool = False) -> list[str]:
    """The metrics of these names that the rows have; without `@k` that of the largest k."""
    metrics = wording.metrics_of(rows, by_bucket=by_bucket)
    found = [
        name if "@" in name else wording.largest_k(rows, name, by_bucket=by_bucket)
        for name in wanted
    ]
    return [metric for metric in dict.fromkeys(found) if metric in metrics]


def _sheet(rows: Sequence[Row], columns: Iterable[Column], corner: str = "system") -> Sheet:
    return Sheet(corner, [wording.label(row) for row in rows], list(columns))


def _metrics(rows: Sequence[Row], chosen: Sequence[str]) -> Iterator[Column]:
    for metric in chosen:
        best = wording.best(rows, metric)
        cells = [_estimate(row.metrics, metric, best) for row in rows]
        yield Column(wording.metric_name(metric), cells)


def _served(rows: Sequence[Row]) -> Iterator[Column]:
    if any(row.usage for row in rows):
        yield _counts("tokens", rows, lambda row: row.tokens() if row.usage else None)
    if any(row.users_per_s is not None for row in rows):
        yield _counts("users/s", rows, lambda row: row.users_per_s)


def _costs(rows: Sequence[Row]) -> Iterator[Column]:
    known = {stage: place for place, stage in enumerate(_STAGES)}
    stages = {stage: None for row in rows for stage in row.usage}
    for stage in sorted(stages, key=lambda stage: known.get(stage, len(known))):

        def tokens(row: Row, stage: str = stage) -> float | None:
            return row.tokens(stage) if stage in row.usage else None

        yield _counts(stage, rows, tokens, "tokens")
    yield _counts("in all", rows, lambda row: row.tokens() if row.usage else None, "tokens")
    yield _counts("calls", rows, lambda row: row.calls if row.usage else None)
    yield _counts("rounds", rows, lambda row: row.rounds if row.usage else None)


def _by_bucket(rows: Sequence[Row]) -> Iterator[Sheet]:
    """A sheet per metric of accuracy: buckets of readers as columns."""
    own = [row for row in rows if row.buckets]
    buckets = wording.bucket_order(name for row in own for name in row.buckets)
    if len(buckets) < _FEWEST_BUCKETS and any(row.metrics for row in rows):
        return
    chosen = chosen_of(own, COMPARED, by_bucket=True) or chosen_of(own, _USUAL, by_bucket=True)
    for metric in chosen:
        columns = []
        for name in buckets:
            found = [row.buckets.get(name) for row in own]
            if not any(bucket and metric in bucket.metrics for bucket in found):
                continue
            cases = max(bucket.cases for bucket in found if bucket)
            cells = [_estimate(bucket.metrics if bucket else {}, metric) for bucket in found]
            columns.append(Column(name, cells, wording.several(cases, "case")))
        yield _sheet(own, columns, wording.metric_name(metric))


def _estimate(metrics: Metrics, metric: str, best: float | None = None) -> Cell:
    found: Estimate | None = metrics.get(metric)
    if found is None:
        return Cell()
    return Cell(wording.figure(found.value), wording.bounds(found), found.value == best)


def _counts(
    title: str, rows: Sequence[Row], value: Callable[[Row], float | None], below: str = ""
) -> Column:
    return Column(title, [Cell(wording.count(value(row))) for row in rows], below)
