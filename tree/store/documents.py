"""`Documents`: small JSON documents of the application, most of which expire."""

import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, cast

from redis.asyncio import Redis

from tree.errors import CorruptSnapshot
from tree.store import wire
from tree.store.connection import translated
from tree.store.keys import (
    DEFAULT_PREFIX,
    DOCUMENT_KINDS,
    DocumentKeys,
    DocumentKind,
    Lifetime,
    document_lifetime,
)

_log = logging.getLogger(__name__)

_AT_ONCE = 200
_INDEX_SLACK_S = 3_600  # the index goes by the clocks of its writers, which may differ

# KEYS  document, index
# ARGV  content, milliseconds to live or '', its id, when the index may forget it,
#       the time before which the index forgets, 'NX' or '', seconds that the index outlives
#       the last of its documents
_PUT = """
local options = {}
if ARGV[2] ~= '' then options = {'PX', ARGV[2]} end
if ARGV[6] ~= '' then options[#options + 1] = 'NX' end
if not redis.call('SET', KEYS[1], ARGV[1], unpack(options)) then return 0 end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[5])
if ARGV[2] ~= '' then
    local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
    redis.call('EXPIREAT', KEYS[2], math.ceil(last) + ARGV[7])
end
return 1
"""


# KEYS  document
# ARGV  the content that it must have, milliseconds to live
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


