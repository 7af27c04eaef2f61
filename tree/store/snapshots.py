"""`Snapshots`: whole versions of one catalogue in the store, written and read a few chunks at once.

A snapshot is found by its generation, a random name. It vanishes unless the head of the catalogue
comes to name it, which is one script: readers have the one before or this one.
"""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice
from secrets import token_hex
from typing import cast

import msgspec
from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.head import Head, Kept, generations, pack_versions, spaces
from tree.store.keys import CatalogKeys
from tree.store.log import Entry
from tree.store.scripts import FLIP

_UPLOAD_S = 600  # until it must be in its place
_CHUNKS_AT_ONCE = 8  # about 3 MB
_LEAVE_S = 60
_READ_PER_S = 20_000  # items of a snapshot, at least


class Snapshots:
    """See the module. Raises the errors of the client, which the caller translates.

    `keep` published versions stay, the newest included.
    """

    def __init__(self, client: Redis, keys: CatalogKeys, keep: int) -> None:
        self._client = client
        self._keys = keys
        self._keep = keep
        self._script = client.register_script(FLIP)

    async def write(self, tree: SemanticTree, token: str) -> str:
        """The generation of a snapshot that nobody reads yet."""
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
                pipeline.expire(key, _UPLOAD_S)
                await pipeline.execute()
            fields = await asyncio.to_thread(_next_chunks, numbered)
        state = await asyncio.to_thread(wire.pack_space, tree.space)
        space = self._keys.space(header.fingerprint)
        await self._client.set(space, state, nx=True, ex=_UPLOAD_S)
        return generation

    async def renumber(self, generation: str, version: int) -> None:
        """Give a snapshot that nobody reads yet another version."""
        key = self._keys.snapshot(generation)
        (packed,) = await self._fields(key, ["header"])
        header = msgspec.structs.replace(wire.read_header(packed), version=version)
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hset(key, "header", wire.pack_header(header))
            pipeline.expire(key, _UPLOAD_S)  # should it have vanished in between
            await pipeline.execute()

    async def of(self, head: Head) -> tuple[SemanticTree, str]:
        """The snapshot in place, and the token of its version. Raises CorruptSnapshot."""
        tree, token = await self.read(head.generation, head.space)
        if tree.version != head.snapshot:
            raise CorruptSnapshot(
                f"the head names snapshot {head.snapshot}, but {tree.version} is in its place"
            )
        return tree, token

    async def read(self, generation: str, fingerprint: str) -> tuple[SemanticTree, str]:
        """A tree in the space of that fingerprint, and its token. Raises CorruptSnapshot."""
        key = self._keys.snapshot(generation)
        packed, token = await self._fields(key, ["header", "token"])
        header = wire.read_header(packed)
        if header.fingerprint != fingerprint:
            raise CorruptSnapshot(
                f"the head names a snapshot in the space {fingerprint!r}, "
                f"but one in {header.fingerprint!r} is in its place"
            )
        state = cast(bytes | None, await self._client.get(self._keys.space(header.fingerprint)))
        space = wire.read_space(header, state)
        assembly = wire.Assembly(header)
        for start in range(0, header.chunks, _CHUNKS_AT_ONCE):
            numbers = range(start, min(start + _CHUNKS_AT_ONCE, header.chunks))
            chunks = await self._fields(key, list(map(str, numbers)))
            await asyncio.to_thread(assembly.add, chunks)
        return await asyncio.to_thread(assembly.tree, space), (token or b"").decode(
            errors="replace"
        )

    async def flip(
        self,
        head: Head,
        generation: str,
        tree: SemanticTree,
        *,
        base: str,
        token: str = "",
        note: str = "",
        entry: Entry | None = None,
    ) -> bool:
        """Put a snapshot in the place of `head`'s; False when that is gone.

        With a `token` the tree is a version of its own, else the one in place, compacted. It is
        that of the snapshot, or the one that an `entry` after it leads to.
        """
        snapshot = entry.version - 1 if entry else tree.version
        fingerprint = tree.space.fingerprint
        if token:
            newest = Kept(tree.version, len(tree), time.time(), note, generation, fingerprint)
            kept = (newest, *head.versions)[: self._keep]
        else:
            kept = head.compacted(generation)
        oldest = snapshot if token else head.snapshot + 1
        keys = self._keys
        reply = await self._script(
            keys=[
                keys.head, keys.log, keys.snapshot(generation), keys.space(fingerprint),
                *(keys.snapshot(name) for name in generations(head.versions) - generations(kept)),
                *(keys.space(name) for name in spaces(head.versions) - spaces(kept)),
            ],
            args=[
                head.generation, base, generation, fingerprint, snapshot, token, oldest,
                _leave_s(tree), pack_versions(kept),
                *((entry.edits or b"", entry.token) if entry else (b"", "")),
            ],
        )  # fmt: skip
        if reply == -1:
            raise StoreUnavailable("the upload of a snapshot was lost before its end: try again")
        return bool(reply)

    async def discard(self, generation: str) -> None:
        """Remove one that did not come to its place."""
        await self._client.unlink(self._keys.snapshot(generation))

    async def _fields(self, key: str, fields: list[str]) -> list[bytes | None]:
        return cast(list[bytes | None], await self._client.hmget(key, fields))


def _leave_s(tree: SemanticTree) -> int:
    """How long a snapshot stays for those who read it when another takes its place.

    Not longer than that: a busy catalogue is compacted every few seconds.
    """
    return _LEAVE_S + len(tree) // _READ_PER_S


def _next_chunks(numbered: Iterator[tuple[int, bytes]]) -> dict[FieldT, EncodableT]:
    return {str(number): chunk for number, chunk in islice(numbered, _CHUNKS_AT_ONCE)}
