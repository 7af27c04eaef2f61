"""`Feedback`: what users did, as counts, neighbours and histories of bounded size.

Every item has a count of the users who had it, and a list of its neighbours: the items that users
had at most `REACH` steps before or after it. A pair weighs 1/distance for the item that came later
as a neighbour of the earlier one, and half of that the other way round. Weights are kept in 120ths,
so that sums are exact whatever the order.
"""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Literal, Protocol, TypeAlias

import msgspec

from app.event_types import HAD

WHOLE = 120  # what a weight of 1 is kept as: divisible by every distance
FORWARD = (120, 60, 40, 30, 24)  # by distance, from 1
BACKWARD = (60, 30, 20, 15, 12)
REACH = len(FORWARD)

# In a full list a new item replaces the one with the least weight and inherits half of that weight,
# so that it can rise. With the whole weight (space-saving, Metwally et al. 2005), lists of 64 lost
# 28 % of the recall on films and games, with half of it 7 %; lists of 127 lose 3 % (2026-11). One
# below 128, up to which the server keeps a sorted set packed: an item is added before one goes.
NEIGHBOURS = 127
HISTORY = 200

FORGOTTEN = 10_000  # items for which the time of their removal is kept

Outcome = Literal["counted", "repeated", "duplicate", "too_old"]


@dataclass(frozen=True, slots=True)
class Event:
    """A user did something with an item. `at` is in microseconds since the epoch.

    `recommendation_id` is that of the answer that caused it, and `rank` the place of the item
    there; `value` is what it was worth to the owner, in any unit.
    """

    event_id: str
    user_id: str
    item_id: str
    at: int
    type: str = HAD
    value: float | None = None
    recommendation_id: str | None = None
    rank: int | None = None


def microseconds(at: datetime) -> int:
    """A time in microseconds since the epoch."""
    return round(at.timestamp() * 1_000_000)


class Visit(msgspec.Struct, frozen=True):
    """An item of a history, and when, in microseconds since the epoch.

    `type` is that of the strongest event of this user with the item: see EventRules.
    """

    item_id: str
    at: int
    type: str = HAD


class User(msgspec.Struct, frozen=True):
    """The stored data of a user: the history oldest first, each item once."""

    history: tuple[Visit, ...] = ()
    profile: str = ""
    attributes: dict[str, str | int | float | bool] = {}


@dataclass(frozen=True, slots=True)
class NeighbourLists:
    """The neighbours of some items; `changes` is another number when counts have changed."""

    changes: int
    neighbours: list[dict[str, int]]  # one per item that was asked for: weight by item, in WHOLEs


class ItemCount(msgspec.Struct, frozen=True, tag="count"):
    """How many users had an item."""

    item_id: str
    users: int


class ItemNeighbours(msgspec.Struct, frozen=True, tag="near"):
    """The neighbours of an item: weights by item, in WHOLEs."""

    item_id: str
    weights: dict[str, int]


class ForgottenItem(msgspec.Struct, frozen=True, tag="gone"):
    """When an item was forgotten, in microseconds since the epoch."""

    item_id: str
    at: int


class UserEntry(msgspec.Struct, frozen=True, tag="user"):
    """A user with history, profile and attributes."""

    user_id: str
    user: User


FeedbackEntry: TypeAlias = ItemCount | ItemNeighbours | ForgottenItem | UserEntry


