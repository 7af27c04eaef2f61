"""Which plots the rows give, and what each of them shows; `plots` draws them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.evaluation.metrics import Estimate
from app.evaluation.report import wording
from app.evaluation.report.rows import Row
from app.evaluation.report.wording import Group

TOPICS = "topics"  # the study whose rows are shown topic by topic; others only hold them
_FEWEST_CASES = 20  # that a bucket must have to be drawn
_WHERE_NOT_LINES = frozenset({"diversity"})
_AXES = {
    "training_share": "share of the training data, %",
    "catalogue_size": "items in the catalogue",
    "k": "items taken per leaf, k",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One mark: where it stands, and its intervals."""

    x: float
    y: Estimate
    x_estimate: Estimate | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: the points of every system, by its name."""

    x: str
    y: str
    series: Mapping[str, Sequence[Point]]
    levels: Mapping[str, Estimate]  # systems that the x axis does not concern
    ticks: Sequence[str] = ()  # names of x = 0, 1, …; numbers without
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars: a value for every label. All panels of a figure have the same labels."""

    x: str
    values: Mapping[str, Estimate]
    systems: Mapping[str, str]  # whose bar it is, by label


@dataclass(frozen=True, slots=True)
class Figure:
    """One plot: its panels stand side by side."""

    title: str
    caption: str
    panels: Sequence[Panel] | Sequence[Bars]


def figures(group: Group) -> Iterator[Figure]:
    """All plots that the rows of one group have data for; none in which all is zero."""
    for figure in _all(group):
        bars = [panel for panel in figure.panels if isinstance(panel, Bars) and _tells(panel)]
        lines = [panel for panel in figure.panels if isinstance(panel, Panel) and _tells(panel)]
        if bars or lines:
            yield replace(figure, panels=bars or lines)


def _tells(panel: Panel | Bars) -> bool:
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
        elif name in _WHERE_NOT_LINES:
            yield from _trade_off(rows, name)
        else:
            yield from _along(rows, name)
    if group.study == TOPICS:
        yield from _topics(rows)


def _compared(rows: Sequence[Row]) -> Iterator[Figure]:
    chosen = [m for name in ("recall", "ndcg") if (m := wording.largest_k(rows, name))]
    ordered = sorted(
        (row for row in rows if all(metric in row.metrics for metric in chosen)),
        key=lambda row: [row.metrics[metric].value for metric in chosen],
    )
    systems = {wording.label(row): row.run.system for row in ordered}
    panels = [
        Bars(
            wording.metric_name(metric),
            {wording.label(row): row.metrics[metric] for row in ordered},
            systems,
        )
        for metric in chosen
    ]
    if panels and ordered:
        yield Figure("Systems side by side", "Lines are 95 % intervals over readers.", panels)


def _cold_start(rows: Sequence[Row]) -> Iterator[Figure]:
    known = dict.fromkeys(bucket for row in rows for bucket in row.buckets)
    buckets = wording.bucket_order(
        bucket for row in rows for bucket, own in row.buckets.items() if own.cases >= _FEWEST_CASES
    )
    if len(buckets) < 2:
        return
    panels: list[Panel] = []
    for name in ("recall", "ndcg", "gauc"):
        metric = wording.largest_k(rows, name, by_bucket=True)
        series = {
            wording.label(row): [
                Point(x, found.metrics[metric])
                for x, bucket in enumerate(buckets)
                if (found := row.buckets.get(bucket)) and metric in found.metrics
            ]
            for row in rows
            if metric
        }
        series = {label: points for label, points in series.items() if points}
        if series and len(panels) < 2:
            title = wording.metric_name(metric or "")
            panels.append(Panel("events in the history", title, series, {}, ticks=buckets))
    if panels:
        caption = "What a longer history is worth to each system."
        if len(buckets) < len(known):
            caption += f" Lengths with fewer than {_FEWEST_CASES} cases are in the tables only."
        yield Figure("Cold start", caption, panels)


