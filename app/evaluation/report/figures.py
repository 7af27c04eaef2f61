"""The plots that rows have data for. `plots` draws them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.evaluation.metrics import MetricEstimate
from app.evaluation.report import labels
from app.evaluation.report.labels import Group
from app.evaluation.report.result_row import ResultRow

TOPICS = "topics"  # the study whose rows are shown by topic
_FEWEST_CASES = 20  # of a bucket that is drawn
_TRADE_OFFS = frozenset({"diversity"})
_AXES = {
    "training_share": "share of the training data, %",
    "catalogue_size": "items in the catalogue",
    "k": "items taken per leaf, k",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a plot, with its intervals."""

    x: float
    y: MetricEstimate
    x_estimate: MetricEstimate | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: the points of each system, by name."""

    x: str
    y: str
    series: Mapping[str, Sequence[Point]]
    levels: Mapping[str, MetricEstimate]  # systems without a value on the x axis
    ticks: Sequence[str] = ()  # names of x = 0, 1, …; empty for numbers
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars: a value per label. All panels of a figure have the same labels."""

    x: str
    values: Mapping[str, MetricEstimate]
    systems: Mapping[str, str]  # system of each bar, by label


@dataclass(frozen=True, slots=True)
class Figure:
    """One plot, with panels side by side."""

    title: str
    caption: str
    panels: Sequence[Panel] | Sequence[Bars]


def figures(group: Group) -> Iterator[Figure]:
    """All plots that the rows of a group have data for, except those where all values are zero."""
    for figure in _all(group):
        bars = [panel for panel in figure.panels if isinstance(panel, Bars) and _has_data(panel)]
        lines = [panel for panel in figure.panels if isinstance(panel, Panel) and _has_data(panel)]
        if bars or lines:
            yield replace(figure, panels=bars or lines)


def _has_data(panel: Panel | Bars) -> bool:
    if isinstance(panel, Bars):
        return any(estimate.value for estimate in panel.values.values())
    points = [point for own in panel.series.values() for point in own]
    across = [point.x for point in points if point.x_estimate]
    up = [estimate.value for estimate in (*(p.y for p in points), *panel.levels.values())]
    return any(up) and (any(across) or not across)


def _all(group: Group) -> Iterator[Figure]:
    rows = group.rows
    names = dict.fromkeys(name for row in rows for name in row.run.parameters)
    numeric = [name for name in names if _numeric(rows, name)]
    plain = [row for row in rows if not any(name in row.run.parameters for name in numeric)]
    if not numeric and group.study != TOPICS:
        if len(plain) > 1:
            yield from _compared(plain)
        if len(plain) > 1 or not any(row.metrics for row in plain):
            yield from _cold_start(plain)
    if len(plain) > 1 and not numeric and group.study != TOPICS:
        if not names:
            yield from _trade_off(plain, "")
        yield from _by_stage(plain)
    for name in numeric:
        if name == "catalogue_size":
            yield from _tokens(rows)
        elif name in _TRADE_OFFS:
            yield from _trade_off(rows, name)
        else:
            yield from _along(rows, name)
    if group.study == TOPICS:
        yield from _topics(rows)


def _compared(rows: Sequence[ResultRow]) -> Iterator[Figure]:
    chosen = [m for name in ("recall", "ndcg") if (m := labels.largest_k(rows, name))]
    ordered = sorted(
        (row for row in rows if all(metric in row.metrics for metric in chosen)),
        key=lambda row: [row.metrics[metric].value for metric in chosen],
    )
    systems = {labels.label(row): row.run.system for row in ordered}
    panels = [
        Bars(
            labels.metric_name(metric),
            {labels.label(row): row.metrics[metric] for row in ordered},
            systems,
        )
        for metric in chosen
    ]
    if panels and ordered:
        yield Figure("Systems side by side", "Lines are 95 % intervals over users.", panels)


def _cold_start(rows: Sequence[ResultRow]) -> Iterator[Figure]:
    known = dict.fromkeys(bucket for row in rows for bucket in row.buckets)
    buckets = labels.bucket_order(
        bucket for row in rows for bucket, own in row.buckets.items() if own.cases >= _FEWEST_CASES
    )
    if len(buckets) < 2:
        return
    panels: list[Panel] = []
    for name in ("recall", "ndcg", "gauc"):
        metric = labels.largest_k(rows, name, by_bucket=True)
        series = {
            labels.label(row): [
                Point(x, found.metrics[metric])
                for x, bucket in enumerate(buckets)
                if (found := row.buckets.get(bucket)) and metric in found.metrics
            ]
            for row in rows
            if metric
        }
        series = {label: points for label, points in series.items() if points}
        if series and len(panels) < 2:
            title = labels.metric_name(metric or "")
            panels.append(Panel("events in the history", title, series, {}, ticks=buckets))
    if panels:
        caption = "Quality by number of events in the history."
        if len(buckets) < len(known):
            caption += f" Lengths with fewer than {_FEWEST_CASES} cases are in the tables only."
        yield Figure("Cold start", caption, panels)


