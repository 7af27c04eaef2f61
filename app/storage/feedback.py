"""`Feedback`: what users did, as counts, neighbours and histories of bounded size.

Every item has a count of the users who had it, and a list of its neighbours: the items that users
had at most `REACH` steps before or after it. A pair weighs 1/distance for the item that came later
as a neighbour of the earlier one, and half of that the other way round. Weights are kept in 120ths,
so that sums are exact whatever the order.

A user counts for an item as much as the strongest type of event says (see EventRules), and for a
pair of items as much as for the weaker of the two. So a count or a weight of n wholes comes from at
least n users, whatever these send. Counts fade: each is kept as of the time of its newest event,
and what has faded since is taken off when it is used (forward decay, Cormode et al. 2009).
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from app.event_types import DEFAULT_RULES, HAD, EventRules, EventType

WHOLE = 120  # what a weight of 1 is kept as: divisible by every distance
FORWARD = (120, 60, 40, 30, 24)  # by distance, from 1
BACKWARD = (60, 30, 20, 15, 12)
REACH = len(FORWARD)

# In a full list a new item replaces the one with the least weight and inherits half of that weight,
# so that it can rise. With the whole weight (space-saving, Metwally et al. 2005), lists of 64 lost
# 28 % of the recall on films and games, with half of it 7 %; lists of 127 lose 3 % (2026-11). One
# below 128, up to which the server keeps a sorted set packed: an item is added before one goes.
# What an item inherited is no evidence for it, so it is kept apart, in millionths of the weight: a
# server keeps short decimals in a third of the room of binary fractions.
NEIGHBOURS = 127
INHERITED = 1_000_000
HISTORY = 200

FORGOTTEN = 10_000  # items for which the time of their removal is kept

Outcome = Literal["counted", "repeated", "duplicate", "too_old", "noted", "over_limit"]


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

    `type` is that of the strongest event of this user with the item: see EventRules. `weight` is
    what this user counts for it, in WHOLEs; 0 where no event has told of it, or one against it.
    """

    item_id: str
    at: int
    type: str = HAD
    weight: int = WHOLE


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


class Count(NamedTuple):
    """The users who had an item, as of `at` in seconds since the epoch; 0 where no time is known.

    Users whose events say less than a purchase are fractions. `ever` is the number without any
    fading; 0 where nothing has faded.
    """

    users: float
    at: int = 0
    ever: float = 0.0

    @property
    def all_time(self) -> float:
        """The users without any fading."""
        return max(self.users, self.ever)

    def added(self, users: float, at: int, half_life_s: float | None) -> "Count":
        """The count with those of another time, as of the newer time."""
        ever = self.all_time + users if half_life_s is not None or self.ever else 0.0
        if half_life_s is None or not self.at:
            return Count(self.users + users, max(self.at, at), ever)
        late = 2.0 ** (-abs(at - self.at) / half_life_s)
        if at >= self.at:
            return Count(self.users * late + users, at, ever)
        return Count(self.users + users * late, self.at, ever)


class ItemCount(msgspec.Struct, frozen=True, tag="count"):
    """How many users had an item: see Count."""

    item_id: str
    users: float
    at: int = 0
    ever: float = 0.0


class ItemNeighbours(msgspec.Struct, frozen=True, tag="near"):
    """The neighbours of an item: weights in WHOLEs, whose fraction is what each inherited."""

    item_id: str
    weights: dict[str, float]


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

    async def record(
        self, events: Sequence[Event], rules: EventRules = DEFAULT_RULES
    ) -> list[Outcome]:
        """Count some events; one outcome each.

        An event that says nothing, such as an impression, changes nothing and is `noted`; so is one
        that speaks against its item and enters the history alone. An event whose id was seen within
        the last day is a duplicate and changes nothing. An item that is in the user's history
        already is repeated: it becomes the latest, and counts only by what the event says more than
        all before, unless the item was forgotten in between. An event that is older than all items
        of a full history is too old, and changes nothing. Beyond `rules.most_per_day` an event is
        over the limit: it enters the history, and does not count. Late events are put into the
        history by their time; pairs that were counted before keep their distance. Each event counts
        as a whole or not at all, and a batch that failed may be sent again.

        An item that comes again after `HISTORY` others, or after its user was erased, counts again.
        """
        ...

    async def neighbours(self, ids: Sequence[str]) -> NeighbourLists:
        """The neighbours of each of `ids`, in one round trip, without what they inherited."""
        ...

    def counts(self) -> AsyncIterator[Mapping[str, Count]]:
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
        """What some users had, oldest item first: `most` users or all there are.

        Items that a user never had, and only disliked, are left out.
        """
        ...

    def users(self) -> AsyncIterator[Sequence[UserEntry]]:
        """All users, each once, in batches. Users who come or go meanwhile may be left out."""
        ...

    async def known(self, user_ids: Sequence[str]) -> set[str]:
        """Those users of whom something is stored."""
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


def had_by(user: User) -> list[str]:
    """The items that a user had, oldest first, without those that they only disliked."""
    return [visit.item_id for visit in user.history if visit.weight or visit.type == HAD]


def in_wholes(kind: EventType) -> int:
    """What an event of this type says, in WHOLEs, below 0 against its item."""
    return round(kind.weight * WHOLE)


def weight_of(score: float) -> int:
    """The weight of a neighbour in WHOLEs, without what it inherited."""
    whole = int(score)
    return whole - round((score - whole) * INHERITED)


def inheritance(least: float) -> float:
    """What a new neighbour adds to its weight when it replaces the one with the least."""
    half = min(int(least) // 2, INHERITED - 1)
    return float(f"{half + half / INHERITED:.6f}")
