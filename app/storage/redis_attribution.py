"""`RedisAttribution`: lists and tallies in a store that many processes share."""

from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from typing import cast

from redis.asyncio import Redis

from app.storage.attribution import (
    DIMENSIONS,
    MICRO,
    MOST_LABELS,
    OTHER,
    TALLY_DAYS,
    Attributed,
    DayTallies,
    ListEvent,
    ShownList,
    TallyEntry,
    day_tallies,
    days_between,
)
from app.storage.attribution_scripts import ATTRIBUTE_EVENTS, KEEP_LIST
from app.storage.keys import AttributionKeys
from tree.redis.connection import translated
from tree.redis.keys import DEFAULT_PREFIX

_DAY_S = 86_400
_TALLY_S = TALLY_DAYS * _DAY_S
_AT_ONCE = 200  # events of a script, which blocks all other commands
_DAYS_AT_ONCE = 50
_OUTCOMES: tuple[Attributed, ...] = ("attributed", "repeated", "late", "unknown", "not_shown")


class RedisAttribution:
    """See Attribution. The caller owns and closes `client`, which must answer in bytes.

    A list takes 0.2 kB, and the length of the ids of its items; a tally up to 2.2 kB for each label
    that was in use on a day. `make bench ARGS=attribution` prints both.
    """

    def __init__(self, client: Redis, catalog_id: str, *, prefix: str = DEFAULT_PREFIX) -> None:
        self._client = client
        self._keys = AttributionKeys(catalog_id, prefix)
        self._keep = KEEP_LIST.on(client)
        self._attribute = ATTRIBUTE_EVENTS.on(client)

    @translated()
    async def keep(self, shown: ShownList, ttl_s: int) -> None:
        """See Attribution."""
        keys, day = self._keys, shown.day.isoformat()
        rest = (str(shown.tree_version), str(len(shown.items)), *shown.items)
        await self._keep(
            list=keys.list(shown.id),
            tally=keys.tally(day),
            head=keys.head,
            list_s=ttl_s,
            tally_s=_TALLY_S,
            day=day,
            bucket=shown.bucket,
            is_shown=int(shown.is_shown),
            most_labels=MOST_LABELS,
            other=OTHER,
            rest="".join(f"{field}\0" for field in rest),
            dimensions=DIMENSIONS,
            labels=shown.labels,
        )

    async def attribute(
        self, events: Sequence[ListEvent], today: date, ttl_s: int
    ) -> list[Attributed]:
        """See Attribution. One script for every two hundred events."""
        outcomes: list[Attributed] = []
        for start in range(0, len(events), _AT_ONCE):
            some = events[start : start + _AT_ONCE]
            outcomes += await self._attributed(some, today, ttl_s)
        return outcomes

    @translated()
    async def _attributed(
        self, events: Sequence[ListEvent], today: date, ttl_s: int
    ) -> list[Attributed]:
        keys = self._keys
        lists = list(dict.fromkeys(event.list_id for event in events))
        place = {name: at for at, name in enumerate(lists, 1)}
        # A list may have been shown on any day since; one more for clocks that differ.
        first = today - timedelta(days=ttl_s // _DAY_S + 1)
        days = days_between(first, today + timedelta(days=1))
        codes = await self._attribute(
            head=keys.head,
            today=keys.tally(today.isoformat()),
            lists=[keys.list(name) for name in lists],
            tallies=[keys.tally(day.isoformat()) for day in days],
            tally_s=_TALLY_S,
            most_labels=MOST_LABELS,
            other=OTHER,
            tallies_stem=keys.tally(""),
            dimensions=DIMENSIONS,
            event_lists=[place[event.list_id] for event in events],
            event_items=[event.item_id for event in events],
            event_marks=[event.mark for event in events],
            event_measures=[event.measure for event in events],
            event_values=[round(event.value * MICRO) for event in events],
            event_ours=[int(event.is_ours) for event in events],
        )
        return [_OUTCOMES[code] for code in cast(list[int], codes)]

    @translated()
    async def tallies(self, since: date, until: date) -> list[DayTallies]:
        """See Attribution."""
        found = []
        for day, fields in await self._read(days_between(since, until)):
            tallies = day_tallies(day, fields)
            if tallies.tallies or any(tallies.lost.values()):
                found.append(tallies)
        return found

    async def entries(self, today: date) -> AsyncIterator[Sequence[TallyEntry]]:
        """See Attribution."""
        days = days_between(today - timedelta(days=TALLY_DAYS), today + timedelta(days=1))
        for start in range(0, len(days), _DAYS_AT_ONCE):
            async with translated():
                found = await self._read(days[start : start + _DAYS_AT_ONCE])
            for day, fields in found:
                if fields:
                    yield [TallyEntry(day.isoformat(), *stored) for stored in fields.items()]

    @translated()
    async def restore(self, entries: Sequence[TallyEntry], today: date) -> None:
        """See Attribution."""
        pipeline = self._client.pipeline()
        for entry in entries:
            age = (today - date.fromisoformat(entry.day)).days
            key = self._keys.tally(entry.day)
            pipeline.hset(key, entry.field, entry.data)
            pipeline.expire(key, max(1, TALLY_DAYS - age) * _DAY_S)
        await pipeline.execute()

    async def _read(self, days: Sequence[date]) -> list[tuple[date, dict[bytes, bytes]]]:
        pipeline = self._client.pipeline(transaction=False)
        for day in days:
            pipeline.hgetall(self._keys.tally(day.isoformat()))
        found = cast(list[dict[bytes, bytes]], await pipeline.execute())
        return list(zip(days, found, strict=True))
