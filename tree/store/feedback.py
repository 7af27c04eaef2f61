"""`Feedback`: what users did, as counts, neighbours and histories of bounded size.

Every item has a count of the users who had it, and a list of the items that go together with it:
pairs at most `REACH` steps apart in a user's history, weight 1/distance, half of that for the item
that came first as a neighbour of the one that came after. Weights are kept in 120ths, so that
sums are exact whatever the order.
"""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import msgspec

WHOLE = 120  # what a weight of 1 is kept as: divisible by every distance
FORWARD = (120, 60, 40, 30, 24)  # by distance, from 1
BACKWARD = (60, 30, 20, 15, 12)
REACH = len(FORWARD)

# A list that is full gives up its least for a newcomer, which inherits half its weight: it can
# then rise above what comes and goes. Kept whole (space-saving, Metwally et al. 2005) lists of 64
# lost 28 % of the recall on films and games, halved 7 %; 127 halved lose 3 % (2026-11). One below
# 128, up to which the server keeps a sorted set packed: the newcomer comes before the least goes.
NEIGHBOURS = 127
HISTORY = 200

FORGOTTEN = 10_000  # items of which is remembered when they were forgotten

Outcome = Literal["counted", "repeated", "duplicate", "too_old"]


@dataclass(frozen=True, slots=True)
class Event:
    """Somebody had an item. `at` is in microseconds since the epoch."""

    event_id: str
    user_id: str
    item_id: str
    at: int


def microseconds(at: datetime) -> int:
    """A time as events have it."""
    return round(at.timestamp() * 1_000_000)


class Visit(msgspec.Struct, frozen=True):
    """An item of a history, and when, in microseconds since the epoch."""

    item_id: str
    at: int


class User(msgspec.Struct, frozen=True):
    """What is stored of a user: the history oldest first, each item once."""

    history: tuple[Visit, ...] = ()
    profile: str = ""
    attributes: dict[str, str | int | float | bool] = {}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What goes together with some items; `changes` tells whether counts are still the same."""

    changes: int
    neighbours: list[dict[str, int]]  # one per item that was asked for: weight by item, in WHOLEs


class Feedback(Protocol):
    """What the users of one catalogue did. Every method raises StoreUnavailable."""

    async def record(self, events: Sequence[Event]) -> list[Outcome]:
        """Count some events; one outcome each.

        An event whose id was seen within the last day is a duplicate and changes nothing. An item
        that is in the user's history already is repeated: it becomes the latest, and counts no
        more, unless the item was forgotten in between. One that is older than all of a full
        history is too old, and changes nothing. Events that come late find their place by their
        time; the pairs that they part were counted with the distance they had. Each event counts
        as a whole or not at all, and a batch that failed may be sent again.

        What a history no longer holds is not known to have counted: an item that comes again
        after `HISTORY` others, or after its user was erased, counts again.
        """
        ...

    async def evidence(self, ids: Sequence[str]) -> Evidence:
        """The neighbours of each of `ids`, in one round trip."""
        ...

    def counts(self) -> AsyncIterator[Mapping[str, int]]:
        """How many users had an item, for all items that anybody had, in batches."""
        ...

    async def forget_items(self, ids: Collection[str]) -> None:
        """Forget the counts and the neighbours of items that are gone; histories keep them.

        They leave the lists of their own neighbours. In a list whose item is not in theirs, which
        were full, they stay until `sweep` comes by. Users who had one of the last `FORGOTTEN`
        count for it again when a new event has it.
        """
        ...

    async def sweep(self, item_id: str, gone: Collection[str]) -> None:
        """Take items from the neighbours of another, unless they have a count (again)."""
        ...

    async def user(self, user_id: str) -> User | None:
        """What is stored of a user; None when that is nothing, or not any more."""
        ...

    async def put_user(self, user_id: str, user: User) -> None:
        """Store a user in place of what was stored; the history counts for no item."""
        ...

    async def own(self, user_id: str, name: str, ttl_s: float) -> None:
        """Note that something which is kept elsewhere, for so long, came about for a user."""
        ...

    async def owned(self, user_id: str) -> list[str]:
        """The names of what is kept elsewhere for a user."""
        ...

    async def owns(self, user_id: str, name: str) -> bool:
        """Whether something is noted as a user's."""
        ...

    async def erase(self, user_id: str, names: Collection[str]) -> None:
        """Forget a user, and of what is kept elsewhere these names; counts stay.

        What was noted since the names were read stays for the next erasure.
        """
        ...


@dataclass(slots=True)
class _Reader:
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
        self._users: dict[str, _Reader] = defaultdict(_Reader)
        self._seen: set[str] = set()
        self._gone: dict[str, int] = {}

    async def record(self, events: Sequence[Event]) -> list[Outcome]:
        """See Feedback."""
        return [self._recorded(event) for event in events]

    def _recorded(self, event: Event) -> Outcome:
        if event.event_id in self._seen:
            return "duplicate"
        self._seen.add(event.event_id)
        reader, item = self._users[event.user_id], event.item_id
        last, gone = reader.visits.get(item), self._gone.get(item, -1)
        reader.visits[item] = max(event.at, event.at if last is None else last)
        if last is not None and not last <= gone < event.at:
            return "repeated"
        history = reader.history()
        place = history.index(item)
        if len(history) > HISTORY and place == 0:
            del reader.visits[item]
            return "too_old"
        for at in range(max(0, place - REACH), min(len(history), place + REACH + 1)):
            if at != place:
                first, then = (history[at], item) if at < place else (item, history[at])
                self._pair(first, then, abs(at - place) - 1)
        self._counts[item] = self._counts.get(item, 0) + 1
        self._changes += 1
        if len(history) > HISTORY:
            del reader.visits[history[0]]
        return "counted"

    def _pair(self, first: str, then: str, distance: int) -> None:
        for of, other, weight in ((first, then, FORWARD), (then, first, BACKWARD)):
            near = self._near[of]
            near[other] = near.get(other, 0) + weight[distance]
            if len(near) > NEIGHBOURS:
                rest = (one for one in near if one != other)
                least = min(rest, key=lambda one: (near[one], one.encode()))
                near[other] += near.pop(least) // 2

    async def evidence(self, ids: Sequence[str]) -> Evidence:
        """See Feedback."""
        return Evidence(self._changes, [dict(self._near.get(item_id, {})) for item_id in ids])

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
        reader = self._users.get(user_id)
        if reader is None or (reader.facts is None and not reader.visits):
            return None
        history = tuple(Visit(item, reader.visits[item]) for item in reader.history())
        return msgspec.structs.replace(reader.facts or User(), history=history)

    async def put_user(self, user_id: str, user: User) -> None:
        """See Feedback."""
        reader = self._users[user_id]
        reader.facts = msgspec.structs.replace(user, history=())
        reader.visits = {visit.item_id: visit.at for visit in user.history[-HISTORY:]}

    async def own(self, user_id: str, name: str, ttl_s: float) -> None:  # noqa: ARG002
        """See Feedback."""
        self._users[user_id].owned[name] = None

    async def owned(self, user_id: str) -> list[str]:
        """See Feedback."""
        reader = self._users.get(user_id)
        return list(reader.owned) if reader else []

    async def owns(self, user_id: str, name: str) -> bool:
        """See Feedback."""
        reader = self._users.get(user_id)
        return reader is not None and name in reader.owned

    async def erase(self, user_id: str, names: Collection[str]) -> None:
        """See Feedback."""
        reader = self._users.pop(user_id, None)
        if reader and (since := [name for name in reader.owned if name not in names]):
            self._users[user_id].owned = dict.fromkeys(since)
