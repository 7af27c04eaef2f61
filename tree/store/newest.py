"""`Newest`: the newest version of a catalogue as this process knows it, brought up to date.

The newest version is a snapshot plus the log entries after it. Every version has a random token,
and every log entry names the token that it follows: so a number that was given twice (a catalogue
dropped and made again, a server that lost its last second) is never taken for the same version.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from redis.asyncio import Redis

from tree.edits import Edit
from tree.errors import CorruptSnapshot, InvalidEdit, StaleVersion, StoreUnavailable
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.head import Head, read_head
from tree.store.keys import CatalogKeys
from tree.store.log import Entry, check_reach, read_entries
from tree.store.snapshots import Snapshots

_INLINE_BYTES = 16_384  # applying a larger entry would hold up the event loop
_READS = 5

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Known:
    """A version that this process has seen; the token is empty while nothing was ever written."""

    tree: SemanticTree
    token: str


class Newest:
    """See the module. Raises the errors of the client, which the caller translates.

    `lock` is held by whoever calls `at` or `refresh`, or sets `known`: following the log writes to
    rows that all versions of this process share.
    """

    def __init__(
        self,
        client: Redis,
        keys: CatalogKeys,
        snapshots: Snapshots,
        never_written: Callable[[], SemanticTree],
    ) -> None:
        self._client = client
        self._keys = keys
        self._snapshots = snapshots
        self._never_written = never_written
        self.known: Known | None = None
        self.lock = asyncio.Lock()

    async def head(self) -> Head:
        """What the catalogue says of itself now. Raises CorruptSnapshot."""
        return await read_head(self._client, self._keys)

    async def at(self, base: int) -> Known:
        """Version `base`. Raises StaleVersion when it is not the newest, as far as known."""
        known = self.known
        if known is None or known.tree.version < base:
            known = await self.refresh()
        if known.tree.version != base:
            raise StaleVersion(f"version {base} is not the newest: {known.tree.version} is")
        return known

    async def refresh(self) -> Known:
        """The newest version of all. Raises CorruptSnapshot rather than one that is not whole."""
        for _ in range(_READS):
            head = await self.head()
            if self.known is not None and self.known.token == head.token:
                return self.known
            try:
                self.known = await self._read(head)
            except CorruptSnapshot:
                if (await self.head()).generation == head.generation:
                    raise
            else:
                return self.known
        raise StoreUnavailable(f"the snapshot was replaced {_READS} times while it was read: retry")

    async def changes(self, since: int) -> tuple[list[Edit], int]:
        """The edits after a version, and the version that they lead to. Raises StaleVersion."""
        head = await self.head()
        entries = [entry async for entry in self._entries(since, head.version)]
        if len(entries) != head.version - since:
            raise StaleVersion(f"the log no longer reaches back to version {since}")
        edits = [wire.read_edits(entry.version, entry.edits) for entry in entries]
        return [edit for some in edits for edit in some], head.version

    async def _read(self, head: Head) -> Known:
        known = self.known and await self._followed(self.known, head)
        if known is None:
            await check_reach(self._client, self._keys, head)
        if not head.token:
            known = Known(self._never_written(), "")
        elif known is None:
            known = await self._followed(Known(*await self._snapshots.of(head)), head)
        if known is None:
            raise CorruptSnapshot(f"the log from {head.snapshot + 1} to {head.version} has gaps")
        if known.tree.version != head.version:
            raise CorruptSnapshot(
                f"the head names version {head.version}, but the log ends in {known.tree.version}"
            )
        return known

    async def _followed(self, known: Known, head: Head) -> Known | None:
        """`known` brought up to `head` by the log; None when the log does not join them."""
        async for entry in self._entries(known.tree.version, head.version):
            if entry.after != known.token:
                return None
            edits = wire.read_edits(entry.version, entry.edits)
            try:
                tree = await off_the_loop(len(entry.edits or b""), partial(known.tree.apply, edits))
            except InvalidEdit as error:
                raise CorruptSnapshot(f"log entry {entry.version} does not fit: {error}") from error
            known = Known(tree, entry.token)
            await asyncio.sleep(0)
        return known if known.token == head.token else None

    def _entries(self, after: int, upto: int) -> AsyncIterator[Entry]:
        return read_entries(self._client, self._keys, after=after, upto=upto)


async def off_the_loop(size: int, work: Callable[[], _T]) -> _T:
    """What `work` returns; in a thread where `size` bytes of edits would hold up the event loop."""
    return work() if size <= _INLINE_BYTES else await asyncio.to_thread(work)