class Documents(Protocol):
    """Documents by kind and id. Those of kind "catalog" stay; the other kinds need a TTL.

    Every method raises StoreUnavailable when the store does not answer, and `put` and `put_new`
    raise ValueError when the TTL does not fit the kind. A damaged document that expires counts as
    gone, which the log tells; of one that stays, `get` and `list` raise CorruptSnapshot.
    """

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """Write a document, in place of the one of that id."""
        ...

    async def put_new(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> bool:
        """Write a document unless there is one of that id; whether it was written."""
        ...

    async def renew(self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float) -> bool:
        """Let a document that holds `data` live on; False when it is gone or holds other data.

        `list` may leave it out once its first time to live is over.
        """
        ...

    async def get(self, kind: DocumentKind, document_id: str) -> bytes | None:
        """The document; None when there is none, or no longer."""
        ...

    async def delete(self, kind: DocumentKind, document_id: str) -> bool:
        """Whether there was one to delete."""
        ...

    def list(self, kind: DocumentKind) -> AsyncIterator[tuple[str, bytes]]:
        """All documents of a kind with their ids, the one to expire last first.

        Damaged ones are left out.
        """
        ...

    def flaws(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """Look at all documents: how many at a time, and what is wrong with them."""
        ...


class RedisDocuments:
    """See Documents. The caller owns and closes `client`, which must answer in bytes.

    A sorted set per kind lists its ids: a SCAN for ten jobs would walk over every item record.
    """

    def __init__(self, client: Redis, *, prefix: str = DEFAULT_PREFIX) -> None:
        self._client = client
        self._prefix = prefix
        self._put = client.register_script(_PUT)
        self._renew = client.register_script(_RENEW)

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """See Documents."""
        await self._written(kind, document_id, data, ttl_s, only="")

    async def put_new(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> bool:
        """See Documents."""
        return await self._written(kind, document_id, data, ttl_s, only="NX")

    @translated()
    async def renew(self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float) -> bool:
        """See Documents."""
        key = DocumentKeys(kind, self._prefix).document(document_id)
        return bool(await self._renew(keys=[key], args=[wire.seal(data), _milliseconds(ttl_s)]))

    @translated()
    async def get(self, kind: DocumentKind, document_id: str) -> bytes | None:
        """See Documents."""
        key = DocumentKeys(kind, self._prefix).document(document_id)
        return _read(kind, document_id, cast(bytes | None, await self._client.get(key)))

    @translated()
    async def delete(self, kind: DocumentKind, document_id: str) -> bool:
        """See Documents."""
        keys = DocumentKeys(kind, self._prefix)
        removed = await self._client.unlink(keys.document(document_id))
        await self._client.zrem(keys.index, document_id)  # `list` passes over one left behind
        return bool(removed)

    async def list(self, kind: DocumentKind) -> AsyncIterator[tuple[str, bytes]]:
        """See Documents."""
        keys = DocumentKeys(kind, self._prefix)
        async with translated():
            members = cast(list[bytes], await self._client.zrevrange(keys.index, 0, -1))
        ids = [member.decode() for member in members]
        for start in range(0, len(ids), _AT_ONCE):
            page = ids[start : start + _AT_ONCE]
            async with translated():
                found = await self._client.mget([keys.document(one) for one in page])
            for document_id, data in zip(page, cast(list[bytes | None], found), strict=True):
                try:
                    body = _read(kind, document_id, data)
                except CorruptSnapshot as error:  # `get` raises it; the others can be listed
                    _log.error("%s: it is left out", error)
                    continue
                if body is not None:
                    yield document_id, body

    async def flaws(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """See Documents. One SCAN: the index may be what is damaged."""
        indices = {kind: DocumentKeys(kind, self._prefix) for kind in DOCUMENT_KINDS}
        pages = self._client.scan_iter(match=DocumentKeys.pattern(self._prefix), count=1_000)
        async with translated():
            async for name in pages:
                key = cast(bytes, name).decode(errors="replace")
                kind = next((k for k, keys in indices.items() if keys.holds(key)), None)
                if kind is not None:
                    yield 1, await self._flaws_of(kind, indices[kind].id_of(key))

        for kind in DOCUMENT_KINDS:
            if document_lifetime(kind) is Lifetime.PERMANENT:
                yield 0, await self._missing(kind)

    async def _missing(self, kind: DocumentKind) -> Sequence[str]:
        keys = DocumentKeys(kind, self._prefix)
        async with translated():
            listed = cast(list[bytes], await self._client.zrange(keys.index, 0, -1))
            ids = [member.decode(errors="replace") for member in listed]
            return [
                f"{_named(kind, one)} is missing"
                for one in ids
                if not await self._client.exists(keys.document(one))
            ]

    async def _flaws_of(self, kind: DocumentKind, document_id: str) -> Sequence[str]:
        keys = DocumentKeys(kind, self._prefix)
        data = cast(bytes | None, await self._client.get(keys.document(document_id)))
        if data is None:  # expired since
            return []
        try:
            wire.unseal(data, _named(kind, document_id))
        except CorruptSnapshot as error:
            return [str(error)]
        if await self._client.zscore(keys.index, document_id) is None:
            return [f"{_named(kind, document_id)} is in no list"]
        return []

    @translated()
    async def _written(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None, *, only: str
    ) -> bool:
        _check_ttl(kind, ttl_s)
        keys = DocumentKeys(kind, self._prefix)
        now = time.time()
        written = await self._put(
            keys=[keys.document(document_id), keys.index],
            args=[
                wire.seal(data),
                "" if ttl_s is None else _milliseconds(ttl_s),
                document_id,
                "+inf" if ttl_s is None else now + ttl_s,
                now - _INDEX_SLACK_S,
                only,
                _INDEX_SLACK_S,
            ],
        )
        return bool(written)


class MemoryDocuments:
    """See Documents. Gone with the process."""

    def __init__(self) -> None:
        self._kept: dict[tuple[DocumentKind, str], tuple[float, bytes]] = {}

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """See Documents."""
        _check_ttl(kind, ttl_s)
        expires_at = float("inf") if ttl_s is None else time.monotonic() + ttl_s
        self._kept[kind, document_id] = expires_at, data

    async def put_new(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> bool:
        """See Documents."""
        _check_ttl(kind, ttl_s)
        if await self.get(kind, document_id) is not None:
            return False
        await self.put(kind, document_id, data, ttl_s)
        return True

    async def renew(self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float) -> bool:
        """See Documents."""
        if await self.get(kind, document_id) != data:
            return False
        await self.put(kind, document_id, data, ttl_s)
        return True

    async def get(self, kind: DocumentKind, document_id: str) -> bytes | None:
        """See Documents."""
        self._forget()
        _, data = self._kept.get((kind, document_id), (0.0, None))
        return data

    async def delete(self, kind: DocumentKind, document_id: str) -> bool:
        """See Documents."""
        self._forget()
        return self._kept.pop((kind, document_id), None) is not None

    async def list(self, kind: DocumentKind) -> AsyncIterator[tuple[str, bytes]]:
        """See Documents."""
        self._forget()
        latest = sorted(self._kept.items(), key=lambda entry: entry[1][0], reverse=True)
        for (its_kind, document_id), (_, data) in latest:
            if its_kind == kind:
                yield document_id, data

    async def flaws(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """See Documents. Memory is not damaged."""
        yield len(self._kept), []

    def _forget(self) -> None:
        now = time.monotonic()
        self._kept = {name: entry for name, entry in self._kept.items() if entry[0] > now}


def _milliseconds(ttl_s: float) -> int:
    return max(1, round(ttl_s * 1_000))


def _read(kind: DocumentKind, document_id: str, data: bytes | None) -> bytes | None:
    if data is None:
        return None
    try:
        return wire.unseal(data, _named(kind, document_id))
    except CorruptSnapshot as error:
        if document_lifetime(kind) is Lifetime.PERMANENT:
            raise
        _log.error("%s: it counts as gone", error)
        return None


def _named(kind: DocumentKind, document_id: str) -> str:
    return f"the {kind} document {document_id!r}"


def _check_ttl(kind: DocumentKind, ttl_s: float | None) -> None:
    stays = document_lifetime(kind) is Lifetime.PERMANENT
    if stays and ttl_s is not None:
        raise ValueError(f"documents of kind {kind!r} stay: they take no TTL")
    if not stays and (ttl_s is None or ttl_s <= 0):
        raise ValueError(f"documents of kind {kind!r} need a TTL above 0 seconds")
