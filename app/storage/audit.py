"""`RedisAudit`: who changed what."""

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import cast

import msgspec
from redis.asyncio import Redis

from app.storage.keys import AuditKeys
from tree.redis.connection import translated
from tree.redis.keys import DEFAULT_PREFIX
from tree.redis.script import Script

_MOST = 10_000  # entries of each log

# The place of an entry is later than any in both logs; pages are ordered by it.
_RECORD = Script(
    """
local now = redis.call('TIME')
local ms, nth = now[1] * 1000 + math.floor(now[2] / 1000), 0
for _, key in ipairs({log, other_log}) do
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  if last then
    local at, n = string.match(last[1], '(%d+)-(%d+)')
    at, n = tonumber(at), tonumber(n)
    if at > ms or (at == ms and n >= nth) then ms, nth = at, n + 1 end
  end
end
local place = string.format('%.0f-%.0f', ms, nth)
redis.call('XADD', log, 'MAXLEN', '~', most, place, 'entry', entry)
""",
    keys=("log", "other_log"),
    args=("entry", "most"),  # entries that a log keeps
)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An entry of the audit log and its place."""

    cursor: str
    entry: Mapping[str, object]

    @property
    def place(self) -> tuple[int, int]:
        """What entries are ordered by."""
        ms, _, nth = self.cursor.partition("-")
        return int(ms), int(nth)


class RedisAudit:
    """The audit log, which all processes share.

    There are two logs, so that acts of others never push out those of administrators. The caller
    owns and closes `client`. Every method raises StoreUnavailable.
    """

    def __init__(self, client: Redis, *, prefix: str = DEFAULT_PREFIX) -> None:
        self._client = client
        self._keys = AuditKeys(prefix)
        self._record = _RECORD.on(client)

    @translated()
    async def record(self, entry: Mapping[str, object], *, by_admin: bool) -> None:
        """Add an entry. The newest 10,000 by administrators are kept, and as many by others."""
        log, other = self._keys.administrators, self._keys.others
        if not by_admin:
            log, other = other, log
        content = msgspec.json.encode(entry)
        await self._record(log=log, other_log=other, entry=content, most=_MOST)

    @translated()
    async def recorded(self, before: str | None, limit: int) -> list[AuditRecord]:
        """Entries of both logs, the newest first, older than the cursor `before`."""
        newest = "+" if before is None else f"({before}"
        logs = (self._keys.administrators, self._keys.others)
        found = await asyncio.gather(*(self._read(log, newest, limit) for log in logs))
        merged = heapq.merge(*found, key=lambda record: record.place, reverse=True)
        return list(islice(merged, limit))

    async def _read(self, log: str, newest: str, limit: int) -> list[AuditRecord]:
        found = cast(
            list[tuple[bytes, dict[bytes, bytes]]],
            await self._client.xrevrange(log, max=newest, count=limit),
        )
        return [
            AuditRecord(place.decode(), msgspec.json.decode(fields[b"entry"]))
            for place, fields in found
        ]
