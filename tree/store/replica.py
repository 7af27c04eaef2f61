"""`TreeReplica`: the tree of a catalogue in this process, kept up to date.

The newest version is a snapshot plus the log entries after it. Every version has a random token,
and every log entry names the token that it follows. A server that lost its last second may give a
number twice: tokens tell the two versions apart.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from tree.edits import Edit
from tree.errors import CorruptSnapshot, InvalidEdit, StaleVersion, StoreUnavailable
from tree.snapshot import Pending, SemanticTree
from tree.store import encoding
from tree.store.head import Head, read_head
from tree.store.keys import CatalogKeys
from tree.store.log import Entry, check_reach, read_entries
from tree.store.snapshots import Snapshots
from tree.worker import SingleFlight, result_of, undivided

_INLINE_BYTES = 16_384  # applying a larger entry would hold up the event loop
_PATIENCE_S = 0.02  # an entry of a few items is applied by then
_BEHIND_S = 1.0
_READS = 5


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version that this process has seen; the token is empty while nothing was ever written."""

    tree: SemanticTree
    token: str


class TreeReplica:
    """See the module. Raises the errors of the client, which the caller translates.

    A caller of `at` or `refresh`, or one that sets `known`, must hold `lock`: following the log
    writes to rows that all versions in this process share.
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
        self.lock = asyncio.Lock()
        self._known: KnownVersion | None = None
        self._newest_at = -math.inf  # when `known` was last known to be the newest
        self._catching_up = SingleFlight("catching up", self._caught_up)

    @property
    def known(self) -> KnownVersion | None:
        """The newest version in this process."""
        return self._known

    @known.setter
    def known(self, known: KnownVersion | None) -> None:
        self._known = known
        self._newest_at = time.monotonic()

    async def head(self) -> Head:
        """The head of the catalogue now. Raises CorruptSnapshot."""
        head = await read_head(self._client, self._keys)
        if self._known is not None and self._known.token == head.token:
            self._newest_at = time.monotonic()
        return head

    async def at(self, base: int) -> KnownVersion:
        """Version `base`. Raises StaleVersion when it is not the newest, as far as known."""
        known = self.known
        if known is None or known.tree.version < base:
            known = await self.refresh()
        if known.tree.version != base:
            raise StaleVersion(f"version {base} is not the newest: {known.tree.version} is")
        return known

    async def recent(self) -> KnownVersion:
        """The newest version, or the previous one while edits of others are being applied.

        It waits `_PATIENCE_S` for the newest one, and longer where the previous version has not
        been the newest for `_BEHIND_S`.
        """
        head = await self.head()
        known = self._known  # read after every wait: a deletion resets it
        if known is not None and known.token == head.token:
            return known
        task, late = self._catching_up.begin(), self._newest_at + _BEHIND_S < time.monotonic()
        done, _ = await asyncio.wait([task], timeout=None if late else _PATIENCE_S)
        known = self._known
        if not done and known is not None:
            return known
        return await result_of(task)

    def forget(self) -> None:
        """The catalogue was deleted: its tree need not be kept."""
        self._known = None

    async def aclose(self) -> None:
        """Stop the catching up that no request waits for."""
        await self._catching_up.aclose()

    async def _caught_up(self) -> KnownVersion:
        async with self.lock:
            return await self.refresh()

    async def refresh(self) -> KnownVersion:
        """The newest version in the store. Raises CorruptSnapshot when it is not whole."""
        for _ in range(_READS):
            head = await self.head()
            if self._known is not None and self._known.token == head.token:
                return self._known
            try:
                known = self.known = await self._read(head)
            except CorruptSnapshot:
                if (await self.head()).generation == head.generation:
                    raise
            else:
                return known
        raise StoreUnavailable(f"the snapshot was replaced {_READS} times while it was read: retry")

    async def changes(self, since: int) -> tuple[list[Edit], int]:
        """The edits after a version, and the version that they lead to. Raises StaleVersion."""
        head = await self.head()
        entries = [entry async for entry in self._entries(since, head.version)]
        if len(entries) != head.version - since:
            raise StaleVersion(f"the log no longer reaches back to version {since}")
        edits = [encoding.read_edits(entry.version, entry.edits) for entry in entries]
        return [edit for some in edits for edit in some], head.version

    async def _read(self, head: Head) -> KnownVersion:
        known = self._known and await self._followed(self._known, head)
        if known is None:
            await check_reach(self._client, self._keys, head)
        if not head.token:
            known = KnownVersion(self._never_written(), "")
        elif known is None:
            known = await self._followed(KnownVersion(*await self._snapshots.of(head)), head)
        if known is None:
            raise CorruptSnapshot(f"the log from {head.snapshot + 1} to {head.version} has gaps")
        if known.tree.version != head.version:
            raise CorruptSnapshot(
                f"the head names version {head.version}, but the log ends in {known.tree.version}"
            )
        return known

    async def _followed(self, known: KnownVersion, head: Head) -> KnownVersion | None:
        """`known` brought up to `head` by the log; None when the log does not join them."""
        async for entry in self._entries(known.tree.version, head.version):
            if entry.after != known.token:
                return None
            edits = encoding.read_edits(entry.version, entry.edits)
            try:
                pending = await prepared(known.tree, edits, len(entry.edits or b""))
            except InvalidEdit as error:
                raise CorruptSnapshot(f"log entry {entry.version} does not fit: {error}") from error
            before, known = known, KnownVersion(pending.publish(), entry.token)
            if self._known is before:
                self._known = known  # for requests that do not wait for later entries
            await asyncio.sleep(0)
        return known if known.token == head.token else None

    def _entries(self, after: int, upto: int) -> AsyncIterator[Entry]:
        return read_entries(self._client, self._keys, after=after, upto=upto)


async def prepared(tree: SemanticTree, edits: Sequence[Edit], size: int) -> Pending:
    """See `SemanticTree.prepare`; in a thread where `size` bytes would hold up the event loop.

    A caller that is cancelled still waits for the thread, which writes to rows that the next call
    writes to.
    """
    if size <= _INLINE_BYTES:
        return tree.prepare(edits)
    return await undivided(asyncio.to_thread(tree.prepare, edits), Pending.abandon)
