"""`RedisTreeStore`: a catalogue on any server that speaks the Redis protocol (6.2 or newer).

The newest version is a snapshot plus the log entries after it. Every version has a random token,
and every log entry names the token that it follows: so a number that was given twice (a catalogue
dropped and made again, a server that lost its last second) is never taken for the same version.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from secrets import token_hex
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from tree.edits import Edit
from tree.errors import CorruptSnapshot, InvalidEdit, StaleVersion, StoreUnavailable, TreeError
from tree.item import Item
from tree.node import Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.connection import translated
from tree.store.keys import DEFAULT_PREFIX, CatalogKeys
from tree.store.log import Entry, Head, check_reach, read_entries, read_head
from tree.store.protocol import Looked
from tree.store.scripts import COMMIT, FLIP
from tree.store.survey import recorded, survey

LOG_ENTRIES = 2_000  # a longer log is compacted: an entry costs a reader about two milliseconds
LOG_EDITS_SHARE = 4  # so is one with more than a fourth as many edits as there are items
_SNAPSHOT_TTL_S = 600  # of one that is not yet, or no longer, in place
_CLAIM_TTL_S = 120
_CHUNKS_AT_ONCE = 8  # about 3 MB
_RECORDS_AT_ONCE = 500
_READS = 5

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Known:
    """The newest version that this process has seen."""

    tree: SemanticTree
    token: str


class RedisTreeStore:
    """See TreeStore. One object per catalogue and process; the caller owns and closes `client`.

    `client` must answer in bytes. `space` and `settings` are those of a catalogue that was never
    written; a stored one brings its own.
    """

    def __init__(
        self,
        client: Redis,
        catalog: str,
        *,
        space: Space,
        settings: TreeSettings = TreeSettings(),  # noqa: B008
        prefix: str = DEFAULT_PREFIX,
    ) -> None:
        self._client = client
        self._keys = CatalogKeys(catalog, prefix)
        self._space = space
        self._settings = settings
        self._commit = client.register_script(COMMIT)
        self._flip = client.register_script(FLIP)
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

    @translated()
    async def commit(self, edits: Sequence[Edit], *, base: int) -> SemanticTree:
        """See TreeStore. One script; when its answer is lost, the next `load` finds out."""
        async with self._lock:
            known = await self._at(base)
            pending = known.tree.prepare(edits)
            try:
                if not known.token:
                    known = await self._created(known)
                token = token_hex(8)
                since_snapshot = await self._append(edits, known, token)
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

    @translated()
    async def replace(self, tree: SemanticTree, *, base: int) -> SemanticTree:
        """See TreeStore. Commits go on during the upload; the last step takes the lock."""
        async with self._lock:
            known = await self._at(base)
        fresh = await asyncio.to_thread(tree.at_version, base + 1)
        token = token_hex(8)
        generation = await self._upload(fresh, token)
        async with self._lock:
            head = await self._head()
            if not await self._flipped(head, generation, fresh, base=known.token, token=token):
                raise StaleVersion(f"version {base} was overtaken while the new tree was written")
            self._known = _Known(fresh, token)
        async for ids in self.staged():
            placed = [item_id for item_id in ids if item_id in fresh]
            if placed:
                await self._client.srem(self._keys.staged, *placed)
        return fresh

    @translated()
    async def compact(self) -> None:
        """See TreeStore. The log keeps the entries since the snapshot before, for `changes`."""
        head = await self._head()  # first: while its generation stays, the tree descends from it
        async with self._lock:
            known = await self._refresh()
        if not known.token or head.snapshot >= known.tree.version:
            return
        generation = await self._upload(known.tree, known.token)
        await self._flipped(head, generation, known.tree, base="*", token="")

    @translated()
    async def changes(self, *, since: int) -> list[Edit]:
        """See TreeStore."""
        head = await self._head()
        entries = [entry async for entry in self._entries(since, head.version)]
        if len(entries) != head.version - since:
            raise StaleVersion(f"the log no longer reaches back to version {since}")
        return [edit for entry in entries for edit in wire.read_edits(entry.version, entry.edits)]

    @translated()
    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """See TreeStore."""
        found: dict[str, Item] = {}
        async for records in self._records(ids):
            found |= self._reader.items(records)
        return found

    @translated()
    async def flaws(self, ids: Collection[str]) -> dict[str, str]:
        """See TreeStore."""
        found: dict[str, str] = {}
        async for records in self._records(ids):
            found |= wire.record_flaws(records)
        return found

    async def _records(self, ids: Collection[str]) -> AsyncIterator[dict[str, bytes | None]]:
        for batch in _batched(iter(ids), _RECORDS_AT_ONCE):
            records = await self._client.mget([self._keys.item(item_id) for item_id in batch])
            yield dict(zip(batch, cast(list[bytes | None], records), strict=True))

    def survey(self) -> AsyncIterator[Looked]:
        """See TreeStore."""
        return survey(self._client, self._keys, self)

    def recorded(self) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        return recorded(self._client, self._keys)

    @translated()
    async def stage(self, items: Sequence[Item]) -> None:
        """See TreeStore."""
        for batch in _batched(iter(items), _RECORDS_AT_ONCE):
            async with self._client.pipeline(transaction=True) as pipeline:
                for item in batch:
                    pipeline.set(self._keys.item(item.id), wire.pack_item(item))
                pipeline.sadd(self._keys.staged, *(item.id for item in batch))
                await pipeline.execute()

    async def staged(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """See TreeStore."""
        cursor = 0
        while True:
            async with translated():
                cursor, page = await self._client.sscan(self._keys.staged, cursor, count=batch)
            for ids in _batched(iter(page), batch):
                yield [cast(bytes, item_id).decode(errors="replace") for item_id in ids]
            if not cursor:
                return

    @translated()
    async def drop(self) -> None:
        """See TreeStore. A drop that was cut short leaves an empty catalogue; call it again."""
        keys = self._keys
        async with self._lock:
            await self._client.unlink(keys.head, keys.log, keys.staged)
            self._known = None
        doomed: list[bytes] = []
        async for key in self._client.scan_iter(match=keys.pattern, count=_RECORDS_AT_ONCE):
            doomed.append(key)
            if len(doomed) == _RECORDS_AT_ONCE:
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
            known = await self._followed(await self._snapshot(head), head)
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
                known = _Known(known.tree.apply(edits), entry.token)
            except InvalidEdit as error:
                raise CorruptSnapshot(f"log entry {entry.version} does not fit: {error}") from error
            await asyncio.sleep(0)
        return known if known.token == head.token else None

    def _entries(self, after: int, upto: int) -> AsyncIterator[Entry]:
        return read_entries(self._client, self._keys, after=after, upto=upto)

    async def _snapshot(self, head: Head) -> _Known:
        key = self._keys.snapshot(head.generation)
        packed, token = await self._fields(key, ["header", "token"])
        header = wire.read_header(packed)
        if (header.version, header.fingerprint) != (head.snapshot, head.space):
            raise CorruptSnapshot(
                f"the head names snapshot {head.snapshot} in the space {head.space!r}, "
                f"but {header.version} in {header.fingerprint!r} is in its place"
            )
        state = cast(bytes | None, await self._client.get(self._keys.space(header.fingerprint)))
        space = wire.read_space(header, state)
        assembly = wire.Assembly(header)
        for numbers in _batched(iter(range(header.chunks)), _CHUNKS_AT_ONCE):
            chunks = await self._fields(key, list(map(str, numbers)))
            await asyncio.to_thread(assembly.add, chunks)
        return _Known(
            await asyncio.to_thread(assembly.tree, space), (token or b"").decode(errors="replace")
        )

    async def _fields(self, key: str, fields: list[str]) -> list[bytes | None]:
        return cast(list[bytes | None], await self._client.hmget(key, fields))

    # -- writing

    async def _created(self, known: _Known) -> _Known:
        """The catalogue with a first snapshot: its space and settings bind every later reader."""
        token = token_hex(8)
        generation = await self._upload(known.tree, token)
        nothing = Head()
        if not await self._flipped(nothing, generation, known.tree, base="", token=token):
            raise StaleVersion("the catalogue was just created by somebody else")
        return _Known(known.tree, token)

    async def _append(self, edits: Sequence[Edit], known: _Known, token: str) -> tuple[int, int]:
        keys = self._keys
        records = wire.records(edits)
        written = {item_id: record for item_id, record in records.items() if record}
        removed = [item_id for item_id, record in records.items() if record is None]
        version = known.tree.version + 1
        reply = await self._commit(
            keys=[
                keys.head, keys.log, keys.staged,
                *map(keys.item, written), *map(keys.item, removed),
            ],
            args=[
                known.token, token, version, wire.pack_edits(edits), len(edits),
                len(written), *written.values(), *records,
            ],
        )  # fmt: skip
        if reply is None:
            raise StaleVersion(f"version {known.tree.version} is not the newest")
        edits_since, versions_since = cast(list[int], reply)
        return edits_since, versions_since

    async def _upload(self, tree: SemanticTree, token: str) -> str:
        """Write a snapshot that nobody reads yet and that vanishes if nobody ever does."""
        generation = token_hex(8)
        key = self._keys.snapshot(generation)
        header, chunks = await asyncio.to_thread(wire.encode, tree)
        numbered = enumerate(chunks)
        fields: dict[FieldT, EncodableT] = {
            "header": wire.pack_header(header),
            "token": token.encode(),
        }
        while fields:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, mapping=fields)
                pipeline.expire(key, _SNAPSHOT_TTL_S)
                await pipeline.execute()
            fields = await asyncio.to_thread(_next_chunks, numbered)
        state = await asyncio.to_thread(wire.pack_space, tree.space)
        space = self._keys.space(header.fingerprint)
        await self._client.set(space, state, nx=True, ex=_SNAPSHOT_TTL_S)
        return generation

    async def _flipped(
        self, head: Head, generation: str, tree: SemanticTree, *, base: str, token: str
    ) -> bool:
        """Put an uploaded snapshot in the place of `head`'s; False when that is gone."""
        keys = self._keys
        fingerprint = tree.space.fingerprint
        replaced = [keys.snapshot(head.generation)] if head.generation else []
        if head.space not in ("", fingerprint):
            replaced.append(keys.space(head.space))
        oldest = tree.version if token else head.snapshot + 1
        reply = await self._flip(
            keys=[
                keys.head, keys.log, keys.snapshot(generation), keys.space(fingerprint), *replaced
            ],
            args=[
                head.generation, base, generation, fingerprint, tree.version, token, oldest,
                _SNAPSHOT_TTL_S,
            ],
        )  # fmt: skip
        if reply != 1:
            await self._client.unlink(keys.snapshot(generation))
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


def _next_chunks(numbered: Iterator[tuple[int, bytes]]) -> dict[FieldT, EncodableT]:
    return {str(number): chunk for number, chunk in islice(numbered, _CHUNKS_AT_ONCE)}


def _batched(values: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while batch := list(islice(values, size)):
        yield batch
