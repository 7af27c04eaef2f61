"""`Newest`: the newest version of a catalogue as this process knows it, brought up to date.

The newest version is a snapshot plus the log entries after it. Every version has a random token,
and every log entry names the token that it follows: so a number that was given twice (a catalogue
dropped and made again, a server that lost its last second) is never taken for the same version.
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
from tree.store import wire
from tree.store.head import Head, read_head
from tree.store.keys import CatalogKeys
from tree.store.log import Entry, check_reach, read_entries
from tree.store.snapshots import Snapshots

_INLINE_BYTES = 16_384  # applying a larger entry would hold up the event loop
_PATIENCE_S = 0.02  # an entry of a few items is applied by then
_BEHIND_S = 1.0
_READS = 5


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
        self.lock = asyncio.Lock()
        self._known: Known | None = None
        self._newest_at = -math.inf  # when `known` was the newest, as far as was known
        self._catching_up: asyncio.Task[Known] | None = None

    @property
    def known(self) -> Known | None:
        """The newest version that was seen here."""
        return self._known

    @known.setter
    def known(self, known: Known | None) -> None:
        self._known = known
        self._newest_at = time.monotonic()

    async def head(self) -> Head:
        """What the catalogue says of itself now. Raises CorruptSnapshot."""
        head = await read_head(self._client, self._keys)
        if self._known is not None and self._known.token == head.token:
            self._newest_at = time.monotonic()
        return head

    async def at(self, base: int) -> Known:
        """Version `base`. Raises StaleVersion when it is not the newest, as far as known."""
        known = self.known
        if known is None or known.tree.version < base:
            known = await self.refresh()
        if known.tree.version != base:
            raise StaleVersion(f"version {base} is not the newest: {known.tree.version} is")
        return known

    async def recent(self) -> Known:
        """The newest version, or while others' edits are being applied, the one before.

        What takes a moment only is waited for; and so is all, where the version before has not
        been the newest for `_BEHIND_S`.
        """
        head = await self.head()
        known = self._known  # read after every wait: whoever drops the catalogue takes it away
        if known is not None and known.token == head.token:
            return known
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._caught_up())
            self._catching_up.add_done_callback(_looked_at)
        task, late = self._catching_up, self._newest_at + _BEHIND_S < time.monotonic()
        done, _ = await asyncio.wait([task], timeout=None if late else _PATIENCE_S)
        known = self._known
        if not done and known is not None:
            return known
        await asyncio.wait([task])
        if task.cancelled():
            raise StoreUnavailable("the catalogue was closed while it was read: retry")
        return task.result()

    async def aclose(self) -> None:
        """Let go of what goes on for readers who did not wait for it."""
        if self._catching_up is not None:
            self._catching_up.cancel()
            await asyncio.wait([self._catching_up])

    async def _caught_up(self) -> Known:
        async with self.lock:
            return await self.refresh()

    async def refresh(self) -> Known:
        """The newest version of all. Raises CorruptSnapshot rather than one that is not whole."""
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
        edits = [wire.read_edits(entry.version, entry.edits) for entry in entries]
        return [edit for some in edits for edit in some], head.version

    async def _read(self, head: Head) -> Known:
        known = self._known and await self._followed(self._known, head)
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
                pending = await prepared(known.tree, edits, len(entry.edits or b""))
            except InvalidEdit as error:
                raise CorruptSnapshot(f"log entry {entry.version} does not fit: {error}") from error
            before, known = known, Known(pending.publish(), entry.token)
            if self._known is before:
                self._known = known  # for those who do not wait for the entries after it
            await asyncio.sleep(0)
        return known if known.token == head.token else None

    def _entries(self, after: int, upto: int) -> AsyncIterator[Entry]:
        return read_entries(self._client, self._keys, after=after, upto=upto)


async def prepared(tree: SemanticTree, edits: Sequence[Edit], size: int) -> Pending:
    """See `SemanticTree.prepare`; in a thread where `size` bytes would hold up the event loop.

    Whoever is cancelled waits for the thread all the same: it writes to rows that the next one
    writes to.
    """
    if size <= _INLINE_BYTES:
        return tree.prepare(edits)
    work = asyncio.ensure_future(asyncio.to_thread(tree.prepare, edits))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled() and not work.exception():
            work.result().abandon()
        raise


def _looked_at(task: asyncio.Task[Known]) -> None:
    """What went wrong while nobody waited, the next one who asks meets again."""
    if not task.cancelled():
        task.exception()
