"""`Attribution`: which lists were shown, and what came of them, as tallies by day.

A list is kept for days, without its user, so that events can name it. Tallies count lists and what
came of them by day and by label of the list. Each is kept in 64 buckets of users, so that intervals
can respect that one user has many lists.
"""

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal, Protocol, TypeAlias, get_args

import msgspec
import numpy as np
import numpy.typing as npt

BUCKETS = 64
PART_BUCKETS = 8  # that are stored as one field
TALLY_DAYS = 400  # that a tally stays
MOST_LABELS = 50  # of a dimension on one day; lists with further ones count as OTHER
OTHER = "other"

Dimension: TypeAlias = Literal["variant", "strategy", "effort", "scenario", "degraded"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
Measure: TypeAlias = Literal["impressions", "clicks", "conversions"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
COLUMNS = ("lists", *MEASURES, "value")
Attributed: TypeAlias = Literal["attributed", "repeated", "late", "unknown", "not_shown"]
LOST: tuple[Attributed, ...] = ("late", "unknown", "not_shown")

MICRO = 1_000_000  # values are summed in millionths: whole numbers are exact in any order
# One bucket of a tally as it is stored: the counts, then the value.
PACKED = np.dtype([*((name, "<u4") for name in COLUMNS[:-1]), ("value", "<f8")])

Counts: TypeAlias = npt.NDArray[np.float64]
"""float64[BUCKETS, COLUMNS]."""


@dataclass(frozen=True, slots=True)
class ShownList:
    """The items of an answer, best first, and what was behind them; `labels` as in DIMENSIONS.

    `is_shown`: whether it counts as a list at once; otherwise with the first event that names it.
    """

    id: str
    day: date
    bucket: int
    labels: tuple[str, ...]
    tree_version: int
    items: Sequence[str]
    is_shown: bool = True


@dataclass(frozen=True, slots=True)
class ListEvent:
    """What came of an item of a list. Of events with the same `mark` the first one counts.

    `is_ours`: whether the service has made the id of the list, so that a list that is not there has
    expired.
    """

    list_id: str
    item_id: str
    measure: Measure
    mark: str
    value: float = 0.0
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class DayTallies:
    """The tallies of a day by dimension and label; `lost` are events that belong to no list."""

    day: date
    tallies: Mapping[tuple[Dimension, str], Counts]
    lost: Mapping[Attributed, int]


class TallyEntry(msgspec.Struct, frozen=True):
    """A tally as it is stored, for a backup."""

    day: str
    field: bytes
    data: bytes


class Attribution(Protocol):
    """The lists and tallies of one catalogue. Every method raises StoreUnavailable."""

    async def keep(self, shown: ShownList, ttl_s: int) -> None:
        """Count a list, if it is shown, and keep it for the events that name it."""
        ...

    async def attribute(
        self, events: Sequence[ListEvent], today: date, ttl_s: int
    ) -> list[Attributed]:
        """Count what came of lists; one outcome each.

        "late": the list has expired; "unknown": there was none of that id; "not_shown": the item
        was not in it. Events may be sent again: each mark of an item counts once. Counts are those
        of the day of the list.
        """
        ...

    async def tallies(self, since: date, until: date) -> list[DayTallies]:
        """The tallies of each day, `since` and `until` included; days without any are left out."""
        ...

    def entries(self, today: date) -> AsyncIterator[Sequence[TallyEntry]]:
        """All tallies, in batches, for a backup."""
        ...

    async def restore(self, entries: Sequence[TallyEntry], today: date) -> None:
        """Store what `entries` gave, in place of what is there; safe to repeat."""
        ...


def days_between(since: date, until: date) -> list[date]:
    """Every day, both ends included."""
    return [since + timedelta(days=at) for at in range((until - since).days + 1)]


def field_of(dimension: str, label: str) -> bytes:
    """The name of a tally within its day."""
    return f"{dimension}\0{label}".encode()


def put_part(tally: npt.NDArray[np.void], part: str, data: bytes) -> None:
    """Write a part of a tally as it is stored; without the number of a part nothing is in it."""
    if not part:
        return
    packed = np.frombuffer(data, PACKED)
    start = int(part) * PART_BUCKETS
    tally[start : start + PART_BUCKETS] = packed


def day_tallies(day: date, fields: Mapping[bytes, bytes]) -> DayTallies:
    """The tallies of a day as they are stored."""
    found: dict[tuple[Dimension, str], npt.NDArray[np.void]] = {}
    lost: dict[Attributed, int] = dict.fromkeys(LOST, 0)
    for field, data in fields.items():
        kind, _, label = field.decode().partition("\0")
        if kind == "lost":
            lost[next(one for one in LOST if one == label)] = int(data)
        elif kind in DIMENSIONS:
            dimension = next(one for one in DIMENSIONS if one == kind)
            name, _, part = label.partition("\0")
            tally = found.setdefault((dimension, name), np.zeros(BUCKETS, PACKED))
            put_part(tally, part, data)
    tallies: dict[tuple[Dimension, str], Counts] = {}
    for names, tally in found.items():
        counts = np.stack([tally[name].astype(np.float64) for name in COLUMNS], axis=1)
        counts[:, -1] /= MICRO
        tallies[names] = counts
    return DayTallies(day, tallies, lost)


class MemoryAttribution:
    """See Attribution. Gone with the process."""

    def __init__(self) -> None:
        self._lists: dict[str, tuple[float, ShownList, set[str]]] = {}
        self._days: dict[date, dict[bytes, npt.NDArray[np.void]]] = {}
        self._lost: dict[date, dict[Attributed, int]] = {}

    async def keep(self, shown: ShownList, ttl_s: int) -> None:
        """See Attribution."""
        self._lists[shown.id] = time.monotonic() + ttl_s, shown, set()
        if shown.is_shown:
            self._count(shown.id)

    def _count(self, list_id: str) -> ShownList:
        """The list with the labels by which it counts from now on."""
        ends_at, shown, marks = self._lists[list_id]
        tallies = self._days.setdefault(shown.day, {})
        labels = []
        for dimension, label in zip(DIMENSIONS, shown.labels, strict=True):
            held = [name for name in tallies if name.startswith(field_of(dimension, ""))]
            known = field_of(dimension, label) in tallies
            labels.append(label if known or len(held) < MOST_LABELS else OTHER)
        counted = replace(shown, labels=tuple(labels), is_shown=True)
        self._lists[list_id] = ends_at, counted, marks
        self._add(counted, "lists", 1)
        return counted

    async def attribute(
        self,
        events: Sequence[ListEvent],
        today: date,
        ttl_s: int,  # noqa: ARG002
    ) -> list[Attributed]:
        """See Attribution."""
        outcomes = [self._attributed(event) for event in events]
        for outcome in outcomes:
            if outcome in LOST:
                lost = self._lost.setdefault(today, dict.fromkeys(LOST, 0))
                lost[outcome] += 1
        return outcomes

    def _attributed(self, event: ListEvent) -> Attributed:
        ends_at, shown, marks = self._lists.get(event.list_id, (0.0, None, set[str]()))
        if shown is None or ends_at <= time.monotonic():
            return "late" if event.is_ours else "unknown"
        if event.item_id not in shown.items:
            return "not_shown"
        mark = f"{event.mark}:{shown.items.index(event.item_id)}"
        if mark in marks:
            return "repeated"
        marks.add(mark)
        if not shown.is_shown:
            shown = self._count(event.list_id)
        self._add(shown, event.measure, 1)
        self._add(shown, "value", round(event.value * MICRO))
        return "attributed"

    def _add(self, shown: ShownList, column: str, by: int) -> None:
        for dimension, label in zip(DIMENSIONS, shown.labels, strict=True):
            tallies = self._days.setdefault(shown.day, {})
            name = field_of(dimension, label)
            tally = tallies.setdefault(name, np.zeros(BUCKETS, PACKED))
            tally[column][shown.bucket] += by

    async def tallies(self, since: date, until: date) -> list[DayTallies]:
        """See Attribution."""
        return [day_tallies(day, found) for day in days_between(since, until)
                if (found := self._stored(day))]  # fmt: skip

    def _stored(self, day: date) -> dict[bytes, bytes]:
        lost = self._lost.get(day, {})
        fields: dict[bytes, bytes] = {}
        for name, tally in self._days.get(day, {}).items():
            fields[name] = b""
            for part in range(BUCKETS // PART_BUCKETS):
                start = part * PART_BUCKETS
                packed = tally[start : start + PART_BUCKETS].tobytes()
                if any(packed):
                    fields[b"%s\0%d" % (name, part)] = packed
        return fields | {
            field_of("lost", name): b"%d" % count for name, count in lost.items() if count
        }

    async def entries(self, today: date) -> AsyncIterator[Sequence[TallyEntry]]:  # noqa: ARG002
        """See Attribution."""
        for day in {*self._days, *self._lost}:
            yield [TallyEntry(day.isoformat(), *stored) for stored in self._stored(day).items()]

    async def restore(self, entries: Collection[TallyEntry], today: date) -> None:  # noqa: ARG002
        """See Attribution."""
        for entry in entries:
            day = date.fromisoformat(entry.day)
            kind, _, label = entry.field.decode().partition("\0")
            if kind == "lost":
                lost = self._lost.setdefault(day, dict.fromkeys(LOST, 0))
                lost[next(one for one in LOST if one == label)] = int(entry.data)
            else:
                name, _, part = label.partition("\0")
                tallies = self._days.setdefault(day, {})
                field = field_of(kind, name)
                tally = tallies.setdefault(field, np.zeros(BUCKETS, PACKED))
                put_part(tally, part, entry.data)
