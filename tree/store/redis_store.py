"""`RedisTreeStore`: a catalogue on any server that speaks the Redis protocol (6.2 or newer)."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import NamedTuple, cast

from redis.asyncio import Redis

from tree.edits import Edit, PutItem
from tree.errors import CatalogDeleted, StaleVersion, TreeError, UnknownVersion
from tree.node import Space, TreeSettings
from tree.redis.connection import translated
from tree.redis.keys import DEFAULT_PREFIX
from tree.snapshot import SemanticTree
from tree.store import encoding
from tree.store.head import NEVER_WRITTEN
from tree.store.integrity import check_integrity
from tree.store.keys import CatalogKeys
from tree.store.locks import CatalogLocks
from tree.store.log import Entry
from tree.store.protocol import NEVER_STAGED, Carry, CheckedPart, TreeVersion
from tree.store.records import RECORDS_AT_ONCE, RedisRecords
from tree.store.replica import KnownVersion, TreeReplica, prepared
from tree.store.scripts import COMMIT, MARK_DELETED
from tree.store.snapshots import Snapshots
from tree.worker import Background

LOG_ENTRIES = 2_000  # a longer log is compacted: to apply an entry takes about two milliseconds
LOG_EDITS_SHARE = 4  # so is one with more than a fourth as many edits as there are items
KEPT_VERSIONS = 2  # each takes some 330 B an item
_COMPACTION_S = 2.0  # at the end; a later commit begins one again that was cut short
_TOMBSTONE_TTL_S = 86_400  # longer than any process works on what it has begun
_FOLLOW_S = 0.05
_INLINE_EDITS = 50  # encoding more would hold up the event loop
_CARRIES = 8  # before other writers have to wait

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Upload:
    """A tree that is being published: its snapshot, and the edits after it."""

    generation: str
    token: str  # of the version of the snapshot
    tree: SemanticTree  # with the edits
    upto: int  # the version of the catalogue up to which changes are carried over
    edits: list[Edit]


class _Encoded(NamedTuple):
    """Edits as they are stored: the log entry, and the new records."""

    edits: int
    packed: bytes
    records: dict[str, bytes | None]
    have_lines: bool


class _Terms(NamedTuple):
    """The conditions of a commit: see TreeWriter."""

    staging_seq: int
    lock: str
    made_of_records: bool


def _encoded(edits: Sequence[Edit]) -> _Encoded:
    have_lines = any(isinstance(edit, PutItem) and edit.line for edit in edits)
    return _Encoded(len(edits), encoding.pack_edits(edits), encoding.records(edits), have_lines)


class RedisTreeStore(RedisRecords):
    """See TreeStore. One object per catalogue and process; the caller owns and closes `client`.

    `client` must answer in bytes. `space` and `settings` are those of a catalogue that was never
    written; a stored one brings its own. `keep` published versions stay, the newest included.
    """

    def __init__(
        self,
        client: Redis,
        catalog_id: str,
        *,
        space: Space,
        settings: TreeSettings = TreeSettings(),  # noqa: B008
        prefix: str = DEFAULT_PREFIX,
        keep: int = KEPT_VERSIONS,
    ) -> None:
        super().__init__(client, CatalogKeys(catalog_id, prefix))
        self._snapshots = Snapshots(client, self._keys, keep)
        never_written = partial(SemanticTree.empty, space, settings)
        self._replica = TreeReplica(client, self._keys, self._snapshots, never_written)
        self._commit = COMMIT.on(client)
        self._locks = CatalogLocks(client, self._keys)
        self._mark_deleted = MARK_DELETED.on(client)
        self._compactions = Background(f"compacting catalogue {catalog_id}")

    @translated()
    async def load(self) -> SemanticTree:
        """See TreeStore. One round trip while nothing was committed."""
        known = self._replica.known
        if known is not None and (await self._replica.head()).token == known.token:
            return known.tree
        async with self._replica.lock:
            return (await self._replica.refresh()).tree

    @translated()
    async def recent(self) -> SemanticTree:
        """See TreeStore."""
        return (await self._replica.recent()).tree

    def seen(self) -> SemanticTree | None:
        """See TreeStore."""
        return self._replica.known.tree if self._replica.known else None

    async def follow(self, followed: Callable[[float], None]) -> None:
        """See TreeStore. An entry is applied before the first request asks for it."""
        while True:
            try:
                async with translated():
                    known, head = self._replica.known, await self._replica.head()
                    if known is not None and known.token != head.token:
                        async with self._replica.lock:
                            newest = await self._replica.refresh()
                        if newest.token == head.token:
                            followed(max(0.0, time.time() - head.committed_at))
            except CatalogDeleted:
                return
            except TreeError as error:  # requests meet it too, and answer with it
                _log.debug("the log could not be followed: %s", error)
            await asyncio.sleep(_FOLLOW_S)

    @translated()
    async def commit(
        self,
        edits: Sequence[Edit],
        *,
        base: int,
        staging_seq: int = NEVER_STAGED,
        lock: str = "",
        made_of_records: bool = False,
    ) -> SemanticTree:
        """See TreeStore. One script; when its answer is lost, the next `load` has its result."""
        work = partial(_encoded, edits)
        async with self._replica.lock:
            known = await self._replica.at(base)
            # Under the lock: a commit of this process in between would make this one stale.
            encoded = work() if len(edits) <= _INLINE_EDITS else await asyncio.to_thread(work)
            pending = await prepared(known.tree, edits, len(encoded.packed))
            try:
                if not known.token:
                    known = await self._created(known)
                token = token_hex(8)
                since_snapshot = await self._append(
                    encoded, known, token, _Terms(staging_seq, lock, made_of_records)
                )
            except BaseException:
                pending.abandon()
                raise
            tree = pending.publish()
            self._replica.known = KnownVersion(tree, token)
        edits_since, versions_since = since_snapshot
        allowed = max(LOG_ENTRIES, len(tree) // LOG_EDITS_SHARE)
        if (versions_since > LOG_ENTRIES or edits_since > allowed) and not len(self._compactions):
            self._compactions.start(self._compact_once())
        return tree

    def commit_lock(self) -> AbstractAsyncContextManager[str]:
        """See TreeStore."""
        return self._locks.commit()

    def bulk_write_lease(self) -> AbstractAsyncContextManager[None]:
        """See TreeStore."""
        return self._locks.bulk_write()

    @translated()
    async def replace(
        self,
        tree: SemanticTree,
        *,
        base: int,
        staging_seq: int = NEVER_STAGED,
        note: str = "rebuild",
        carry: Carry | None = None,
    ) -> SemanticTree:
        """See TreeStore. The snapshot is written once; later changes follow in the log."""
        if carry is None:
            async with self._replica.lock:
                await self._replica.at(base)
        draft = await asyncio.to_thread(tree.at_version, base + 1)
        token = token_hex(8)
        generation = await self._snapshots.write(draft, token)
        upload = _Upload(generation, token, draft, base, [])
        for _ in range(_CARRIES):
            if carry is None or not await self._carried(upload, carry):
                break
        while not await self._published(upload, note, carry):
            continue  # an upload that is not published expires
        if staging_seq > NEVER_STAGED:
            async for ids in self.staged_ids():
                placed = [item_id for item_id in ids if item_id in upload.tree]
                await self.unstage(placed, staging_seq)
        return upload.tree

    async def _carried(self, upload: "_Upload", carry: Carry) -> int:
        """Carry over what was committed by now; how many edits that were."""
        edits, upto = await self._replica.changes(upload.upto)
        if edits:
            upload.tree, more = await carry(upload.tree, edits)
            upload.edits += more
        upload.upto = upto
        return len(edits)

    async def _published(self, upload: "_Upload", note: str, carry: Carry | None) -> bool:
        """Publish the upload; False when another process has committed in between."""
        async with self.commit_lock():
            if carry is not None:
                await self._carried(upload, carry)
            async with self._replica.lock:
                head = await self._replica.head()
                if head.version != upload.upto:
                    if carry is None:
                        await self._snapshots.discard(upload.generation)
                        raise StaleVersion(f"version {upload.upto} was overtaken meanwhile")
                    return False
                version = head.version + 1
                await self._snapshots.renumber(upload.generation, version)
                entry = None
                if upload.edits:
                    packed = encoding.pack_edits(upload.edits)
                    entry = Entry(version + 1, packed, token_hex(8), upload.token)
                upload.tree.renumber(entry.version if entry else version)
                if not await self._snapshots.publish(
                    head, upload.generation, upload.tree,
                    base=head.token, token=upload.token, note=note, entry=entry,
                ):  # fmt: skip
                    return False
                self._replica.known = KnownVersion(
                    upload.tree, entry.token if entry else upload.token
                )
        return True

    @translated()
    async def versions(self) -> list[TreeVersion]:
        """See TreeStore."""
        return [
            TreeVersion(kept.version, kept.items, kept.built_at, kept.note)
            for kept in (await self._replica.head()).versions
        ]

    @translated()
    async def version(self, number: int) -> SemanticTree:
        """See TreeStore."""
        for kept in (await self._replica.head()).versions:
            if kept.version == number:
                return (await self._snapshots.read(kept.generation, kept.space))[0]
        raise UnknownVersion(f"version {number} is not kept: see the list of versions")

    @translated()
    async def compact(self) -> None:
        """See TreeStore. The log keeps the entries since the snapshot before, for `changes`."""
        head = await self._replica.head()  # before the tree, which then contains all of it
        async with self._replica.lock:
            known = await self._replica.refresh()
        if not known.token or head.snapshot >= known.tree.version:
            return
        generation = await self._snapshots.write(known.tree, known.token)
        if not await self._snapshots.publish(head, generation, known.tree, base="*"):
            await self._snapshots.discard(generation)

    @translated()
    async def changes(self, *, since: int) -> list[Edit]:
        """See TreeStore."""
        return (await self._replica.changes(since))[0]

    def check_integrity(self) -> AsyncIterator[CheckedPart]:
        """See TreeStore."""
        return check_integrity(self._client, self._keys, self)

    @translated()
    async def drop(self) -> None:
        """See TreeStore. The tombstone is written first: nothing is written behind the SCAN."""
        keys = self._keys
        await self._mark_deleted(head=keys.head, seconds=_TOMBSTONE_TTL_S)
        doomed: list[bytes] = []
        async for key in self._client.scan_iter(match=keys.pattern, count=RECORDS_AT_ONCE):
            if key != keys.head.encode():
                doomed.append(key)
            if len(doomed) == RECORDS_AT_ONCE:
                await self._client.unlink(*doomed)
                doomed = []
        if doomed:
            await self._client.unlink(*doomed)
        self._replica.forget()

    async def aclose(self) -> None:
        """Wait a moment for a compaction under way. The client stays open."""
        await self._replica.aclose()
        await self._compactions.aclose(_COMPACTION_S)

    # -- writing

    async def _created(self, known: KnownVersion) -> KnownVersion:
        """The catalogue with a first snapshot, whose space and settings all later versions have."""
        token = token_hex(8)
        generation = await self._snapshots.write(known.tree, token)
        if not await self._snapshots.publish(
            NEVER_WRITTEN, generation, known.tree, base="", token=token, note="created"
        ):
            raise StaleVersion("another process has just created the catalogue")
        return KnownVersion(known.tree, token)

    async def _append(
        self,
        encoded: "_Encoded",
        known: KnownVersion,
        token: str,
        terms: "_Terms",
    ) -> tuple[int, int]:
        keys, records = self._keys, encoded.records
        written = {item_id: record for item_id, record in records.items() if record}
        removed = [item_id for item_id, record in records.items() if record is None]
        placed = [item_id for item_id, record in records.items() if record == b""]
        reply = await self._commit(
            head=keys.head,
            log=keys.log,
            staged=keys.staged,
            written=[keys.item(item_id) for item_id in written],
            removed=[keys.item(item_id) for item_id in removed],
            base=known.token,
            token=token,
            version=known.tree.version + 1,
            edits=encoded.packed,
            edit_count=encoded.edits,
            staging_seq=terms.staging_seq,
            lock_token=terms.lock,
            have_lines=1 if encoded.have_lines else 0,
            read_seq=terms.staging_seq if terms.made_of_records else "",
            records=list(written.values()),
            leaving=[*written, *removed],
            placed=placed,
        )
        if reply is None:
            raise StaleVersion(f"version {known.tree.version} is not the newest")
        edits_since, versions_since = cast(list[int], reply)
        return edits_since, versions_since

    async def _compact_once(self) -> None:
        """Compact unless another process does."""
        try:
            async with self._locks.compaction() as claimed:
                if claimed:
                    await self.compact()
        except TreeError as error:
            _log.warning("the log was not compacted; a later commit tries again: %s", error)
