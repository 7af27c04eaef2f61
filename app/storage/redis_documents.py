"""`RedisDocuments`: documents in a store that many processes share."""

import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import cast

from redis.asyncio import Redis

from app.storage.documents import check_ttl
from app.storage.keys import DOCUMENT_KINDS, DocumentKeys, DocumentKind, document_lifetime
from tree.errors import CorruptSnapshot
from tree.redis.checksum import seal, unseal
from tree.redis.connection import translated
from tree.redis.keys import DEFAULT_PREFIX, Lifetime
from tree.redis.script import Script

_log = logging.getLogger(__name__)

_AT_ONCE = 200
_INDEX_SLACK_S = 3_600  # the index goes by the clocks of its writers, which may differ

# Returns whether the document was written.
_PUT = Script(
    """
local options = {}
if ttl_ms ~= '' then options = {'PX', ttl_ms} end
if only_new == '1' then options[#options + 1] = 'NX' end
if not redis.call('SET', document, content, unpack(options)) then return 0 end
redis.call('ZADD', index, ends_at, id)
redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. ended_before)
if ttl_ms ~= '' then
    local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')[2]
    redis.call('EXPIREAT', index, math.ceil(last) + slack_s)
end
return 1
""",
    keys=("document", "index"),
    args=(
        "content",
        "ttl_ms",  # or '' for one that stays
        "only_new",  # 1 to leave the document of that id as it is
        "id",
        "ends_at",  # when the index may forget it
        "ended_before",  # the time before which the index forgets
        "slack_s",  # that the index outlives the last of its documents
    ),
)

_RENEW = Script(
    """
if redis.call('GET', document) ~= content then return 0 end
return redis.call('PEXPIRE', document, ttl_ms)
""",
    keys=("document",),
    args=(
        "content",  # that it must have
        "ttl_ms",
    ),
)

# Removes first: a full server then accepts what it writes.
SWAP = Script(
    """
if redis.call('GET', document) ~= before then return 0 end
redis.call('DEL', document)
redis.call('ZREM', index, id)
if after ~= '' then
    redis.call('SET', document, after)
    redis.call('ZADD', index, '+inf', id)
end
return 1
""",
    keys=("document", "index"),
    args=(
        "id",
        "before",  # the content that it must have
        "after",  # its new content, or '' to remove it
    ),
)


class RedisDocuments:
    """See Documents. The caller owns and closes `client`, which must answer in bytes.

    A sorted set per kind lists its ids: a SCAN for ten jobs would walk over every item record.
    """

    def __init__(self, client: Redis, *, prefix: str = DEFAULT_PREFIX) -> None:
        self._client = client
        self._prefix = prefix
        self._put = _PUT.on(client)
        self._renew = _RENEW.on(client)
        self._swap = SWAP.on(client)

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """See Documents."""
        await self._written(kind, document_id, data, ttl_s, only_new=False)

    async def put_new(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> bool:
        """See Documents."""
        return await self._written(kind, document_id, data, ttl_s, only_new=True)

    @translated()
    async def renew(self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float) -> bool:
        """See Documents."""
        key = DocumentKeys(kind, self._prefix).document(document_id)
        content, ttl_ms = seal(data), _milliseconds(ttl_s)
        return bool(await self._renew(document=key, content=content, ttl_ms=ttl_ms))

    @translated()
    async def swap(
        self, kind: DocumentKind, document_id: str, before: bytes | None, data: bytes | None
    ) -> bool:
        """See Documents."""
        check_ttl(kind, None)
        keys = DocumentKeys(kind, self._prefix)
        key = keys.document(document_id)
        if before is not None:
            stored = seal(before)
        else:
            stored = cast(bytes | None, await self._client.get(key)) or b""
            if not stored or _is_sound(stored):
                return False
        after = b"" if data is None else seal(data)
        swapped = await self._swap(
            document=key, index=keys.index, id=document_id, before=stored, after=after
        )
        return bool(swapped)

    @translated()
    async def get(self, kind: DocumentKind, document_id: str) -> bytes | None:
        """See Documents."""
        key = DocumentKeys(kind, self._prefix).document(document_id)
        return _read(kind, document_id, cast(bytes | None, await self._client.get(key)))

    @translated()
    async def delete(self, kind: DocumentKind, document_id: str) -> bool:
        """See Documents."""
        keys = DocumentKeys(kind, self._prefix)
        # In one step: a document that is put between the two would be in no list.
        pipeline = self._client.pipeline(transaction=True)
        pipeline.unlink(keys.document(document_id))
        pipeline.zrem(keys.index, document_id)
        removed, _ = await pipeline.execute()
        return bool(removed)

    async def list(self, kind: DocumentKind) -> AsyncIterator[tuple[str, bytes]]:
        """See Documents."""
        keys, ids = DocumentKeys(kind, self._prefix), await self.ids(kind)
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

    @translated()
    async def ids(self, kind: DocumentKind) -> Sequence[str]:
        """See Documents."""
        index = DocumentKeys(kind, self._prefix).index
        members = cast(list[bytes], await self._client.zrevrange(index, 0, -1))
        return [member.decode() for member in members]

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
            unseal(data, _named(kind, document_id))
        except CorruptSnapshot as error:
            return [str(error)]
        if await self._client.zscore(keys.index, document_id) is None:
            return [f"{_named(kind, document_id)} is in no list"]
        return []

    @translated()
    async def _written(
        self,
        kind: DocumentKind,
        document_id: str,
        data: bytes,
        ttl_s: float | None,
        *,
        only_new: bool,
    ) -> bool:
        check_ttl(kind, ttl_s)
        keys = DocumentKeys(kind, self._prefix)
        now = time.time()
        written = await self._put(
            document=keys.document(document_id),
            index=keys.index,
            content=seal(data),
            ttl_ms="" if ttl_s is None else _milliseconds(ttl_s),
            only_new=int(only_new),
            id=document_id,
            ends_at="+inf" if ttl_s is None else now + ttl_s,
            ended_before=now - _INDEX_SLACK_S,
            slack_s=_INDEX_SLACK_S,
        )
        return bool(written)


def _milliseconds(ttl_s: float) -> int:
    return max(1, round(ttl_s * 1_000))


def _read(kind: DocumentKind, document_id: str, data: bytes | None) -> bytes | None:
    if data is None:
        return None
    try:
        return unseal(data, _named(kind, document_id))
    except CorruptSnapshot as error:
        if document_lifetime(kind) is Lifetime.PERMANENT:
            raise
        _log.error("%s: it counts as gone", error)
        return None


def _is_sound(data: bytes) -> bool:
    try:
        unseal(data, "")
    except CorruptSnapshot:
        return False
    return True


def _named(kind: DocumentKind, document_id: str) -> str:
    return f"the {kind} document {document_id!r}"
