"""Readers from what files tell of them: a log of single events, or rows with whole histories."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from app.evaluation.dataset import Impression, Reader, Skipped
from app.evaluation.formats.catalogue import Catalogue

LOW_RATING = "event below the least rating"
NO_EVENT = "reader without any event of an item in the catalogue"

_MILLISECONDS = 1e11  # as seconds that were in the year 5138


def seconds(value: float | str) -> float:
    """Seconds since the epoch of a number (seconds or milliseconds) or of a text.

    Texts are ISO 8601, or as MIND writes them, "11/13/2019 5:53:12 AM"; without a zone they are
    UTC. Raises ValueError.
    """
    if isinstance(value, str):
        if "/" in value:
            time = datetime.strptime(value, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC)
        else:
            time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value / 1_000 if abs(value) > _MILLISECONDS else float(value)


class EventLog:
    """Single events in any order: some 24 B each until the readers are made of them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._ids = [item.id for item in catalogue.items]
        self._readers: dict[str, int] = {}
        self._who = array("q")
        self._what = array("q")
        self._when = array("d")

    def add(self, reader: str, item: int, time: float) -> None:
        """One event; `item` is its position in the catalogue."""
        self._who.append(self._readers.setdefault(reader, len(self._readers)))
        self._what.append(item)
        self._when.append(time)

    def readers(self) -> list[Reader]:
        """In the order of their first event in the files; events of one second in the files'."""
        who, what = np.array(self._who), np.array(self._what)
        when = np.array(self._when)
        order = np.lexsort((when, who))  # stable
        edges = np.flatnonzero(np.diff(who[order])) + 1
        return [
            _reader(name, [self._ids[item] for item in what[mine]], when[mine].tolist())
            for name, mine in zip(self._readers, np.split(order, edges), strict=False)
        ]


def _reader(name: str, ids: Sequence[str], times: Sequence[float]) -> Reader:
    kept = _newest_of_each(ids)
    return Reader(name, tuple(kept), tuple(times[at] for at in kept.values()))


def _newest_of_each(ids: Sequence[str]) -> dict[str, int]:
    """Each id with the position of its last event, in the order of these."""
    last: dict[str, int] = {}
    for position, each in enumerate(ids):
        last.pop(each, None)
        last[each] = position
    return last


@dataclass(frozen=True, slots=True)
class Row:
    """What one row says of a reader: a history, and perhaps what was shown to them after it."""

    history: tuple[str, ...] = ()  # oldest first
    times: tuple[float, ...] = ()  # of the history, or none
    time: float | None = None  # of the row
    impressions: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = ()  # shown, chosen
    profile: str = ""
    candidates: tuple[str, ...] = ()


class RowLog:
    """Rows in any order, several for one reader allowed.

    With times, events are ordered by them. Without, rows are taken by their own time or in the
    order of the files, and a later one adds what earlier ones lack: MIND repeats the history in
    every row. `older_histories` says that histories were over before the first row was written;
    else their events count as done at the time of the first row that tells of them.
    """

    def __init__(self, *, older_histories: bool = False) -> None:
        self._rows: dict[str, list[Row]] = {}
        self._places: dict[str, str] = {}
        self._older_histories = older_histories

    def add(self, reader: str, row: Row, place: str) -> None:
        """One row, which stands at `place`."""
        rows = self._rows.setdefault(reader, [])
        if rows and rows[-1].history == row.history:
            row = replace(row, history=rows[-1].history)  # kept once
        rows.append(row)
        self._places.setdefault(reader, place)

    def readers(self, skipped: Skipped) -> list[Reader]:
        """In the order of their first rows. Who has no event left is counted in `skipped`."""
        start = min(
            (row.time for rows in self._rows.values() for row in rows if row.time is not None),
            default=None,
        )
        made = []
        for name, rows in self._rows.items():
            if all(row.time is not None for row in rows):
                rows.sort(key=lambda row: row.time or 0.0)
            timed = all(len(row.times) == len(row.history) for row in rows) and all(
                row.time is not None for row in rows if row.impressions
            )
            history, times, impressions = _by_times(rows) if timed else self._by_rows(rows, start)
            if history:
                profile = next((row.profile for row in reversed(rows) if row.profile), "")
                candidates = next((row.candidates for row in reversed(rows) if row.candidates), ())
                made.append(Reader(name, history, times, profile, impressions, candidates))
            else:
                skipped.add(NO_EVENT, self._places[name])
        return made

    def _by_rows(self, rows: Sequence[Row], start: float | None) -> "_Told":
        events: dict[str, float | None] = {}
        impressions = []
        for row in rows:
            first = not events and self._older_histories
            for each in _newest_of_each(row.history):
                events.setdefault(each, start if first else row.time)
            for shown, chosen in row.impressions:
                impressions.append(Impression(shown, chosen, len(events)))
                for each in shown:
                    if each in chosen:
                        events.setdefault(each, row.time)
        times = tuple(time for time in events.values() if time is not None)
        in_order = all(row.time is not None for row in rows)
        return tuple(events), times if in_order else (), tuple(impressions)


_Told = tuple[tuple[str, ...], tuple[float, ...], tuple[Impression, ...]]


def _by_times(rows: Sequence[Row]) -> _Told:
    events = [event for row in rows for event in zip(row.times, row.history, strict=True)]
    for row in rows:
        for shown, chosen in row.impressions:
            events += [(row.time or 0.0, each) for each in shown if each in chosen]
    events.sort(key=lambda event: event[0])
    kept = _newest_of_each([each for _, each in events])
    times = tuple(events[at][0] for at in kept.values())
    impressions = tuple(
        Impression(shown, chosen, bisect_left(times, row.time or 0.0))
        for row in rows
        for shown, chosen in row.impressions
    )
    return tuple(kept), times, impressions