def _along(rows: Sequence[ResultRow], name: str) -> Iterator[Figure]:
    scale = 100 if name == "training_share" else 1
    panels = []
    for wanted in ("recall", "ndcg"):
        metric = labels.largest_k(rows, wanted)
        if metric is None:
            continue
        series: dict[str, list[Point]] = {}
        for row in _sorted(rows, name):
            if metric in row.metrics:
                x = _number(row, name) * scale
                point = Point(x, row.metrics[metric])
                series.setdefault(labels.label(row, name), []).append(point)
        levels = {
            labels.label(row): row.metrics[metric]
            for row in rows
            if name not in row.run.parameters and metric in row.metrics
        }
        axis = _AXES.get(name, labels.words(name))
        panels.append(Panel(axis, labels.metric_name(metric), series, levels))
    if panels:
        known = {
            "training_share": "Amount of training data",
            "k": "Items per leaf",
        }
        caption = "Bands are 95 % intervals over users."
        if any(panel.levels for panel in panels):
            caption += " Dashed: systems without training."
        yield Figure(known.get(name, f"Quality by {labels.words(name)}"), caption, panels)


def _tokens(rows: Sequence[ResultRow]) -> Iterator[Figure]:
    series: dict[str, list[Point]] = {}
    for row in _sorted(rows, "catalogue_size"):
        if row.usage and row.tokens() > 0:
            value = row.tokens()
            point = Point(
                _number(row, "catalogue_size"), MetricEstimate(value, value, value, row.cases)
            )
            series.setdefault(labels.label(row, "catalogue_size"), []).append(point)
    grown = {
        f"{system} (× {points[-1].y.value / points[0].y.value:.1f})"
        if len(points) > 1
        else system: points
        for system, points in series.items()
    }
    if grown:
        panel = Panel(
            _AXES["catalogue_size"], "input tokens per user", grown, {}, log_x=True, log_y=True
        )
        caption = "In brackets: growth from the smallest catalogue to the largest."
        yield Figure("Tokens against catalogue size", caption, [panel])


def _by_stage(rows: Sequence[ResultRow]) -> Iterator[Figure]:
    costly = [row for row in rows if row.tokens() > 0]
    stages = dict.fromkeys(stage for row in costly for stage in row.usage)
    systems = {labels.label(row): row.run.system for row in reversed(costly)}
    panels = [
        Bars(
            stage,
            {labels.label(row): _exact(row.tokens(stage), row.cases) for row in reversed(costly)},
            systems,
        )
        for stage in stages
        if any(row.tokens(stage) > 0 for row in costly)
    ]
    if panels:
        yield Figure("Tokens by stage", "Input tokens per user.", panels)


def _trade_off(rows: Sequence[ResultRow], name: str) -> Iterator[Figure]:
    ndcg, ilad = labels.largest_k(rows, "ndcg"), labels.largest_k(rows, "ilad")
    if ndcg is None or ilad is None:
        return
    series: dict[str, list[Point]] = {}
    for row in _sorted(rows, name) if name else rows:
        if ndcg in row.metrics and ilad in row.metrics:
            note = labels.scalar(row.run.parameters.get(name)) if name else ""
            y, x = row.metrics[ilad], row.metrics[ndcg]
            point = Point(x.value, y, x, note)
            series.setdefault(labels.label(row, name), []).append(point)
    if series:
        panel = Panel(labels.metric_name(ndcg), labels.metric_name(ilad), series, {})
        caption = "Up and to the right is better; crosses are 95 % intervals."
        if name:
            caption += f" Beside each point: {labels.words(name)}."
        yield Figure("Diversity against relevance", caption, [panel])


def _topics(rows: Sequence[ResultRow]) -> Iterator[Figure]:
    for row in rows:
        order = row.topics.get("targets", {})
        if not order:
            continue
        shown = sorted(order, key=lambda topic: order[topic])[-10:]
        panels = [
            Bars(
                f"{whose}: share of items",
                {topic: _exact(shares.get(topic, 0.0), row.cases) for topic in shown},
                dict.fromkeys(shown, row.run.system),
            )
            for whose, shares in row.topics.items()
        ]
        title = f"Topics of {labels.label(row)}"
        yield Figure(title, "The ten most common topics of the targets.", panels)


def _numeric(rows: Sequence[ResultRow], name: str) -> bool:
    values = [row.run.parameters[name] for row in rows if name in row.run.parameters]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _number(row: ResultRow, name: str) -> float:
    value = row.run.parameters.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _sorted(rows: Sequence[ResultRow], name: str) -> list[ResultRow]:
    return sorted(
        (row for row in rows if name in row.run.parameters), key=lambda row: _number(row, name)
    )


def _exact(value: float, cases: int) -> MetricEstimate:
    return MetricEstimate(value, value, value, cases)
