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
from typing import Literal, Protocol, cast

import msgspec
from redis.asyncio import Redis

from tree.errors import CorruptSnapshot
from tree.store import wire
from tree.store.connection import translated
from tree.store.keys import DEFAULT_PREFIX, CatalogKeys
from tree.store.scripts import FORGET_ITEMS, OWN, READ_NEIGHBOURS, RECORD_EVENTS, SWEEP_NEIGHBOURS

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

_PERIOD_S = 86_400  # the id of an event is known for one to two of these
_AT_ONCE = 100  # events of a script, which nobody else's command can interrupt: some 5 ms
_COUNTS_AT_ONCE = 1_000
_ALL = ""  # in the hash of counts, where no item id is empty: how often counts have changed

Outcome = Literal["counted", "repeated", "duplicate"]
_OUTCOMES: tuple[Outcome, ...] = ("counted", "repeated", "duplicate")


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
        more. Events that come late find their place by their time; the pairs that they part were
        counted with the distance they had. Each event counts as a whole or not at all, and a
        batch that failed may be sent again.
        """
        ...

    async def evidence(self, ids: Sequence[str]) -> Evidence:
        """The neighbours of each of `ids`, in one round trip."""
        ...

    def counts(self) -> AsyncIterator[Mapping[str, int]]:
        """How many users had an item, for all items that anybody had, in batches."""
        ...

    async def forget_items(self, ids: Collection[str]) -> None:
        """Forget the counts and the neighbours of items that are gone.

        In the lists of others they stay until `sweep` comes by.
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


