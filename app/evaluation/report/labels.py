"""How rows are grouped, ordered and labelled, in all reports."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.evaluation.metrics import MetricEstimate
from app.evaluation.report.result_row import ResultRow, Scalar

_NAMES = {
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "hit_rate": "Hit rate",
    "ilad": "ILAD",
    "novelty": "Novelty",
    "long_tail": "Long tail",
    "x_random": "× random",
    "gauc": "GAUC",
    "popularity_shift": "Popularity shift",
    "coverage": "Coverage",
    "gini": "Gini",
    "topic_similarity": "Topics ~ history",
    "topic_similarity_targets": "Topics ~ targets",
    "topic_level": "Targets ~ history",
    "position_spread": "Position spread",
}
_ORDER = list(_NAMES)
_PLACES = ((0.1, 4), (1, 3), (10, 2), (100, 1))  # decimals below each size
LESS_IS_BETTER = frozenset({"gini", "position_spread"})
NOT_JUDGED = frozenset(
    {"popularity_shift", "topic_level", "novelty", "long_tail"}
)  # neither is better


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that may be compared: one study, one data set, one protocol."""

    study: str
    data: str
    protocol: str
    rows: Sequence[ResultRow]

    @property
    def title(self) -> str:
        """The title of the group."""
        return f"{self.study} · {self.data} · {self.protocol}"


def groups(rows: Iterable[ResultRow]) -> list[Group]:
    """The groups, in the order of their first rows. Data with other checksums are another group."""
    found: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in rows:
        run = row.run
        same = (run.study, run.data.name, run.protocol, *sorted(run.data.checksums.values()))
        found.setdefault(same, []).append(row)
    return [
        Group(first.run.study, first.run.data.name, first.run.protocol, [first, *others])
        for first, *others in found.values()
    ]


def base(metric: str) -> str:
    """The metric without k: `recall` for `recall@20`."""
    return metric.partition("@")[0]


def metric_name(metric: str) -> str:
    """The displayed name: `Recall@20` for `recall@20`; unknown metrics keep their name."""
    name, at, k = metric.partition("@")
    return f"{_NAMES.get(name, name)}{at}{k}"


def metrics_of(rows: Iterable[ResultRow], *, by_bucket: bool = False) -> list[str]:
    """All metrics of the rows or of their buckets, in the order of display, larger k first."""
    names = dict.fromkeys(
        name
        for row in rows
        for found in (
            [each.metrics for each in row.buckets.values()] if by_bucket else [row.metrics]
        )
        for name in found
    )

    def place(metric: str) -> tuple[int, int]:
        name, _, k = metric.partition("@")
        known = _ORDER.index(name) if name in _ORDER else len(_ORDER)
        return known, -int(k) if k.isdigit() else 0

    return sorted(names, key=place)


def largest_k(rows: Iterable[ResultRow], name: str, *, by_bucket: bool = False) -> str | None:
    """The metric with its largest k; None where no row has it."""
    metrics = metrics_of(rows, by_bucket=by_bucket)
    return next((metric for metric in metrics if base(metric) == name), None)


def label(row: ResultRow, without: str = "") -> str:
    """The system and the parameters of the study, `without` one of them."""
    set_to = [
        f"{words(name)} {scalar(value)}"
        for name, value in row.run.parameters.items()
        if name != without
    ]
    return " · ".join([row.run.system, *set_to])


def words(name: str) -> str:
    """The name with spaces: `training share` for `training_share`."""
    return name.replace("_", " ")


def scalar(value: Scalar) -> str:
    """A parameter as text."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def figure(value: float, like: float | None = None) -> str:
    """Three significant digits: .0574, 3.21, 128. With `like`, as many decimals as that number."""
    size = abs(value if like is None else like)
    places = next((places for limit, places in _PLACES if size < limit), 0)
    text = f"{value:,.{places}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def bounds(estimate: MetricEstimate) -> str:
    """The interval as text: `.051 – .063`."""
    low, high = (figure(bound, estimate.value) for bound in (estimate.low, estimate.high))
    return f"{low} – {high}"


def share(value: float) -> str:
    """A ratio as text: `97.3 %`, or `× 41.0` from 10 on."""
    return f"{value:.1%}".replace("%", " %") if value < 10 else f"× {value:,.1f}"


def change(value: float) -> str:
    """A difference as text: `+.057`, `–.012`."""
    return f"{'–' if value < 0 else '+'}{figure(abs(value), 0.1)}"


def count(value: float | None) -> str:
    """A count as text; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def several(number: int, what: str) -> str:
    """A number with its noun: `1 case`, `1,200 cases`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def cases_of(rows: Iterable[ResultRow]) -> str:
    """The number of cases of the rows: `500 cases`, or `20 or 500 cases`."""
    *others, most = sorted({row.cases for row in rows})
    return " or ".join([*(f"{number:,}" for number in others), several(most, "case")])


def models_of(rows: Sequence[ResultRow]) -> str:
    """The models that were used, with their systems where they differ; empty for none."""
    systems: dict[str, list[str]] = {}
    for row in rows:
        if row.model:
            systems.setdefault(row.model, []).append(row.run.system)
    if len(systems) < 2:
        return "".join(systems)
    return "; ".join(f"{name} ({', '.join(dict.fromkeys(by))})" for name, by in systems.items())


def bucket_order(buckets: Iterable[str]) -> list[str]:
    """Buckets sorted by their first number; those without a number last, in the given order."""

    def start(bucket: str) -> float:
        number = re.match(r"\D*(\d+)", bucket)
        return float(number[1]) if number else float("inf")

    return sorted(dict.fromkeys(buckets), key=start)


def best(rows: Sequence[ResultRow], metric: str) -> float | None:
    """The best value of a metric among the rows; None where the metric has no best."""
    if base(metric) in NOT_JUDGED:
        return None
    values = [row.metrics[metric].value for row in rows if metric in row.metrics]
    if len(set(values)) < 2:
        return None
    return min(values) if base(metric) in LESS_IS_BETTER else max(values)
