"""`report`: what came of recommendations, by variant, strategy, effort, scenario or day."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from app.attribution.estimates import Difference, Estimate, Ratio
from app.storage.attribution import (
    BUCKETS,
    COLUMNS,
    LOST,
    OTHER,
    Counts,
    DayTallies,
    Dimension,
)
from app.variants import CONTROL

By: TypeAlias = Literal["variant", "strategy", "effort", "scenario", "degraded", "day"]

_MOST_ROWS = 200
_EVERY: Dimension = "degraded"  # every list has a label of it


class Differences(msgspec.Struct, frozen=True):
    """How the rates of a variant differ from those of the control; None where one is not known."""

    ctr: Difference | None
    clicks_per_list: Difference | None
    conversions_per_list: Difference | None
    value_per_list: Difference | None


class ReportRow(msgspec.Struct, frozen=True):
    """What came of the lists of one label. Rates are null where nothing is known of them."""

    label: str
    lists: int
    impressions: int
    clicks: int
    conversions: int
    value: float
    ctr: Estimate | None
    clicks_per_list: Estimate | None
    conversions_per_list: Estimate | None
    value_per_list: Estimate | None
    against_control: Differences | None = None


class Report(msgspec.Struct, frozen=True):
    """The rows, most lists first, or by day; and how many events belong to no list, by reason."""

    rows: tuple[ReportRow, ...]
    lost: dict[str, int]


def report(days: Sequence[DayTallies], by: By) -> Report:
    """What came of the lists of some days. At most 200 rows: the smallest are added up as "other".

    By variant, each is compared with the control.
    """
    sums: dict[str, Counts] = {}
    for tallies in days:
        for (dimension, label), counts in tallies.tallies.items():
            if by == "day" and dimension == _EVERY:
                _add(sums, tallies.day.isoformat(), counts)
            elif dimension == by:
                _add(sums, label, counts)
    names = sorted(sums) if by == "day" else _by_size(sums)
    if len(names) > _MOST_ROWS and by != "day":
        for name in names[_MOST_ROWS:]:
            _add(sums, OTHER, sums.pop(name))
        names = _by_size(sums)
    control = sums.get(CONTROL) if by == "variant" else None
    others = len([name for name in sums if name != CONTROL])
    rows = [
        _row(name, sums[name], None if name == CONTROL else control, max(1, others))
        for name in names
    ]
    lost = Counter[str]()
    for day in days:
        lost.update(day.lost)
    return Report(tuple(rows), {name: lost[name] for name in LOST})


def _add(sums: dict[str, Counts], label: str, counts: Counts) -> None:
    sums[label] = sums.get(label, np.zeros((BUCKETS, len(COLUMNS)))) + counts


def _by_size(sums: dict[str, Counts]) -> list[str]:
    return sorted(sums, key=lambda name: (-sums[name][:, 0].sum(), name))


class _Rates:
    """The rates of some lists."""

    def __init__(self, counts: Counts) -> None:
        lists, impressions, clicks, conversions, value = counts.T
        self.lists = float(lists.sum())
        self.ctr = Ratio.of(clicks, impressions)
        self.clicks = Ratio.of(clicks, lists)
        self.conversions = Ratio.of(conversions, lists)
        self.value = Ratio.of(value, lists)


def _row(label: str, counts: Counts, control: Counts | None, comparisons: int) -> ReportRow:
    rates = _Rates(counts)
    lists, impressions, clicks, conversions, value = counts.sum(axis=0).tolist()
    return ReportRow(
        label,
        int(lists),
        int(impressions),
        int(clicks),
        int(conversions),
        round(value, 6),
        None if rates.ctr is None else rates.ctr.proportion,
        None if rates.clicks is None else rates.clicks.interval,
        None if rates.conversions is None else rates.conversions.interval,
        None if rates.value is None else _spread(rates.value),
        None if control is None else _differences(rates, _Rates(control), comparisons),
    )


def _spread(rate: Ratio) -> Estimate | None:
    """The interval of a rate that may be below zero, in any unit; None without any."""
    found = rate.interval if rate.error > 0 else None
    return None if found is None else Estimate(rate.value, 2 * rate.value - found.high, found.high)


def _differences(rates: _Rates, control: _Rates, comparisons: int) -> Differences:
    lists = rates.lists, control.lists

    def between(one: Ratio | None, other: Ratio | None) -> Difference | None:
        if one is None or other is None:
            return None
        return Difference.of(one, other, lists, comparisons)

    return Differences(
        between(rates.ctr, control.ctr),
        between(rates.clicks, control.clicks),
        between(rates.conversions, control.conversions),
        between(rates.value, control.value),
    )