class Feedback(Protocol):
    """What the users of one catalogue did. Every method raises StoreUnavailable."""

    async def record(self, events: Sequence[Event]) -> list[Outcome]:
        """Count some events; one outcome each.

        An event whose id was seen within the last day is a duplicate and changes nothing. An item
        that is in the user's history already is repeated: it becomes the latest, and is not counted
        again, unless the item was forgotten in between. An event that is older than all items of a
        full history is too old, and changes nothing. Late events are put into the history by their
        time; pairs that were counted before keep their distance. Each event counts as a whole or
        not at all, and a batch that failed may be sent again.

        An item that comes again after `HISTORY` others, or after its user was erased, counts again.
        """
        ...

    async def neighbours(self, ids: Sequence[str]) -> NeighbourLists:
        """The neighbours of each of `ids`, in one round trip."""
        ...

    def counts(self) -> AsyncIterator[Mapping[str, int]]:
        """How many users had an item, for all items with events, in batches."""
        ...

    async def forget_items(self, ids: Collection[str]) -> None:
        """Forget the counts and the neighbours of items that are gone; histories keep them.

        The items are removed from the lists of their own neighbours. In other lists they stay until
        `sweep` removes them. Users who had one of the last `FORGOTTEN` items count for it again
        with a new event.
        """
        ...

    async def sweep(self, item_id: str, gone: Collection[str]) -> None:
        """Remove items from the neighbours of another item, unless they have a count again."""
        ...

    async def user(self, user_id: str) -> User | None:
        """What is stored of a user; None when nothing is stored."""
        ...

    async def histories(self, most: int) -> list[list[str]]:
        """The histories of some users, oldest item first: of `most` users or of all there are."""
        ...

    async def put_user(self, user_id: str, user: User) -> None:
        """Store a user in place of what was stored; the history does not change any count."""
        ...

    async def add_document(self, user_id: str, name: str, ttl_s: float) -> None:
        """Note that a document was made for a user, and how long it is kept."""
        ...

    async def documents_of(self, user_id: str) -> list[str]:
        """The names of the documents that were made for a user."""
        ...

    async def has_document(self, user_id: str, name: str) -> bool:
        """Whether a document is noted for a user."""
        ...

    async def erase(self, user_id: str, names: Collection[str]) -> None:
        """Forget a user and the notes of these documents; counts stay.

        Documents that were noted since the names were read stay noted for the next erasure.
        """
        ...

    def entries(self) -> AsyncIterator[Sequence[FeedbackEntry]]:
        """Everything but what expires within days, in batches, for a backup.

        Events may be recorded meanwhile: each entry is that of one moment, different entries may be
        those of different moments. An entry may come twice.
        """
        ...

    async def restore(self, entries: Sequence[FeedbackEntry]) -> None:
        """Store what `entries` gave, in place of what is there; safe to repeat."""
        ...


@dataclass(slots=True)
class _UserState:
    visits: dict[str, int] = field(default_factory=dict)
    facts: User | None = None
    owned: dict[str, None] = field(default_factory=dict)

    def history(self) -> list[str]:
        return sorted(self.visits, key=lambda item: (self.visits[item], item.encode()))


