"""`RedisTreeStore`: a catalogue on any server that speaks the Redis protocol (6.2 or newer).

The newest version is a snapshot plus the log entries after it. Every version has a random token,
and every log entry names the token that it follows: so a number that was given twice (a catalogue
dropped and made again, a server that lost its last second) is never taken for the same version.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import TypeVar, cast

from redis.asyncio import Redis

from tree.edits import Edit
from tree.errors import (
    CorruptSnapshot,
    InvalidEdit,
    StaleVersion,
    StoreUnavailable,
    TreeError,
    UnknownVersion,
)
from tree.node import Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.connection import translated
from tree.store.head import (
    NOTHING,
    Head,
    Kept,
    generations,
    pack_versions,
    read_head,
    spaces,
)
from tree.store.keys import DEFAULT_PREFIX, CatalogKeys
from tree.store.log import Entry, check_reach, read_entries
from tree.store.protocol import NEVER_STAGED, Carry, Looked, TreeVersion
from tree.store.records import RECORDS_AT_ONCE, RedisRecords
from tree.store.scripts import COMMIT, FLIP, HOLD
from tree.store.snapshots import Snapshots
from tree.store.survey import survey

LOG_ENTRIES = 2_000  # a longer log is compacted: an entry costs a reader about two milliseconds
LOG_EDITS_SHARE = 4  # so is one with more than a fourth as many edits as there are items
KEPT_VERSIONS = 2  # each takes some 330 B an item
_CLAIM_TTL_S = 120
_FOLLOW_S = 0.05
_HOLD_S = 5
_CARRIES = 8  # before others are asked to wait
_LEAVE_S = 60
_READ_PER_S = 20_000  # items of a snapshot, at least
_INLINE_BYTES = 16_384  # applying a larger entry would hold up the event loop
_READS = 5

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(slots=True)
class _Upload:
    """A tree on its way: its snapshot, and the edits after it."""

    generation: str
    token: str  # of the version of the snapshot
    tree: SemanticTree  # with the edits
    upto: int  # the version of the catalogue up to which changes are carried over
    edits: list[Edit]


@dataclass(frozen=True, slots=True)
class _Known:
    """The newest version that this process has seen."""

    tree: SemanticTree
    token: str


class RedisTreeStore(RedisRecords):
    """See TreeStore. One object per catalogue and process; the caller owns and closes `client`.

    `client` must answer in bytes. `space` and `settings` are those of a catalogue that was never
    written; a stored one brings its own. `keep` published versions stay, the newest included.
    """

    def __init__(
        self,
        client: Redis,
        catalog: str,
        *,
        space: Space,
        settings: TreeSettings = TreeSettings(),  # noqa: B008
        prefix: str = DEFAULT_PREFIX,
        keep: int = KEPT_VERSIONS,
    ) -> None:
        super().__init__(client, CatalogKeys(catalog, prefix))
        self._snapshots = Snapshots(client, self._keys)
        self._keep = keep
        self._space = space
        self._settings = settings
        self._commit = client.register_script(COMMIT)
        self._flip = client.register_script(FLIP)
        self._hold = client.register_script(HOLD)
        self._reader = wire.RecordReader()
        self._known: _Known | None = None
        self._lock = asyncio.Lock()  # one writer of the shared rows at a time
        self._background: set[asyncio.Task[None]] = set()

    @translated()
    async def load(self) -> SemanticTree:
        """See TreeStore. One round trip while nothing was committed."""
        known = self._known
        if known is not None and (await self._head()).token == known.token:
            return known.tree
        async with self._lock:
            return (await self._refresh()).tree

    def seen(self) -> SemanticTree | None:
        """See TreeStore."""
        return self._known.tree if self._known else None

    async def follow(self, followed: Callable[[float], None]) -> None:
        """See TreeStore. An entry is applied before the first request asks for it."""
        while True:
            try:
                async with translated():
                    known, head = self._known, await self._head()
                    if known is not None and known.token != head.token:
                        async with self._lock:
                            newest = await self._refresh()
                        if newest.token == head.token:
                            followed(max(0.0, time.time() - head.committed_at))
            except TreeError as error:  # requests meet it too, and answer with it
                _log.debug("the log could not be followed: %s", error)
            await asyncio.sleep(_FOLLOW_S)

    @translated()
    async def commit(
        self, edits: Sequence[Edit], *, base: int, stamp: int = NEVER_STAGED, hold: str = ""
    ) -> SemanticTree:
        """See TreeStore. One script; when its answer is lost, the next `load` finds out."""
        packed = wire.pack_edits(edits)
        async with self._lock:
            known = await self._at(base)
            pending = await _off_the_loop(len(packed), partial(known.tree.prepare, edits))
            try:
                if not known.token:
                    known = await self._created(known)
                token = token_hex(8)
                since_snapshot = await self._append(edits, packed, known, token, (stamp, hold))
            except BaseException:
                pending.abandon()
                raise
            tree = pending.publish()
            self._known = _Known(tree, token)
        edits_since, versions_since = since_snapshot
        allowed = max(LOG_ENTRIES, len(tree) // LOG_EDITS_SHARE)
        if (versions_since > LOG_ENTRIES or edits_since > allowed) and not self._background:
            task = asyncio.create_task(self._compact_once())
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return tree

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[str]:
        """See TreeStore."""
        mine = token_hex(8)
        while not await self._held(mine, _HOLD_S):  # noqa: ASYNC110 - it is in the store
            await asyncio.sleep(_FOLLOW_S)
        try:
            yield mine
        finally:
            await self._held(mine, 0)

    @translated()
    async def _held(self, mine: str, seconds: int) -> bool:
        return bool(await self._hold(keys=[self._keys.head], args=[mine, seconds]))

    @translated()
    async def replace(
        self,
        tree: SemanticTree,
        *,
        base: int,
        stamp: int = NEVER_STAGED,
        note: str = "rebuild",
        carry: Carry | None = None,
    ) -> SemanticTree:
        """See TreeStore. The snapshot is written once; what came meanwhile follows in the log."""
        if carry is None:
            async with self._lock:
                await self._at(base)
        draft = await asyncio.to_thread(tree.at_version, base + 1)
        token = token_hex(8)
        generation = await self._snapshots.write(draft, token)
        upload = _Upload(generation, token, draft, base, [])
        for _ in range(_CARRIES):
            if carry is None or not await self._carried(upload, carry):
                break
        while not await self._published(upload, note, carry):
            continue  # an upload that is given up vanishes by itself: this one may be in its place
        if stamp > NEVER_STAGED:
            async for ids in self.staged():
                placed = [item_id for item_id in ids if item_id in upload.tree]
                await self.settle(placed, stamp)
        return upload.tree

    async def _carried(self, upload: "_Upload", carry: Carry) -> int:
        """Carry over what was committed by now; how many edits that were."""
        edits, upto = await self._changes(upload.upto)
        if edits:
            upload.tree, more = await carry(upload.tree, edits)
            upload.edits += more
        upload.upto = upto
        return len(edits)

    async def _published(self, upload: "_Upload", note: str, carry: Carry | None) -> bool:
        """Put the upload in its place; False when somebody has committed all the same."""
        async with self.hold():
            if carry is not None:
                await self._carried(upload, carry)
            async with self._lock:
                head = await self._head()
                if head.version != upload.upto:
                    if carry is None:
                        await self._snapshots.discard(upload.generation)
                        raise StaleVersion(f"version {upload.upto} was overtaken meanwhile")
                    return False
                await self._snapshots.renumber(upload.generation, head.version + 1)
                upload.tree.renumber(head.version + 1 + bool(upload.edits))
                last = token_hex(8) if upload.edits else ""
                if not await self._flipped(
                    head, upload.generation, upload.tree, base=head.token, token=upload.token,
                    note=note, snapshot=head.version + 1,
                    entry=(wire.pack_edits(upload.edits) if last else b"", last),
                ):  # fmt: skip
                    return False
                self._known = _Known(upload.tree, last or upload.token)
        return True

    @translated()
    async def versions(self) -> list[TreeVersion]:
        """See TreeStore."""
        return [
            TreeVersion(kept.version, kept.items, kept.built_at, kept.note)
            for kept in (await self._head()).versions
        ]

    @translated()
    async def version(self, number: int) -> SemanticTree:
        """See TreeStore."""
        for kept in (await self._head()).versions:
            if kept.version == number:
                return (await self._snapshots.read(kept.generation, kept.space))[0]
        raise UnknownVersion(f"version {number} is not kept: see the list of versions")

    @translated()
    async def compact(self) -> None:
        """See TreeStore. The log keeps the entries since the snapshot before, for `changes`."""
        head = await self._head()  # first: while its generation stays, the tree descends from it
        async with self._lock:
            known = await self._refresh()
        if not known.token or head.snapshot >= known.tree.version:
            return
        generation = await self._snapshots.write(known.tree, known.token)
        if not await self._flipped(head, generation, known.tree, base="*"):
            await self._snapshots.discard(generation)

    @translated()
    async def changes(self, *, since: int) -> list[Edit]:
        """See TreeStore."""
        return (await self._changes(since))[0]

    async def _changes(self, since: int) -> tuple[list[Edit], int]:
        """The edits after a version, and the version that they lead to."""
        head = await self._head()
        entries = [entry async for entry in self._entries(since, head.version)]
        if len(entries) != head.version - since:
            raise StaleVersion(f"the log no longer reaches back to version {since}")
        edits = [wire.read_edits(entry.version, entry.edits) for entry in entries]
        return [edit for some in edits for edit in some], head.version

    def survey(self) -> AsyncIterator[Looked]:
        """See TreeStore."""
        return survey(self._client, self._keys, self)

    @translated()
    async def drop(self) -> None:
        """See TreeStore. A drop that was cut short leaves an empty catalogue; call it again."""
        keys = self._keys
        async with self._lock:
            await self._client.unlink(keys.head, keys.log, keys.staged)
            self._known = None
        doomed: list[bytes] = []
        async for key in self._client.scan_iter(match=keys.pattern, count=RECORDS_AT_ONCE):
            doomed.append(key)
            if len(doomed) == RECORDS_AT_ONCE:
                await self._client.unlink(*doomed)
                doomed = []
        if doomed:
            await self._client.unlink(*doomed)

    async def aclose(self) -> None:
        """Wait for a compaction under way. The client stays open."""
        await asyncio.gather(*self._background)

    # -- reading: under the lock, because following the log writes to the shared rows

    async def _head(self) -> Head:
        return await read_head(self._client, self._keys)

    async def _at(self, base: int) -> _Known:
        known = self._known
        if known is None or known.tree.version < base:
            known = await self._refresh()
        if known.tree.version != base:
            raise StaleVersion(f"version {base} is not the newest: {known.tree.version} is")
        return known

    async def _refresh(self) -> _Known:
        for _ in range(_READS):
            head = await self._head()
            if self._known is not None and self._known.token == head.token:
                return self._known
            try:
                return await self._read(head)
            except CorruptSnapshot:
                if (await self._head()).generation == head.generation:
                    raise
        raise StoreUnavailable(f"the snapshot was replaced {_READS} times while it was read: retry")

    async def _read(self, head: Head) -> _Known:
        known = self._known and await self._followed(self._known, head)
        if known is None:
            await check_reach(self._client, self._keys, head)
        if not head.token:
            known = _Known(SemanticTree.empty(self._space, self._settings), "")
        elif known is None:
            known = await self._followed(_Known(*await self._snapshots.of(head)), head)
        if known is None:
            raise CorruptSnapshot(f"the log from {head.snapshot + 1} to {head.version} has gaps")
        if known.tree.version != head.version:
            raise CorruptSnapshot(
                f"the head names version {head.version}, but the log ends in {known.tree.version}"
            )
        self._known = known
        return known

    async def _followed(self, known: _Known, head: Head) -> _Known | None:
        """`known` brought up to `head` by the log; None when the log does not join them."""
        async for entry in self._entries(known.tree.version, head.version):
            if entry.after != known.token:
                return None
            edits = wire.read_edits(entry.version, entry.edits)
            try:
                tree = await _off_the_loop(
                    len(entry.edits or b""), partial(known.tree.apply, edits)
                )
            except InvalidEdit as error:
                raise CorruptSnapshot(f"log entry {entry.version} does not fit: {error}") from error
            known = _Known(tree, entry.token)
            await asyncio.sleep(0)
        return known if known.token == head.token else None

    def _entries(self, after: int, upto: int) -> AsyncIterator[Entry]:
        return read_entries(self._client, self._keys, after=after, upto=upto)

    # -- writing

    async def _created(self, known: _Known) -> _Known:
        """The catalogue with a first snapshot: its space and settings bind every later reader."""
        token = token_hex(8)
        generation = await self._snapshots.write(known.tree, token)
        if not await self._flipped(
            NOTHING, generation, known.tree, base="", token=token, note="created"
        ):
            raise StaleVersion("the catalogue was just created by somebody else")
        return _Known(known.tree, token)

    async def _append(
        self,
        edits: Sequence[Edit],
        packed: bytes,
        known: _Known,
        token: str,
        terms: tuple[int, str],
    ) -> tuple[int, int]:
        keys = self._keys
        records = wire.records(edits)
        written = {item_id: record for item_id, record in records.items() if record}
        removed = [item_id for item_id, record in records.items() if record is None]
        placed = [item_id for item_id, record in records.items() if record == b""]
        version = known.tree.version + 1
        reply = await self._commit(
            keys=[
                keys.head, keys.log, keys.staged,
                *map(keys.item, written), *map(keys.item, removed),
            ],
            args=[
                known.token, token, version, packed, len(edits), *terms,
                len(written), *written.values(),
                len(written) + len(removed), *written, *removed, *placed,
            ],
        )  # fmt: skip
        if reply is None:
            raise StaleVersion(f"version {known.tree.version} is not the newest")
        edits_since, versions_since = cast(list[int], reply)
        return edits_since, versions_since

    async def _flipped(
        self,
        head: Head,
        generation: str,
        tree: SemanticTree,
        *,
        base: str,
        token: str = "",
        note: str = "",
        snapshot: int | None = None,
        entry: tuple[bytes, str] = (b"", ""),
    ) -> bool:
        """Put a snapshot in the place of `head`'s; False when that is gone.

        With a `token` the tree is a version of its own, else the one in place, compacted. It may
        be an `entry` (edits and the token that they lead to) ahead of the version of the snapshot.
        """
        if snapshot is None:
            snapshot = tree.version
        fingerprint = tree.space.fingerprint
        if token:
            newest = Kept(tree.version, len(tree), time.time(), note, generation, fingerprint)
            kept = (newest, *head.versions)[: self._keep]
        else:
            kept = head.compacted(generation)
        oldest = snapshot if token else head.snapshot + 1
        keys = self._keys
        reply = await self._flip(
            keys=[
                keys.head, keys.log, keys.snapshot(generation), keys.space(fingerprint),
                *(keys.snapshot(name) for name in generations(head.versions) - generations(kept)),
                *(keys.space(name) for name in spaces(head.versions) - spaces(kept)),
            ],
            args=[
                head.generation, base, generation, fingerprint, snapshot, token, oldest,
                _leave_s(tree), pack_versions(kept), *entry,
            ],
        )  # fmt: skip
        if reply == -1:
            raise StoreUnavailable("the upload of a snapshot was lost before its end: try again")
        return bool(reply)

    async def _compact_once(self) -> None:
        """Compact unless another process is at it."""
        try:
            async with translated():
                claimed = await self._client.set(
                    self._keys.compacting, b"", nx=True, ex=_CLAIM_TTL_S
                )
                if claimed:
                    await self.compact()
                    await self._client.unlink(self._keys.compacting)
        except TreeError as error:
            _log.warning("the log was not compacted; a later commit tries again: %s", error)


def _leave_s(tree: SemanticTree) -> int:
    """How long a snapshot stays for those who read it when another takes its place.

    Not longer than that: a busy catalogue is compacted every few seconds.
    """
    return _LEAVE_S + len(tree) // _READ_PER_S


async def _off_the_loop(size: int, work: Callable[[], _T]) -> _T:
    """What `work` returns; in a thread where `size` bytes of edits would hold up the event loop."""
    return work() if size <= _INLINE_BYTES else await asyncio.to_thread(work)
