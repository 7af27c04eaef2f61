"""Events from the rows of a file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from app.data_files import DataFile, EventRow, HistoryRow, event_rows
from app.event_types import HAD, EventRules
from app.signals.events import UserEvent, UserHistory, hashed
from app.storage.feedback import Event, microseconds

_CHOSEN = "click"  # the type of what a user chose among items shown together
_SECOND, _MILLISECOND = 1_000_000, 1_000  # in microseconds


@dataclass(frozen=True, slots=True)
class RowMeaning:
    """What rows of a file mean where they do not say it themselves.

    `usual_type` is the type of rows without one; None: `view`, and HAD for whole histories.
    `renamed` are names of types in the file, lower case, with ours. A rating from `like_from` on is
    a `like`, one up to `dislike_to` a `dislike`; others are of the usual type.
    """

    rules: EventRules = field(default_factory=EventRules)
    usual_type: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    like_from: float | None = None
    dislike_to: float | None = None

    def type_of(self, written: str | None, rating: float | None, otherwise: str) -> str:
        """The type of a row."""
        if written is not None:
            name = "_".join(written.casefold().split())
            return self.renamed.get(name, name)
        if rating is not None and self.like_from is not None and rating >= self.like_from:
            return "like"
        if rating is not None and self.dislike_to is not None and rating <= self.dislike_to:
            return "dislike"
        return self.usual_type or otherwise


def events_in(file: DataFile, meaning: RowMeaning, now: int) -> Iterator[Event]:
    """The events of a file; rows that are none are left out and counted with their field.

    Events of one moment keep the order of the file. Those without a time come after `now`, in
    microseconds since the epoch. Raises DataError.
    """
    for row in event_rows(file):
        try:
            if isinstance(row, EventRow):
                yield from _event(row, meaning, now, file.line)
            else:
                yield from _history(row, meaning, now + file.line)
        except ValidationError as error:
            file.malformed(_reason(error))


def _event(row: EventRow, meaning: RowMeaning, now: int, line: int) -> Iterator[Event]:
    kind = meaning.type_of(row.type, row.rating, "view")
    name = row.event_id
    if name is None and row.at is None and row.recommendation_id is None:
        name = hashed("row", row.user_id, row.item_id, kind)
    event = UserEvent.model_validate(
        {
            "user_id": row.user_id,
            "item_id": row.item_id,
            "type": kind,
            "at": row.at,
            "value": row.value,
            "recommendation_id": row.recommendation_id,
            "rank": row.rank,
            "event_id": name,
        },
        context=meaning.rules,
    )
    at = event.at
    yield event.counted_at(now + line if at is None else _in_order(microseconds(at), line))


def _in_order(at: int, line: int) -> int:
    """The time with the line in what it leaves open: most files tell seconds, some milliseconds."""
    if not at % _SECOND:
        return at + line % _SECOND
    return at if at % _MILLISECOND else at + line % _MILLISECOND


def _history(row: HistoryRow, meaning: RowMeaning, now: int) -> Iterator[Event]:
    types: list[str] | None = None
    if row.types:
        types = [meaning.type_of(written, None, HAD) for written in row.types]
    elif row.ratings:
        types = [meaning.type_of(None, rating, HAD) for rating in row.ratings]
    elif meaning.usual_type:
        types = [meaning.usual_type] * len(row.history)
    history = UserHistory.model_validate(
        {
            "user_id": row.user_id,
            "history": list(row.history),
            "timestamps": list(row.times) or None,
            "types": types,
        },
        context=meaning.rules,
    )
    # What a row tells without times was before the time of the row.
    until = now if row.time is None else round(row.time * _SECOND)
    yield from history.events(until)
    chosen = [item for shown in row.impressions for item, is_chosen in shown if is_chosen]
    for place, item in enumerate(chosen):
        fields = {"user_id": row.user_id, "item_id": item, "type": _CHOSEN, "at": row.time}
        name = None if row.time is not None else hashed("row", row.user_id, item, _CHOSEN)
        event = UserEvent.model_validate({**fields, "event_id": name}, context=meaning.rules)
        yield event.counted_at(until + place)


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
