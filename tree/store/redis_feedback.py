"""`RedisFeedback`: what users did, in a store that many processes share."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from secrets import randbits
from typing import cast

import msgspec
from redis.asyncio import Redis

from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.store import wire
from tree.store.connection import translated
from tree.store.feedback import (
    BACKWARD,
    FORGOTTEN,
    FORWARD,
    HISTORY,
    NEIGHBOURS,
    REACH,
    Event,
    Evidence,
    Outcome,
    User,
    Visit,
)
from tree.store.keys import DEFAULT_PREFIX, CatalogKeys
from tree.store.scripts import (
    FORGET_ITEMS,
    OWN,
    READ_NEIGHBOURS,
    READ_REACHED,
    RECORD_EVENTS,
    SWEEP_NEIGHBOURS,
)

_PERIOD_S = 86_400  # the id of an event is known for one to two of these
_AT_ONCE = 100  # events of a script, which nobody else's command can interrupt: some 5 ms
_ATTEMPTS = 8  # at events, while others change the same histories
_FORGOTTEN_AT_ONCE = 40  # items of a script, each with up to 127 lists that it leaves
_COUNTS_AT_ONCE = 1_000
_OUTCOMES: tuple[Outcome, ...] = ("counted", "repeated", "duplicate", "too_old")


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
        self._reached = client.register_script(READ_REACHED)
        self._record = client.register_script(RECORD_EVENTS)
        self._read = client.register_script(READ_NEIGHBOURS)
        self._forget = client.register_script(FORGET_ITEMS)
        self._sweep = client.register_script(SWEEP_NEIGHBOURS)
        self._own = client.register_script(OWN)

    async def record(self, events: Sequence[Event]) -> list[Outcome]:
        """See Feedback. One script for every hundred events, after one that reads for it."""
        outcomes: list[Outcome] = []
        for start in range(0, len(events), _AT_ONCE):
            outcomes += await self._recorded(events[start : start + _AT_ONCE])
        return outcomes

    @translated()
    async def _recorded(self, events: Sequence[Event]) -> list[Outcome]:
        keys, period = self._keys, int(time.time() // _PERIOD_S)
        own = Counter(event.user_id for event in events)
        place = {user: at for at, user in enumerate(own, 1)}
        visited = [keys.visited(user) for user in own]
        when = [(place[e.user_id], e.at, REACH + own[e.user_id]) for e in events]
        for _ in range(_ATTEMPTS):
            # Whose neighbours change follows from the histories; but all keys of a script must be
            # named before it runs, or a cluster that moves the slot runs it on a part of them.
            reached = await self._reached(keys=visited, args=[part for one in when for part in one])
            items = {one.item_id for one in events}
            items.update(map(bytes.decode, cast(list[bytes], reached)))
            codes = await self._record(
                keys=[
                    keys.count, keys.gone, keys.event(period), keys.event(period - 1),
                    *visited, *map(keys.reader, own), *map(keys.near, items),
                ],
                args=[
                    keys.near(""), self._ttl_s, 2 * _PERIOD_S, NEIGHBOURS, HISTORY, REACH,
                    len(own), randbits(48), *FORWARD, *BACKWARD,
                    *(part for one, (user, at, more) in zip(events, when, strict=True)
                      for part in (one.event_id, user, one.item_id, at, more)),
                ],
            )  # fmt: skip
            if codes is not None:
                return [_OUTCOMES[code] for code in cast(list[int], codes)]
        raise StoreUnavailable("others record events of the same users all the time: retry")

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
        some, keys = list(ids), self._keys
        for start in range(0, len(some), _FORGOTTEN_AT_ONCE):
            part = some[start : start + _FORGOTTEN_AT_ONCE]
            lists = (await self.evidence(part)).neighbours
            theirs = dict.fromkeys(name for found in lists for name in found)
            await self._forget(
                keys=[keys.count, keys.gone, *map(keys.near, part), *map(keys.near, theirs)],
                args=[keys.near(""), FORGOTTEN, *part],
            )

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
