"""Users made from files: from single events, or from rows with whole histories."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.data_files.event_rows import EventRow, HistoryRow
from app.data_files.files import DataFile
from app.evaluation.dataset import DatasetUser, Impression, Skipped
from app.evaluation.formats.catalogue import UNKNOWN, Catalogue

LOW_RATING = "event below the lowest rating"
NO_EVENT = "user with no event of an item in the catalogue"

_MONTH_S = 30 * 86_400


class EventLog:
    """Single events in any order; about 24 B each."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._ids = [item.id for item in catalogue.items]
        self._positions = catalogue.positions
        self._users: dict[str, int] = {}
        self._user_numbers = array("q")
        self._item_positions = array("q")
        self._times = array("d")

    def add(self, user: str, item: int, time: float) -> None:
        """One event; `item` is its position in the catalogue."""
        self._user_numbers.append(self._users.setdefault(user, len(self._users)))
        self._item_positions.append(item)
        self._times.append(time)

    def add_row(self, row: EventRow, file: DataFile, min_rating: float | None) -> None:
        """One event, unless its item is unknown or its rating too low, which is counted."""
        position = self._positions.get(row.item_id)
        if position is None:
            file.leave_out(UNKNOWN)
        elif min_rating is not None and (row.rating is None or row.rating < min_rating):
            file.leave_out(LOW_RATING)
        elif row.at is None:
            file.malformed("at: missing")
        else:
            self.add(row.user_id, position, row.at)

    def users(self) -> list[DatasetUser]:
        """The users by their first event; events of the same second in the order of the files."""
        user_numbers, item_positions = np.array(self._user_numbers), np.array(self._item_positions)
        times = np.array(self._times)
        order = np.lexsort((times, user_numbers))  # stable
        starts = np.flatnonzero(np.diff(user_numbers[order])) + 1
        return [
            _user(name, [self._ids[item] for item in item_positions[rows]], times[rows].tolist())
            for name, rows in zip(self._users, np.split(order, starts), strict=False)
        ]


def _user(name: str, ids: Sequence[str], times: Sequence[float]) -> DatasetUser:
    newest = _newest_of_each(ids)
    return DatasetUser(name, tuple(newest), tuple(times[at] for at in newest.values()))


def _newest_of_each(ids: Sequence[str]) -> dict[str, int]:
    """Each id with the position of its last event, ordered by this position."""
    last: dict[str, int] = {}
    for position, each in enumerate(ids):
        last.pop(each, None)
        last[each] = position
    return last


@dataclass(frozen=True, slots=True)
class UserRow:
    """One row about a user: a history, and the impressions after it where there are any."""

    history: tuple[str, ...] = ()  # oldest first
    times: tuple[float, ...] = ()  # of the history, or none
    time: float | None = None  # of the row
    impressions: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = ()  # shown, chosen
    profile: str = ""
    candidates: tuple[str, ...] = ()


def user_row(
    row: HistoryRow, catalogue: Catalogue, file: DataFile, min_rating: float | None = None
) -> UserRow:
    """The row with the items that the catalogue knows, without low ratings; both are counted."""
    ids, times = row.history, row.times
    if min_rating is not None:
        kept = [at for at, rating in enumerate(row.ratings) if rating >= min_rating]
        for _ in range(len(ids) - len(kept)):
            file.leave_out(LOW_RATING)
        ids, times = tuple(ids[at] for at in kept), tuple(times[at] for at in kept if times)
    shown = [
        catalogue.seen([each for each, _ in one], [each for each, chosen in one if chosen], file)
        for one in row.impressions
    ]
    return UserRow(
        tuple(catalogue.known(ids, file)),
        tuple(at for each, at in zip(ids, times, strict=False) if each in catalogue.positions),
        row.time,
        tuple(each for each in shown if each[0]),
        row.profile,
        tuple(catalogue.known(row.candidates, file)),
    )


class RowLog:
    """Rows in any order; a user may have several.

    Events that have times are ordered by time. Otherwise rows are ordered by their own time or as
    in the files, and each adds the events that earlier rows lack: MIND repeats the history in every
    row. With `older_histories`, events of histories happened before the first row of the files;
    otherwise the last event of a user's first row happened at its time, and each earlier one a
    month before the next. Later events get the time of the first row that contains them.
    """

    def __init__(self, *, older_histories: bool = False) -> None:
        self._rows: dict[str, list[UserRow]] = {}
        self._places: dict[str, str] = {}
        self._older_histories = older_histories

    def add(self, user: str, row: UserRow, place: str) -> None:
        """Add a row; `place` is its `file:line`."""
        rows = self._rows.setdefault(user, [])
        if rows and rows[-1].history == row.history:
            row = replace(row, history=rows[-1].history)  # share one tuple
        rows.append(row)
        self._places.setdefault(user, place)

    def users(self, skipped: Skipped) -> list[DatasetUser]:
        """The users in the order of their first rows. Users without events are counted."""
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
                made.append(DatasetUser(name, history, times, profile, impressions, candidates))
            else:
                skipped.add(NO_EVENT, self._places[name])
        return made

    def _by_rows(self, rows: Sequence[UserRow], start: float | None) -> "_Events":
        events: dict[str, float | None] = {}
        impressions = []
        for row in rows:
            if not events:
                oldest = start if self._older_histories else None
                events.update(_first_times(list(_newest_of_each(row.history)), row.time, oldest))
            for each in _newest_of_each(row.history):
                events.setdefault(each, row.time)
            for shown, chosen in row.impressions:
                impressions.append(Impression(shown, chosen, len(events)))
                for each in shown:
                    if each in chosen:
                        events.setdefault(each, row.time)
        times = tuple(time for time in events.values() if time is not None)
        in_order = all(row.time is not None for row in rows)
        return tuple(events), times if in_order else (), tuple(impressions)


def _first_times(
    history: Sequence[str], time: float | None, oldest: float | None
) -> dict[str, float | None]:
    """The times of a first history, which its row does not say; `oldest` for all, if given.

    Else the last event is as new as its row, and each earlier one a month older: at the time of the
    row, what a user read long ago would count as news.
    """
    if time is None or oldest is not None:
        return dict.fromkeys(history, oldest)
    ages = range(len(history) - 1, -1, -1)
    return {item: max(0.0, time - age * _MONTH_S) for item, age in zip(history, ages, strict=True)}


_Events = tuple[tuple[str, ...], tuple[float, ...], tuple[Impression, ...]]


def _by_times(rows: Sequence[UserRow]) -> _Events:
    events = [event for row in rows for event in zip(row.times, row.history, strict=True)]
    for row in rows:
        for shown, chosen in row.impressions:
            events += [(row.time or 0.0, each) for each in shown if each in chosen]
    events.sort(key=lambda event: event[0])
    newest = _newest_of_each([each for _, each in events])
    times = tuple(events[at][0] for at in newest.values())
    impressions = tuple(
        Impression(shown, chosen, bisect_left(times, row.time or 0.0))
        for row in rows
        for shown, chosen in row.impressions
    )
    return tuple(newest), times, impressions
