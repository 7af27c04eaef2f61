"""`RedisTreeStore`: a catalogue on any server that speaks the Redis protocol (6.2 or newer)."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import NamedTuple, cast

from redis.asyncio import Redis

from tree.edits import Edit
from tree.errors import StaleVersion, TreeError, UnknownVersion
from tree.node import Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.connection import translated
from tree.store.head import NOTHING
from tree.store.keys import DEFAULT_PREFIX, CatalogKeys
from tree.store.log import Entry
from tree.store.newest import Known, Newest, prepared
from tree.store.protocol import NEVER_STAGED, Carry, Looked, TreeVersion
from tree.store.records import RECORDS_AT_ONCE, RedisRecords
from tree.store.scripts import COMMIT, HOLD, TURN
from tree.store.snapshots import Snapshots
from tree.store.survey import survey

LOG_ENTRIES = 2_000  # a longer log is compacted: an entry costs a reader about two milliseconds
LOG_EDITS_SHARE = 4  # so is one with more than a fourth as many edits as there are items
KEPT_VERSIONS = 2  # each takes some 330 B an item
_CLAIM_TTL_S = 120
_FOLLOW_S = 0.05
_INLINE_EDITS = 50  # encoding more would hold up the event loop
_HOLD_S = 5
_TURN_MS = 3_000  # a commit of 2,000 items takes a tenth of that
_TURN_PATIENCE_S = 10.0
_TURN_POLL_S = 0.01
_TURN_ASKED_MS = 500
_CARRIES = 8  # before others are asked to wait

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Upload:
    """A tree on its way: its snapshot, and the edits after it."""

    generation: str
    token: str  # of the version of the snapshot
    tree: SemanticTree  # with the edits
    upto: int  # the version of the catalogue up to which changes are carried over
    edits: list[Edit]


class _Encoded(NamedTuple):
    """Edits as the store takes them: the log entry, and what becomes of the records."""

    edits: int
    packed: bytes
    records: dict[str, bytes | None]


def _encoded(edits: Sequence[Edit]) -> _Encoded:
    return _Encoded(len(edits), wire.pack_edits(edits), wire.records(edits))


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
        self._snapshots = Snapshots(client, self._keys, keep)
        never_written = partial(SemanticTree.empty, space, settings)
        self._newest = Newest(client, self._keys, self._snapshots, never_written)
        self._commit = client.register_script(COMMIT)
        self._hold = client.register_script(HOLD)
        self._turn = client.register_script(TURN)
        self._name = token_hex(8)  # by which others tell this one's turn
        self._background: set[asyncio.Task[None]] = set()

    @translated()
    async def load(self) -> SemanticTree:
        """See TreeStore. One round trip while nothing was committed."""
        known = self._newest.known
        if known is not None and (await self._newest.head()).token == known.token:
            return known.tree
        async with self._newest.lock:
            return (await self._newest.refresh()).tree

    @translated()
    async def recent(self) -> SemanticTree:
        """See TreeStore."""
        return (await self._newest.recent()).tree

    def seen(self) -> SemanticTree | None:
        """See TreeStore."""
        return self._newest.known.tree if self._newest.known else None

    async def follow(self, followed: Callable[[float], None]) -> None:
        """See TreeStore. An entry is applied before the first request asks for it."""
        while True:
            try:
                async with translated():
                    known, head = self._newest.known, await self._newest.head()
                    if known is not None and known.token != head.token:
                        async with self._newest.lock:
                            newest = await self._newest.refresh()
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
        work = partial(_encoded, edits)
        async with self._newest.lock:
            known = await self._newest.at(base)
            # Not before: whoever commits here meanwhile would make this one come too late.
            encoded = work() if len(edits) <= _INLINE_EDITS else await asyncio.to_thread(work)
            pending = await prepared(known.tree, edits, len(encoded.packed))
            try:
                if not known.token:
                    known = await self._created(known)
                token = token_hex(8)
                since_snapshot = await self._append(encoded, known, token, (stamp, hold))
            except BaseException:
                pending.abandon()
                raise
            tree = pending.publish()
            self._newest.known = Known(tree, token)
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

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """See TreeStore. Who had the last one lets others go first."""
        patience = time.monotonic() + _TURN_PATIENCE_S
        while not await self._my_turn(_TURN_MS):  # it is in the store: nothing here to wait for
            if time.monotonic() > patience:
                break
            await asyncio.sleep(_TURN_POLL_S)
        try:
            yield
        finally:
            with suppress(TreeError):  # it ends by itself, and what was done in it is done
                await self._my_turn(0)

    @translated()
    async def _my_turn(self, milliseconds: int) -> bool:
        return bool(
            await self._turn(
                keys=[self._keys.turn], args=[self._name, milliseconds, _TURN_ASKED_MS]
            )
        )

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
            async with self._newest.lock:
                await self._newest.at(base)
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
        edits, upto = await self._newest.changes(upload.upto)
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
            async with self._newest.lock:
                head = await self._newest.head()
                if head.version != upload.upto:
                    if carry is None:
                        await self._snapshots.discard(upload.generation)
                        raise StaleVersion(f"version {upload.upto} was overtaken meanwhile")
                    return False
                version = head.version + 1
                await self._snapshots.renumber(upload.generation, version)
                entry = None
                if upload.edits:
                    packed = wire.pack_edits(upload.edits)
                    entry = Entry(version + 1, packed, token_hex(8), upload.token)
                upload.tree.renumber(entry.version if entry else version)
                if not await self._snapshots.flip(
                    head, upload.generation, upload.tree,
                    base=head.token, token=upload.token, note=note, entry=entry,
                ):  # fmt: skip
                    return False
                self._newest.known = Known(upload.tree, entry.token if entry else upload.token)
        return True

    @translated()
    async def versions(self) -> list[TreeVersion]:
        """See TreeStore."""
        return [
            TreeVersion(kept.version, kept.items, kept.built_at, kept.note)
            for kept in (await self._newest.head()).versions
        ]

    @translated()
    async def version(self, number: int) -> SemanticTree:
        """See TreeStore."""
        for kept in (await self._newest.head()).versions:
            if kept.version == number:
                return (await self._snapshots.read(kept.generation, kept.space))[0]
        raise UnknownVersion(f"version {number} is not kept: see the list of versions")

    @translated()
    async def compact(self) -> None:
        """See TreeStore. The log keeps the entries since the snapshot before, for `changes`."""
        head = await self._newest.head()  # first: the tree descends from it while it stays
        async with self._newest.lock:
            known = await self._newest.refresh()
        if not known.token or head.snapshot >= known.tree.version:
            return
        generation = await self._snapshots.write(known.tree, known.token)
        if not await self._snapshots.flip(head, generation, known.tree, base="*"):
            await self._snapshots.discard(generation)

    @translated()
    async def changes(self, *, since: int) -> list[Edit]:
        """See TreeStore."""
        return (await self._newest.changes(since))[0]

    def survey(self) -> AsyncIterator[Looked]:
        """See TreeStore."""
        return survey(self._client, self._keys, self)

    @translated()
    async def drop(self) -> None:
        """See TreeStore. A drop that was cut short leaves an empty catalogue; call it again."""
        keys = self._keys
        async with self._newest.lock:
            await self._client.unlink(keys.head, keys.log, keys.staged)
            self._newest.known = None
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
        await self._newest.aclose()
        await asyncio.gather(*self._background)

    # -- writing

    async def _created(self, known: Known) -> Known:
        """The catalogue with a first snapshot: its space and settings bind every later reader."""
        token = token_hex(8)
        generation = await self._snapshots.write(known.tree, token)
        if not await self._snapshots.flip(
            NOTHING, generation, known.tree, base="", token=token, note="created"
        ):
            raise StaleVersion("the catalogue was just created by somebody else")
        return Known(known.tree, token)

    async def _append(
        self,
        encoded: "_Encoded",
        known: Known,
        token: str,
        terms: tuple[int, str],
    ) -> tuple[int, int]:
        keys, records = self._keys, encoded.records
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
                known.token, token, version, encoded.packed, encoded.edits, *terms,
                len(written), *written.values(),
                len(written) + len(removed), *written, *removed, *placed,
            ],
        )  # fmt: skip
        if reply is None:
            raise StaleVersion(f"version {known.tree.version} is not the newest")
        edits_since, versions_since = cast(list[int], reply)
        return edits_since, versions_since

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