class MemoryFeedback:
    """See Feedback. Gone with the process; event ids and users stay as long as it does."""

    def __init__(self) -> None:
        self._changes = 0
        self._counts: dict[str, int] = {}
        self._near: dict[str, dict[str, int]] = defaultdict(dict)
        self._users: dict[str, _UserState] = defaultdict(_UserState)
        self._seen: set[str] = set()
        self._gone: dict[str, int] = {}

    async def record(self, events: Sequence[Event]) -> list[Outcome]:
        """See Feedback."""
        return [self._recorded(event) for event in events]

    def _recorded(self, event: Event) -> Outcome:
        if event.event_id in self._seen:
            return "duplicate"
        self._seen.add(event.event_id)
        state, item = self._users[event.user_id], event.item_id
        last, gone = state.visits.get(item), self._gone.get(item, -1)
        state.visits[item] = max(event.at, event.at if last is None else last)
        if last is not None and not last <= gone < event.at:
            return "repeated"
        history = state.history()
        place = history.index(item)
        if len(history) > HISTORY and place == 0:
            del state.visits[item]
            return "too_old"
        for at in range(max(0, place - REACH), min(len(history), place + REACH + 1)):
            if at != place:
                first, then = (history[at], item) if at < place else (item, history[at])
                self._pair(first, then, abs(at - place) - 1)
        self._counts[item] = self._counts.get(item, 0) + 1
        self._changes += 1
        if len(history) > HISTORY:
            del state.visits[history[0]]
        return "counted"

    def _pair(self, first: str, then: str, distance: int) -> None:
        for of, other, weight in ((first, then, FORWARD), (then, first, BACKWARD)):
            near = self._near[of]
            near[other] = near.get(other, 0) + weight[distance]
            if len(near) > NEIGHBOURS:
                rest = (one for one in near if one != other)
                least = min(rest, key=lambda one: (near[one], one.encode()))
                near[other] += near.pop(least) // 2

    async def neighbours(self, ids: Sequence[str]) -> NeighbourLists:
        """See Feedback."""
        return NeighbourLists(self._changes, [dict(self._near.get(item_id, {})) for item_id in ids])

    async def counts(self) -> AsyncIterator[Mapping[str, int]]:
        """See Feedback."""
        yield dict(self._counts)

    async def forget_items(self, ids: Collection[str]) -> None:
        """See Feedback."""
        for item_id in ids:
            for other in self._near.pop(item_id, {}):
                self._near.get(other, {}).pop(item_id, None)
            if self._counts.pop(item_id, None):
                self._changes += 1
                self._gone.pop(item_id, None)
                self._gone[item_id] = time.time_ns() // 1_000
                if len(self._gone) > FORGOTTEN:
                    del self._gone[next(iter(self._gone))]

    async def sweep(self, item_id: str, gone: Collection[str]) -> None:
        """See Feedback."""
        for other in gone:
            if other not in self._counts:
                self._near.get(item_id, {}).pop(other, None)

    async def user(self, user_id: str) -> User | None:
        """See Feedback."""
        state = self._users.get(user_id)
        if state is None or (state.facts is None and not state.visits):
            return None
        history = tuple(Visit(item, state.visits[item]) for item in state.history())
        return msgspec.structs.replace(state.facts or User(), history=history)

    async def histories(self, most: int) -> list[list[str]]:
        """See Feedback."""
        found = (state.history() for state in self._users.values() if state.visits)
        return list(islice(found, most))

    async def put_user(self, user_id: str, user: User) -> None:
        """See Feedback."""
        state = self._users[user_id]
        state.facts = msgspec.structs.replace(user, history=())
        state.visits = {visit.item_id: visit.at for visit in user.history[-HISTORY:]}

    async def add_document(self, user_id: str, name: str, ttl_s: float) -> None:  # noqa: ARG002
        """See Feedback."""
        self._users[user_id].owned[name] = None

    async def documents_of(self, user_id: str) -> list[str]:
        """See Feedback."""
        state = self._users.get(user_id)
        return list(state.owned) if state else []

    async def has_document(self, user_id: str, name: str) -> bool:
        """See Feedback."""
        state = self._users.get(user_id)
        return state is not None and name in state.owned

    async def erase(self, user_id: str, names: Collection[str]) -> None:
        """See Feedback."""
        state = self._users.pop(user_id, None)
        if state and (since := [name for name in state.owned if name not in names]):
            self._users[user_id].owned = dict.fromkeys(since)

    async def entries(self) -> AsyncIterator[Sequence[FeedbackEntry]]:
        """See Feedback."""
        yield [ItemCount(item, users) for item, users in self._counts.items()]
        yield [ItemNeighbours(item, dict(near)) for item, near in self._near.items() if near]
        yield [ForgottenItem(item, at) for item, at in self._gone.items()]
        users = [(user_id, await self.user(user_id)) for user_id in list(self._users)]
        yield [UserEntry(user_id, user) for user_id, user in users if user]

    async def restore(self, entries: Sequence[FeedbackEntry]) -> None:
        """See Feedback."""
        self._changes += 1
        for entry in entries:
            match entry:
                case ItemCount():
                    self._counts[entry.item_id] = entry.users
                case ItemNeighbours():
                    self._near[entry.item_id] = dict(entry.weights)
                case ForgottenItem():
                    self._gone[entry.item_id] = entry.at
                case UserEntry():
                    await self.put_user(entry.user_id, entry.user)
