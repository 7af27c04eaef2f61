"""`RedisFeedback`: what users did, in a store that many processes share."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from secrets import randbits
from typing import cast

import msgspec
import numpy as np
from redis.asyncio import Redis

from app.event_types import DEFAULT_RULES, HAD, EventRules
from app.storage.feedback import (
    BACKWARD,
    FORGOTTEN,
    FORWARD,
    HISTORY,
    INHERITED,
    NEIGHBOURS,
    REACH,
    WHOLE,
    Count,
    Event,
    FeedbackEntry,
    ForgottenItem,
    ItemCount,
    ItemNeighbours,
    NeighbourLists,
    Outcome,
    User,
    UserEntry,
    Visit,
    had_by,
    in_wholes,
)
from app.storage.feedback_scan import FeedbackScan
from app.storage.feedback_scripts import (
    ADD_DOCUMENT,
    FORGET_ITEMS,
    PUT_USER,
    READ_NEIGHBOURS,
    READ_REACHED,
    RECORD_EVENTS,
    SWEEP_NEIGHBOURS,
)
from app.storage.keys import FeedbackKeys
from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.redis.checksum import seal, unseal
from tree.redis.connection import translated
from tree.redis.joined import is_joining
from tree.redis.keys import DEFAULT_PREFIX

_PERIOD_S = 86_400  # the id of an event is known for one to two of these
_AT_ONCE = 100  # events of a script, which blocks all other commands: some 5 ms
_ATTEMPTS = 8  # at events, while others change the same histories
_FORGOTTEN_AT_ONCE = 40  # items of a script; each is removed from up to 127 lists
_COUNTS_AT_ONCE = 1_000
_OUTCOMES: tuple[Outcome, ...] = (
    "counted",
    "repeated",
    "duplicate",
    "too_old",
    "noted",
    "over_limit",
)


class RedisFeedback:
    """See Feedback. The caller owns and closes `client`, which must answer in bytes.

    Memory per item: 40 B for the count, and 0.4 to 0.5 kB on average for the neighbours (films and
    games, ids of up to six characters); a full list takes 1.4 kB, 5 kB with ids of 36 characters,
    and 19 to 41 kB with ids of more than 64 bytes, which are not packed. An event id takes 40 B or
    more for one to two days. A user takes 0.2 kB, 13 kB with a full history of short ids, and is
    forgotten `user_ttl_s` after the last event or update.
    """

    def __init__(
        self,
        client: Redis,
        catalog_id: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        user_ttl_s: int = 31_536_000,
    ) -> None:
        self._client = client
        self._keys = FeedbackKeys(catalog_id, prefix)
        self._ttl_s = user_ttl_s
        self._reached = READ_REACHED.on(client)
        self._record = RECORD_EVENTS.on(client)
        self._read = READ_NEIGHBOURS.on(client)
        self._forget = FORGET_ITEMS.on(client)
        self._sweep = SWEEP_NEIGHBOURS.on(client)
        self._add_document = ADD_DOCUMENT.on(client)
        self._put_user = PUT_USER.on(client)
        self._scan = FeedbackScan(client, self._keys, self._users)

    async def record(
        self, events: Sequence[Event], rules: EventRules = DEFAULT_RULES
    ) -> list[Outcome]:
        """See Feedback. One script for every hundred events, after one that reads for it."""
        outcomes: list[Outcome] = []
        for start in range(0, len(events), _AT_ONCE):
            outcomes += await self._recorded(events[start : start + _AT_ONCE], rules)
        return outcomes

    @translated()
    async def _recorded(self, events: Sequence[Event], rules: EventRules) -> list[Outcome]:
        keys, period = self._keys, int(time.time() // _PERIOD_S)
        own = Counter(event.user_id for event in events)
        place = {user: at for at, user in enumerate(own, 1)}
        histories = [keys.history(user) for user in own]
        of_events = {
            "event_users": [place[event.user_id] for event in events],
            "event_times": [event.at for event in events],
            "event_more": [REACH + own[event.user_id] for event in events],
        }
        limit = rules.most_per_day
        of_catalog = {
            "half_life_s": rules.half_life_s or 0,
            "this_day": period,
            "most_per_day": -1 if limit is None else limit,
            "type_names": list(rules.types),
            "type_weights": [in_wholes(kind) for kind in rules.types.values()],
            "type_hides": [int(kind.hides) for kind in rules.types.values()],
        }
        for _ in range(_ATTEMPTS):
            # The histories decide whose neighbours change. A script must name all its keys before
            # it runs: a cluster that moves the slot may hold only some of them.
            reached = await self._reached(histories=histories, **of_events)
            items = {one.item_id for one in events}
            items.update(map(bytes.decode, cast(list[bytes], reached)))
            codes = await self._record(
                counts=keys.counts,
                forgotten=keys.forgotten,
                ids_now=keys.event_ids(period),
                ids_before=keys.event_ids(period - 1),
                head=keys.head,
                histories=histories,
                facts=[keys.facts(user) for user in own],
                deeds=[keys.deeds(user) for user in own],
                neighbours=[keys.neighbours(item) for item in items],
                neighbours_stem=keys.neighbours(""),
                user_s=self._ttl_s,
                ids_s=2 * _PERIOD_S,
                most_neighbours=NEIGHBOURS,
                longest_history=HISTORY,
                changes=randbits(48),
                whole=WHOLE,
                inherited=INHERITED,
                had=HAD,
                forward=FORWARD,
                backward=BACKWARD,
                event_ids=[event.event_id for event in events],
                event_items=[event.item_id for event in events],
                event_types=[event.type for event in events],
                **of_catalog,
                **of_events,
            )
            if codes is not None:
                return [_OUTCOMES[code] for code in cast(list[int], codes)]
        raise StoreUnavailable("too many processes record events of the same users: retry")

    @translated()
    async def neighbours(self, ids: Sequence[str]) -> NeighbourLists:
        """See Feedback. By a script: as commands, ten lists would cost the client a millisecond."""
        keys = self._keys
        found = await self._read(counts=keys.counts, neighbours=[*map(keys.neighbours, ids)])
        changes, *lists = cast(tuple[bytes, *tuple[list[bytes], ...]], found)
        neighbours = [
            dict(zip(map(bytes.decode, pairs[::2]), _weights(pairs[1::2]), strict=True))
            for pairs in lists
        ]
        return NeighbourLists(int(changes), neighbours)

    async def counts(self) -> AsyncIterator[Mapping[str, Count]]:
        """See Feedback."""
        cursor = 0
        while True:
            async with translated():
                found = await self._client.hscan(self._keys.counts, cursor, count=_COUNTS_AT_ONCE)
            cursor, page = cast(tuple[int, dict[bytes, bytes]], found)
            yield {name.decode(): _count(value) for name, value in page.items() if name}
            if not cursor:
                return

    @translated()
    async def forget_items(self, ids: Collection[str]) -> None:
        """See Feedback."""
        some, keys = list(ids), self._keys
        for start in range(0, len(some), _FORGOTTEN_AT_ONCE):
            part = some[start : start + _FORGOTTEN_AT_ONCE]
            lists = (await self.neighbours(part)).neighbours
            theirs = dict.fromkeys(name for found in lists for name in found)
            await self._forget(
                counts=keys.counts,
                forgotten=keys.forgotten,
                head=keys.head,
                neighbours=[keys.neighbours(item) for item in part],
                theirs=[keys.neighbours(item) for item in theirs],
                neighbours_stem=keys.neighbours(""),
                most_forgotten=FORGOTTEN,
                items=part,
            )

    @translated()
    async def sweep(self, item_id: str, gone: Collection[str]) -> None:
        """See Feedback."""
        keys = self._keys
        await self._sweep(counts=keys.counts, neighbours=keys.neighbours(item_id), items=list(gone))

    @translated()
    async def user(self, user_id: str) -> User | None:
        """See Feedback. Damaged facts count as none; the history is still read."""
        if not is_joining():
            return (await self._users([user_id])).get(user_id)
        keys, client = self._keys, self._client
        found = await asyncio.gather(
            client.get(keys.facts(user_id)),
            client.zrange(keys.history(user_id), 0, -1, withscores=True),
            client.hgetall(keys.deeds(user_id)),
        )
        stored = cast(tuple[bytes, list[tuple[bytes, float]], dict[bytes, bytes]], found)
        return _user(user_id, *stored)

    async def _users(self, ids: Sequence[str]) -> dict[str, User]:
        pipeline = self._client.pipeline()
        for user_id in ids:
            pipeline.get(self._keys.facts(user_id))
            pipeline.zrange(self._keys.history(user_id), 0, -1, withscores=True)
            pipeline.hgetall(self._keys.deeds(user_id))
        found = await pipeline.execute()
        users = map(_user, ids, found[::3], found[1::3], found[2::3])
        return {user_id: user for user_id, user in zip(ids, users, strict=True) if user}

    @translated()
    async def histories(self, most: int) -> list[list[str]]:
        """See Feedback. One SCAN, which ends when there are enough."""
        found: list[list[str]] = []
        async for users in self.users():
            if len(found) >= most:
                break
            found += [had for one in users if (had := had_by(one.user))]
        return found[:most]

    @translated()
    async def put_user(self, user_id: str, user: User) -> None:
        """See Feedback."""
        keys, history = self._keys, user.history[-HISTORY:]
        await self._put_user(
            facts=keys.facts(user_id),
            history=keys.history(user_id),
            done=keys.deeds(user_id),
            head=keys.head,
            content=seal(msgspec.json.encode(msgspec.structs.replace(user, history=()))),
            user_s=self._ttl_s,
            items=[visit.item_id for visit in history],
            times=[visit.at for visit in history],
            deeds=[_deed(visit) for visit in history],
        )

    @translated()
    async def add_document(self, user_id: str, name: str, ttl_s: float) -> None:
        """See Feedback. Notes of documents that have expired are removed."""
        now, keys = time.time(), self._keys
        await self._add_document(
            owned=keys.owned(user_id), head=keys.head, name=name, ends_at=now + ttl_s, now=now
        )

    @translated()
    async def documents_of(self, user_id: str) -> list[str]:
        """See Feedback."""
        names = await self._client.zrange(self._keys.owned(user_id), 0, -1)
        return [name.decode() for name in cast(list[bytes], names)]

    @translated()
    async def has_document(self, user_id: str, name: str) -> bool:
        """See Feedback."""
        return await self._client.zscore(self._keys.owned(user_id), name) is not None

    @translated()
    async def erase(self, user_id: str, names: Collection[str]) -> None:
        """See Feedback."""
        keys = self._keys
        pipeline = self._client.pipeline()
        pipeline.unlink(keys.history(user_id), keys.facts(user_id), keys.deeds(user_id))
        if names:
            pipeline.zrem(keys.owned(user_id), *names)
        await pipeline.execute()

    async def entries(self) -> AsyncIterator[Sequence[FeedbackEntry]]:
        """See Feedback. One SCAN over the keys of the catalogue."""
        async for counts in self.counts():
            yield [ItemCount(item, *count) for item, count in counts.items()]
        async with translated():
            scored = await self._client.zrange(self._keys.forgotten, 0, -1, withscores=True)
        gone = cast(list[tuple[bytes, float]], scored)
        yield [ForgottenItem(item.decode(), int(at)) for item, at in gone]
        async for entries in self._scan.entries():
            yield entries

    @translated()
    async def known(self, user_ids: Sequence[str]) -> set[str]:
        """See Feedback."""
        pipeline = self._client.pipeline()
        for user_id in user_ids:
            pipeline.exists(self._keys.facts(user_id), self._keys.history(user_id))
        found = await pipeline.execute()
        return {user_id for user_id, keys in zip(user_ids, found, strict=True) if keys}

    def users(self) -> AsyncIterator[Sequence[UserEntry]]:
        """See Feedback."""
        return self._scan.users()

    @translated()
    async def restore(self, entries: Sequence[FeedbackEntry]) -> None:
        """See Feedback."""
        pipeline = self._client.pipeline()
        pipeline.hset(self._keys.counts, "", randbits(48))
        for entry in entries:
            match entry:
                case ItemCount():
                    ever = f" {entry.ever!r}" if entry.ever else ""
                    value = f"{entry.users!r} {entry.at}{ever}"
                    pipeline.hset(self._keys.counts, entry.item_id, value)
                case ItemNeighbours():
                    near = self._keys.neighbours(entry.item_id)
                    pipeline.unlink(near)
                    pipeline.zadd(near, entry.weights)
                case ForgottenItem():
                    pipeline.zadd(self._keys.forgotten, {entry.item_id: entry.at})
                case UserEntry():
                    await self.put_user(entry.user_id, entry.user)
        await pipeline.execute()


def _user(
    user_id: str,
    facts: bytes | None,
    visits: list[tuple[bytes, float]],
    deeds: Mapping[bytes, bytes],
) -> User | None:
    if facts is None and not visits:
        return None
    known = User()
    if facts is not None:
        try:
            body = unseal(facts, f"what is stored of user {user_id!r}")
            known = msgspec.json.decode(body, type=User)
        except (CorruptSnapshot, msgspec.DecodeError):
            known = User()
    history = tuple(_visit(name, at, deeds.get(name)) for name, at in visits)
    return msgspec.structs.replace(known, history=history)


def _visit(item: bytes, at: float, deed: bytes | None) -> Visit:
    """A visit; most are of one type and count whole, so that their deeds are not stored."""
    if deed is None:
        return Visit(item.decode(), int(at))
    weight, _, kind = deed.decode().partition(" ")
    return Visit(item.decode(), int(at), kind, int(weight))


def _deed(visit: Visit) -> str:
    if visit.type == HAD and visit.weight == WHOLE:
        return ""
    return f"{visit.weight} {visit.type}"


def _count(value: bytes) -> Count:
    """A count; older releases stored the users alone."""
    users, at, ever, *_ = (*value.split(b" "), b"", b"")
    return Count(float(users), int(at or 0), float(ever or 0))


def _weights(scores: Sequence[bytes]) -> list[int]:
    """What `weight_of` says of each, at once: ten full lists take a tenth of a millisecond."""
    values = np.array(scores, np.bytes_).astype(np.float64)
    whole = np.floor(values)
    weights: list[int] = (whole - np.rint((values - whole) * INHERITED)).astype(np.int64).tolist()
    return weights