class RedisFeedback:
    """See Feedback. The caller owns and closes `client`, which must answer in bytes.

    Per item 40 B of count and a list of 0.4 to 0.5 kB on the average (films and games, ids of up
    to six characters), 1.4 kB when it is full; 5 kB with ids of 36 characters; ids of more than 64
    bytes are not packed and take 19 to 41 kB. An event id takes 40 B or more for one to two days;
    a user 0.2 kB, and 13 kB with a full history of short ids, and is forgotten when nothing was
    heard of them for `user_ttl_s`.
    """

    def __init__(
        self,
        client: Redis,
        catalog: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        user_ttl_s: int = 31_536_000,
    ) -> None:
        self._client = client
        self._keys = CatalogKeys(catalog, prefix)
        self._ttl_s = user_ttl_s
        self._record = client.register_script(RECORD_EVENTS)
        self._read = client.register_script(READ_NEIGHBOURS)
        self._forget = client.register_script(FORGET_ITEMS)
        self._sweep = client.register_script(SWEEP_NEIGHBOURS)
        self._own = client.register_script(OWN)

    async def record(self, events: Sequence[Event]) -> list[Outcome]:
        """See Feedback. One script for every hundred events."""
        outcomes: list[Outcome] = []
        for start in range(0, len(events), _AT_ONCE):
            outcomes += await self._recorded(events[start : start + _AT_ONCE])
        return outcomes

    @translated()
    async def _recorded(self, events: Sequence[Event]) -> list[Outcome]:
        keys = self._keys
        period = int(time.time() // _PERIOD_S)
        # Whose neighbours change follows from the histories, which only the script reads: so it
        # builds keys itself, from these stems, all of them in the slot of the catalogue.
        codes = await self._record(
            keys=[keys.count, keys.event(period), keys.event(period - 1)],
            args=[
                keys.near(""), keys.visited(""), keys.reader(""), self._ttl_s, 2 * _PERIOD_S,
                NEIGHBOURS, HISTORY, REACH, *FORWARD, *BACKWARD,
                *(part for one in events
                  for part in (one.event_id, one.user_id, one.item_id, one.at)),
            ],
        )  # fmt: skip
        return [_OUTCOMES[code] for code in cast(list[int], codes)]

    @translated()
    async def evidence(self, ids: Sequence[str]) -> Evidence:
        """See Feedback. By a script: the client takes a millisecond to read ten lists of pairs."""
        keys = [self._keys.count, *map(self._keys.near, ids)]
        changes, *lists = cast(tuple[bytes, *tuple[list[bytes], ...]], await self._read(keys=keys))
        neighbours = [
            dict(zip(map(bytes.decode, found[::2]), map(int, found[1::2]), strict=True))
            for found in lists
        ]
        return Evidence(int(changes), neighbours)

    async def counts(self) -> AsyncIterator[Mapping[str, int]]:
        """See Feedback."""
        cursor = 0
        while True:
            async with translated():
                found = await self._client.hscan(self._keys.count, cursor, count=_COUNTS_AT_ONCE)
            cursor, page = cast(tuple[int, dict[bytes, bytes]], found)
            yield {name.decode(): int(n) for name, n in page.items() if name}
            if not cursor:
                return

    @translated()
    async def forget_items(self, ids: Collection[str]) -> None:
        """See Feedback."""
        some = list(ids)
        for start in range(0, len(some), _COUNTS_AT_ONCE):
            part = some[start : start + _COUNTS_AT_ONCE]
            keys = [self._keys.count, *map(self._keys.near, part)]
            await self._forget(keys=keys, args=part)

    @translated()
    async def sweep(self, item_id: str, gone: Collection[str]) -> None:
        """See Feedback."""
        await self._sweep(keys=[self._keys.count, self._keys.near(item_id)], args=list(gone))

    @translated()
    async def user(self, user_id: str) -> User | None:
        """See Feedback. Damaged facts count as none: the history is read all the same."""
        pipeline = self._client.pipeline()
        pipeline.get(self._keys.reader(user_id))
        pipeline.zrange(self._keys.visited(user_id), 0, -1, withscores=True)
        facts, visits = await pipeline.execute()
        if facts is None and not visits:
            return None
        known = User()
        if facts is not None:
            try:
                body = wire.unseal(facts, f"what is stored of user {user_id!r}")
                known = msgspec.json.decode(body, type=User)
            except (CorruptSnapshot, msgspec.DecodeError):
                known = User()
        history = tuple(Visit(name.decode(), int(at)) for name, at in visits)
        return msgspec.structs.replace(known, history=history)

    @translated()
    async def put_user(self, user_id: str, user: User) -> None:
        """See Feedback."""
        reader, visited = self._keys.reader(user_id), self._keys.visited(user_id)
        facts = wire.seal(msgspec.json.encode(msgspec.structs.replace(user, history=())))
        pipeline = self._client.pipeline()
        pipeline.set(reader, facts, ex=self._ttl_s)
        pipeline.unlink(visited)
        if user.history:
            newest = user.history[-HISTORY:]
            pipeline.zadd(visited, {visit.item_id: visit.at for visit in newest})
            pipeline.expire(visited, self._ttl_s)
        await pipeline.execute()

    @translated()
    async def own(self, user_id: str, name: str, ttl_s: float) -> None:
        """See Feedback. What has ended since leaves the note with the next one."""
        now = time.time()
        await self._own(keys=[self._keys.owned(user_id)], args=[name, now + ttl_s, now])

    @translated()
    async def owned(self, user_id: str) -> list[str]:
        """See Feedback."""
        names = await self._client.zrange(self._keys.owned(user_id), 0, -1)
        return [name.decode() for name in cast(list[bytes], names)]

    @translated()
    async def owns(self, user_id: str, name: str) -> bool:
        """See Feedback."""
        return await self._client.zscore(self._keys.owned(user_id), name) is not None

    @translated()
    async def erase(self, user_id: str, names: Collection[str]) -> None:
        """See Feedback."""
        keys = self._keys
        pipeline = self._client.pipeline()
        pipeline.unlink(keys.visited(user_id), keys.reader(user_id))
        if names:
            pipeline.zrem(keys.owned(user_id), *names)
        await pipeline.execute()


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

    async def record(self, events: Sequence[Event]) -> list[Outcome]:
        """See Feedback."""
        return [self._recorded(event) for event in events]

    def _recorded(self, event: Event) -> Outcome:
        if event.event_id in self._seen:
            return "duplicate"
        self._seen.add(event.event_id)
        reader, item = self._users[event.user_id], event.item_id
        known = reader.visits.get(item)
        reader.visits[item] = max(event.at, event.at if known is None else known)
        if known is not None:
            return "repeated"
        history = reader.history()
        place = history.index(item)
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
            self._near.pop(item_id, None)
            if self._counts.pop(item_id, None):
                self._changes += 1

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
