"""`Snapshots`: whole versions of one catalogue in the store, written and read a few chunks at once.

A snapshot is found by its generation, a random name. It vanishes unless the head of the catalogue
comes to name it.
"""

import asyncio
from collections.abc import Iterator
from itertools import islice
from secrets import token_hex
from typing import cast

import msgspec
from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from tree.errors import CorruptSnapshot
from tree.snapshot import SemanticTree
from tree.store import wire
from tree.store.head import Head
from tree.store.keys import CatalogKeys

_UPLOAD_S = 600  # until it must be in its place
_CHUNKS_AT_ONCE = 8  # about 3 MB


class Snapshots:
    """See the module. Raises the errors of the client, which the caller translates."""

    def __init__(self, client: Redis, keys: CatalogKeys) -> None:
        self._client = client
        self._keys = keys

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

    async def discard(self, generation: str) -> None:
        """Remove one that did not come to its place."""
        await self._client.unlink(self._keys.snapshot(generation))

    async def _fields(self, key: str, fields: list[str]) -> list[bytes | None]:
        return cast(list[bytes | None], await self._client.hmget(key, fields))


def _next_chunks(numbered: Iterator[tuple[int, bytes]]) -> dict[FieldT, EncodableT]:
    return {str(number): chunk for number, chunk in islice(numbered, _CHUNKS_AT_ONCE)}
