"""`CatalogLocks`: what processes take turns for, in one catalogue. All of it runs out by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

from redis.asyncio import Redis

from tree.errors import TreeError
from tree.redis.connection import translated
from tree.store.keys import CatalogKeys
from tree.store.scripts import BULK_WRITE_LEASE, LOCK

_LOCK_S = 5
_LOCK_POLL_S = 0.05
_LEASE_MS = 3_000  # a commit of 2,000 items takes a tenth of that
_LEASE_PATIENCE_S = 10.0
_LEASE_POLL_S = 0.01
_LEASE_ASKED_MS = 500
_COMPACTION_S = 120


class CatalogLocks:
    """The commit lock, which commits check, and two rights that are advice: see TreeStore."""

    def __init__(self, client: Redis, keys: CatalogKeys) -> None:
        self._client = client
        self._keys = keys
        self._lock = LOCK.on(client)
        self._lease = BULK_WRITE_LEASE.on(client)
        self._owner = token_hex(8)  # this process, in the lease

    @asynccontextmanager
    async def commit(self) -> AsyncIterator[str]:
        """See `TreeStore.commit_lock`."""
        token = token_hex(8)
        while not await self._locked(token, _LOCK_S):  # noqa: ASYNC110 - the store has no event for it
            await asyncio.sleep(_LOCK_POLL_S)
        try:
            yield token
        finally:
            await self._locked(token, 0)

    @asynccontextmanager
    async def bulk_write(self) -> AsyncIterator[None]:
        """See `TreeStore.bulk_write_lease`. The process that had it last lets others go first."""
        patience = time.monotonic() + _LEASE_PATIENCE_S
        while not await self._leased(_LEASE_MS):  # the store has no event for it
            if time.monotonic() > patience:
                break
            await asyncio.sleep(_LEASE_POLL_S)
        try:
            yield
        finally:
            with suppress(TreeError):  # it runs out by itself
                await self._leased(0)

    @asynccontextmanager
    async def compaction(self) -> AsyncIterator[bool]:
        """Whether this process may compact the log; False while another one does."""
        key = self._keys.compacting
        async with translated():
            claimed = await self._client.set(key, b"", nx=True, ex=_COMPACTION_S)
        yield bool(claimed)
        if claimed:  # after a failure others wait until it runs out
            async with translated():
                await self._client.unlink(key)

    @translated()
    async def _locked(self, token: str, seconds: int) -> bool:
        return bool(await self._lock(head=self._keys.head, token=token, seconds=seconds))

    @translated()
    async def _leased(self, milliseconds: int) -> bool:
        given = await self._lease(
            lease=self._keys.bulk_write_lease,
            owner=self._owner,
            lasts_ms=milliseconds,
            asked_ms=_LEASE_ASKED_MS,
        )
        return bool(given)