def _along(rows: Sequence[Row], name: str) -> Iterator[Figure]:
    scale = 100 if name == "training_share" else 1
    panels = []
    for wanted in ("recall", "ndcg"):
        metric = wording.largest_k(rows, wanted)
        if metric is None:
            continue
        series: dict[str, list[Point]] = {}
        for row in _sorted(rows, name):
            if metric in row.metrics:
                x = _number(row, name) * scale
                point = Point(x, row.metrics[metric])
                series.setdefault(wording.label(row, name), []).append(point)
        levels = {
            wording.label(row): row.metrics[metric]
            for row in rows
            if name not in row.run.parameters and metric in row.metrics
        }
        axis = _AXES.get(name, wording.words(name))
        panels.append(Panel(axis, wording.metric_name(metric), series, levels))
    if panels:
        known = {"training_share": "Against the amount of training data", "k": "Items per leaf"}
        caption = "Bands are 95 % intervals over readers."
        if any(panel.levels for panel in panels):
            caption += " Dashed: systems that train on nothing."
        yield Figure(known.get(name, f"Along {wording.words(name)}"), caption, panels)


def _tokens(rows: Sequence[Row]) -> Iterator[Figure]:
    series: dict[str, list[Point]] = {}
    for row in _sorted(rows, "catalogue_size"):
        if row.usage and row.tokens() > 0:
            value = row.tokens()
            point = Point(_number(row, "catalogue_size"), Estimate(value, value, value, row.cases))
            series.setdefault(wording.label(row, "catalogue_size"), []).append(point)
    grown = {
        f"{system} (× {points[-1].y.value / points[0].y.value:.1f})"
        if len(points) > 1
        else system: points
        for system, points in series.items()
    }
    if grown:
        panel = Panel(
            _AXES["catalogue_size"], "input tokens per reader", grown, {}, log_x=True, log_y=True
        )
        caption = "In brackets: growth from the smallest catalogue to the largest."
        yield Figure("Tokens against catalogue size", caption, [panel])


def _by_stage(rows: Sequence[Row]) -> Iterator[Figure]:
    asked = [row for row in rows if row.tokens() > 0]
    stages = dict.fromkeys(stage for row in asked for stage in row.usage)
    systems = {wording.label(row): row.run.system for row in reversed(asked)}
    panels = [
        Bars(
            stage,
            {wording.label(row): _exact(row.tokens(stage), row.cases) for row in reversed(asked)},
            systems,
        )
        for stage in stages
        if any(row.tokens(stage) > 0 for row in asked)
    ]
    if panels:
        yield Figure("Tokens by stage", "Input tokens per reader.", panels)


def _trade_off(rows: Sequence[Row], name: str) -> Iterator[Figure]:
    ndcg, ilad = wording.largest_k(rows, "ndcg"), wording.largest_k(rows, "ilad")
    if ndcg is None or ilad is None:
        return
    series: dict[str, list[Point]] = {}
    for row in _sorted(rows, name) if name else rows:
        if ndcg in row.metrics and ilad in row.metrics:
            note = wording.scalar(row.run.parameters.get(name)) if name else ""
            y, x = row.metrics[ilad], row.metrics[ndcg]
            point = Point(x.value, y, x, note)
            series.setdefault(wording.label(row, name), []).append(point)
    if series:
        panel = Panel(wording.metric_name(ndcg), wording.metric_name(ilad), series, {})
        caption = "Up and to the right is better; crosses are 95 % intervals."
        if name:
            caption += f" Beside each point: {wording.words(name)}."
        yield Figure("Diversity against relevance", caption, [panel])


def _topics(rows: Sequence[Row]) -> Iterator[Figure]:
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
        title = f"Topics of {wording.label(row)}"
        yield Figure(title, "The ten commonest topics among the targets.", panels)


def _numeric(rows: Sequence[Row], name: str) -> bool:
    values = [row.run.parameters[name] for row in rows if name in row.run.parameters]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _number(row: Row, name: str) -> float:
    value = row.run.parameters.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _sorted(rows: Sequence[Row], name: str) -> list[Row]:
    return sorted(
        (row for row in rows if name in row.run.parameters), key=lambda row: _number(row, name)
    )


def _exact(value: float, cases: int) -> Estimate:
    return Estimate(value, value, value, cases)
