"""How rows are grouped, ordered and named, wherever they are shown."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.evaluation.metrics import Estimate
from app.evaluation.report.rows import Row, Scalar

_NAMES = {
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "hit_rate": "Hit rate",
    "ilad": "ILAD",
    "novelty": "Novelty",
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
NOT_JUDGED = frozenset({"popularity_shift", "topic_level", "novelty"})  # no better and no worse


@dataclass(frozen=True, slots=True)
class Group:
    """The rows that may be compared: one study of one data set under one protocol."""

    study: str
    data: str
    protocol: str
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """What stands above its table."""
        return f"{self.study} · {self.data} · {self.protocol}"


def groups(rows: Iterable[Row]) -> list[Group]:
    """In the order of their first rows. Other data of the same name is another group."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        run = row.run
        same = (run.study, run.data.name, run.protocol, *sorted(run.data.checksums.values()))
        found.setdefault(same, []).append(row)
    return [
        Group(own[0].run.study, own[0].run.data.name, own[0].run.protocol, own)
        for own in found.values()
    ]


def base(metric: str) -> str:
    """`recall` of `recall@20`."""
    return metric.partition("@")[0]


def metric_name(metric: str) -> str:
    """`Recall@20` of `recall@20`; a metric unknown here keeps its name."""
    name, at, k = metric.partition("@")
    return f"{_NAMES.get(name, name)}{at}{k}"


def metrics_of(rows: Iterable[Row], *, by_bucket: bool = False) -> list[str]:
    """All metrics of the rows, or of their buckets: the usual order, larger k first."""
    names = dict.fromkeys(
        name
        for row in rows
        for own in ([each.metrics for each in row.buckets.values()] if by_bucket else [row.metrics])
        for name in own
    )

    def place(metric: str) -> tuple[int, int]:
        name, _, k = metric.partition("@")
        known = _ORDER.index(name) if name in _ORDER else len(_ORDER)
        return known, -int(k) if k.isdigit() else 0

    return sorted(names, key=place)


def largest_k(rows: Iterable[Row], name: str, *, by_bucket: bool = False) -> str | None:
    """The metric of this name at its largest k; None where no row has it."""
    metrics = metrics_of(rows, by_bucket=by_bucket)
    return next((metric for metric in metrics if base(metric) == name), None)


def label(row: Row, but: str = "") -> str:
    """The system and what the study set it to, all `but` one parameter."""
    set_to = [
        f"{words(name)} {scalar(value)}"
        for name, value in row.run.parameters.items()
        if name != but
    ]
    return " · ".join([row.run.system, *set_to])


def words(name: str) -> str:
    """`training share` of `training_share`."""
    return name.replace("_", " ")


def scalar(value: Scalar) -> str:
    """A parameter as it is written out."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def figure(value: float, like: float | None = None) -> str:
    """Three digits that count: .0574, 3.21, 128; with `like`, to as many places as that one."""
    size = abs(value if like is None else like)
    places = next((places for limit, places in _PLACES if size < limit), 0)
    text = f"{value:,.{places}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def bounds(estimate: Estimate) -> str:
    """The interval: `.051 – .063`."""
    low, high = (figure(bound, estimate.value) for bound in (estimate.low, estimate.high))
    return f"{low} – {high}"


def share(value: float) -> str:
    """`97.3 %` of another figure; `× 41.0` where that says more."""
    return f"{value:.1%}".replace("%", " %") if value < 10 else f"× {value:,.1f}"


def count(value: float | None) -> str:
    """A count per reader or per second; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def several(number: int, what: str) -> str:
    """`1 case`, `1,200 cases`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def cases_of(rows: Iterable[Row]) -> str:
    """How many cases each row had: `500 cases`, or `20 or 500 cases`."""
    *others, most = sorted({row.cases for row in rows})
    return " or ".join([*(f"{number:,}" for number in others), several(most, "case")])


def models_of(rows: Sequence[Row]) -> str:
    """Which models were asked, and by whom where they differ; empty where none was."""
    asked: dict[str, list[str]] = {}
    for row in rows:
        if row.model:
            asked.setdefault(row.model, []).append(row.run.system)
    if len(asked) < 2:
        return "".join(asked)
    return "; ".join(f"{name} ({', '.join(dict.fromkeys(by))})" for name, by in asked.items())


def bucket_order(buckets: Iterable[str]) -> list[str]:
    """Buckets by the number that they begin with; those without one last, in their own order."""

    def start(bucket: str) -> float:
        number = re.match(r"\D*(\d+)", bucket)
        return float(number[1]) if number else float("inf")

    return sorted(dict.fromkeys(buckets), key=start)


def best(rows: Sequence[Row], metric: str) -> float | None:
    """The best value of a metric among the rows; None where there is no better and worse."""
    if base(metric) in NOT_JUDGED:
        return None
    values = [row.metrics[metric].value for row in rows if metric in row.metrics]
    if len(set(values)) < 2:
        return None
    return min(values) if base(metric) in LESS_IS_BETTER else max(values)
