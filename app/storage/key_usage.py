"""`RedisKeyUsage`: how much each API key is used."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from redis.asyncio import Redis

from app.storage.keys import KeyUsageKeys
from tree.redis.connection import translated
from tree.redis.keys import DEFAULT_PREFIX
from tree.redis.script import Script

NANO_USD = 1_000_000_000  # money is counted in billionths of a dollar: whole numbers do not drift
_MINUTE_MS = 60_000
_SPENT_TTL_S = 172_800  # the day itself, and time to settle late

# Returns whether these requests are allowed, how many more are, and the milliseconds until the
# minute ends. What is refused is not counted.
_RATE = Script(
    """
local used = tonumber(redis.call('GET', rate) or 0)
local left = per_minute - used - requests
if left < 0 then return {0, math.max(0, per_minute - used), redis.call('PTTL', rate)} end
redis.call('INCRBY', rate, requests)
if used == 0 then redis.call('PEXPIRE', rate, minute_ms) end
return {1, left, redis.call('PTTL', rate)}
""",
    keys=("rate",),
    args=("per_minute", "requests", "minute_ms"),
)

# Returns 0, and claims nothing, where it does not fit.
_CLAIM = Script(
    """
local before = tonumber(redis.call('GET', spent) or 0)
if before + claimed > tonumber(limit) then return 0 end
redis.call('INCRBY', spent, claimed)
redis.call('EXPIRE', spent, stays_s)
return 1
""",
    keys=("spent",),
    args=(
        "claimed",
        "limit",  # of the day
        "stays_s",  # seconds that the figure stays
    ),
)

_SETTLE = Script(
    """
if redis.call('EXISTS', spent) == 1 then redis.call('INCRBY', spent, difference) end
""",
    keys=("spent",),
    args=("difference",),  # to what was claimed, mostly below zero
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a key's minute."""

    granted: bool
    left: int
    reset_s: float


class RedisKeyUsage:
    """Requests and costs by the id of a key, shared by all processes.

    The caller owns and closes `client`. Every method raises StoreUnavailable.
    """

    def __init__(self, client: Redis, *, prefix: str = DEFAULT_PREFIX) -> None:
        self._client = client
        self._keys = KeyUsageKeys(prefix)
        self._rate = _RATE.on(client)
        self._claim = _CLAIM.on(client)
        self._settle = _SETTLE.on(client)

    @translated()
    async def count(self, key_id: str, per_minute: int, requests: int = 1) -> Allowance:
        """Count requests of a key, unless its minute has no room for all of them.

        A minute begins with the first request that is counted. One round trip.
        """
        granted, left, reset_ms = cast(
            tuple[int, int, int],
            await self._rate(
                rate=self._keys.rate(key_id),
                per_minute=per_minute,
                requests=requests,
                minute_ms=_MINUTE_MS,
            ),
        )
        return Allowance(bool(granted), int(left), max(0, reset_ms) / 1_000)

    @translated()
    async def claim(self, key_id: str, day: str, nano_usd: int, limit_nano_usd: int) -> bool:
        """Count money as spent in advance; False when it exceeds the limit of the day."""
        spent = self._keys.spent(key_id, day)
        claimed = await self._claim(
            spent=spent, claimed=nano_usd, limit=limit_nano_usd, stays_s=_SPENT_TTL_S
        )
        return bool(claimed)

    @translated()
    async def settle(self, key_id: str, day: str, nano_usd: int) -> None:
        """Correct a claim by the difference to the real cost."""
        await self._settle(spent=self._keys.spent(key_id, day), difference=nano_usd)

    @translated()
    async def spent(self, key_id: str, day: str) -> int:
        """The billionths of a dollar that were spent or are claimed."""
        found = cast(bytes | None, await self._client.get(self._keys.spent(key_id, day)))
        return int(found or 0)


def today() -> str:
    """The day by which money is counted, in UTC."""
    return datetime.now(UTC).date().isoformat()
