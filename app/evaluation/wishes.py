"""The study `wishes`: how often a wish in words finds the items that it was written for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from app.evaluation.dataset import Dataset
from app.evaluation.formats.wishes import Wish
from app.evaluation.metrics import SystemMetrics
from app.evaluation.protocols import known_item
from app.evaluation.report import Data, ModelUsage, ResultRow
from app.evaluation.report.result_row import Scalar
from app.evaluation.report.tables import WISHES
from app.evaluation.trials import Trial

SYSTEMS = ("bm25", "semantic", "embedded")
METRICS = ("recall@1", "recall@5", "recall@20", "ndcg@20")
ALL = "all"  # the name of several data sets together

_PROTOCOL = "known-item"
_CUTOFFS = (1, 5, 20)


@dataclass(frozen=True, slots=True)
class Measured:
    """The row of one system on one data set, and the metrics that it was made of."""

    row: ResultRow
    metrics: SystemMetrics


def trials(
    data: Dataset,
    wishes: Sequence[Wish],
    systems: Sequence[str],
    settings: Mapping[str, Scalar],
    *,
    with_history: bool = False,
) -> list[Trial]:
    """One trial per system, all with the same wishes. Raises DataError where no wish is left."""
    split = known_item(data, wishes, with_history=with_history)
    if with_history:
        settings = {**settings, "with_history": True}
    return [
        Trial(WISHES, _PROTOCOL, system, split, settings, cutoffs=_CUTOFFS) for system in systems
    ]


def over_all(parts: Mapping[str, Sequence[Measured]]) -> list[ResultRow]:
    """One row per system over all wishes, from its rows on each data set, by their names.

    Each is compared with the first system.
    """
    systems = list(zip(*parts.values(), strict=True))
    pooled = [
        SystemMetrics.pooled({name: one.metrics for name, one in zip(parts, measured, strict=True)})
        for measured in systems
    ]
    first = systems[0][0].row.run.system
    return [
        _row([one.row for one in measured], found, {} if at == 0 else {first: pooled[0]})
        for at, (measured, found) in enumerate(zip(systems, pooled, strict=True))
    ]


def _row(
    rows: Sequence[ResultRow], found: SystemMetrics, against: Mapping[str, SystemMetrics]
) -> ResultRow:
    run = rows[0].run
    usage: dict[str, ModelUsage] = {}
    for row in rows:
        for stage, used in row.usage.items():
            usage[stage] = usage.get(stage, ModelUsage()).plus(used)
    pooled = ResultRow.of(
        msgspec.structs.replace(
            run,
            data=_data([row.run.data for row in rows]),
            settings=run.settings | {"cases": sum(row.cases for row in rows)},
        ),
        found,
        usage=usage,
        degraded=sum(row.degraded for row in rows),
        against=against,
        fit_s=sum(row.fit_s for row in rows),
        rank_s=sum(row.rank_s for row in rows),
    )
    return msgspec.structs.replace(pooled, ended=max(row.ended for row in rows))


def _data(each: Sequence[Data]) -> Data:
    skipped: Counter[str] = Counter()
    for data in each:
        skipped.update(data.skipped)
    return Data(
        name=ALL,
        checksums={
            f"{data.name}/{name}": checksum
            for data in each
            for name, checksum in data.checksums.items()
        },
        items=sum(data.items for data in each),
        users=sum(data.users for data in each),
        skipped=dict(skipped),
    )
