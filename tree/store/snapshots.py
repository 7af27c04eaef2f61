"""`Snapshots`: whole versions of one catalogue in the store, written and read a few chunks at once.

A snapshot has a random name, its generation. It expires unless it is published: one script writes
its name into the head of the catalogue, so that all processes load the old snapshot or the new one.
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
from tree.store import encoding
from tree.store.head import Head, KeptVersion, generations, pack_versions, spaces
from tree.store.keys import CatalogKeys
from tree.store.log import Entry
from tree.store.scripts import PUBLISH_SNAPSHOT

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
        self._script = PUBLISH_SNAPSHOT.on(client)

    async def write(self, tree: SemanticTree, token: str) -> str:
        """Write a snapshot without publishing it; its generation."""
        generation = token_hex(8)
        key = self._keys.snapshot(generation)
        header, chunks = await asyncio.to_thread(encoding.encode_tree, tree)
        numbered = enumerate(chunks)
        fields: dict[FieldT, EncodableT] = {
            "header": encoding.pack_header(header),
            "token": token.encode(),
        }
        while fields:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, mapping=fields)
                pipeline.expire(key, _UPLOAD_S)
                await pipeline.execute()
            fields = await asyncio.to_thread(_next_chunks, numbered)
        state = await asyncio.to_thread(encoding.pack_space, tree.space)
        space = self._keys.space(header.fingerprint)
        await self._client.set(space, state, nx=True, ex=_UPLOAD_S)
        return generation

    async def renumber(self, generation: str, version: int) -> None:
        """Give a snapshot that is not published yet another version."""
        key = self._keys.snapshot(generation)
        (packed,) = await self._fields(key, ["header"])
        header = msgspec.structs.replace(encoding.read_header(packed), version=version)
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hset(key, "header", encoding.pack_header(header))
            pipeline.expire(key, _UPLOAD_S)  # in case it expired in between
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
        header = encoding.read_header(packed)
        if header.fingerprint != fingerprint:
            raise CorruptSnapshot(
                f"the head names a snapshot in the space {fingerprint!r}, "
                f"but one in {header.fingerprint!r} is in its place"
            )
        state = cast(bytes | None, await self._client.get(self._keys.space(header.fingerprint)))
        space = encoding.read_space(header, state)
        assembly = encoding.Assembly(header)
        for start in range(0, header.chunks, _CHUNKS_AT_ONCE):
            numbers = range(start, min(start + _CHUNKS_AT_ONCE, header.chunks))
            chunks = await self._fields(key, list(map(str, numbers)))
            await asyncio.to_thread(assembly.add, chunks)
        return await asyncio.to_thread(assembly.tree, space), (token or b"").decode(
            errors="replace"
        )

    async def publish(
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
        """Put a snapshot in the place of that of `head`; False when another one is there by now.

        With a `token` the tree is a version of its own, else the one in place, compacted. It is
        that of the snapshot, or the one that an `entry` after it leads to.
        """
        snapshot = entry.version - 1 if entry else tree.version
        fingerprint = tree.space.fingerprint
        if token:
            newest = KeptVersion(
                tree.version, len(tree), time.time(), note, generation, fingerprint
            )
            kept = (newest, *head.versions)[: self._keep]
        else:
            kept = head.compacted(generation)
        oldest = snapshot if token else head.snapshot + 1
        keys = self._keys
        reply = await self._script(
            head=keys.head,
            log=keys.log,
            snapshot=keys.snapshot(generation),
            space=keys.space(fingerprint),
            unneeded=[
                *(keys.snapshot(name) for name in generations(head.versions) - generations(kept)),
                *(keys.space(name) for name in spaces(head.versions) - spaces(kept)),
            ],
            generation_before=head.generation,
            base=base,
            generation=generation,
            fingerprint=fingerprint,
            version=snapshot,
            token=token,
            oldest=oldest,
            leave_s=_leave_s(tree),
            versions=pack_versions(kept),
            edits=(entry and entry.edits) or b"",
            edits_token=entry.token if entry else "",
        )
        if reply == -1:
            raise StoreUnavailable("the upload of a snapshot was lost before its end: try again")
        return bool(reply)

    async def discard(self, generation: str) -> None:
        """Remove a snapshot that was not published."""
        await self._client.unlink(self._keys.snapshot(generation))

    async def _fields(self, key: str, fields: list[str]) -> list[bytes | None]:
        return cast(list[bytes | None], await self._client.hmget(key, fields))


def _leave_s(tree: SemanticTree) -> int:
    """How long a replaced snapshot stays, for processes that are still reading it.

    Not longer, because a busy catalogue is compacted every few seconds.
    """
    return _LEAVE_S + len(tree) // _READ_PER_S


def _next_chunks(numbered: Iterator[tuple[int, bytes]]) -> dict[FieldT, EncodableT]:
    return {str(number): chunk for number, chunk in islice(numbered, _CHUNKS_AT_ONCE)}
