"""`Keyring`: the keys of the service, held in memory and kept up to date."""

import asyncio
import hmac
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
from pydantic import SecretStr

from app.keys.key import ROOT, Caller, Key, digest_of, id_in
from app.storage.audit import RedisAudit
from app.storage.documents import Documents
from app.storage.key_usage import Allowance, RedisKeyUsage
from tree.errors import CorruptSnapshot, StoreBusy, StoreUnavailable, StoreUnreachable

logger = logging.getLogger(__name__)

MOST_KEYS = 10_000
_POLL_S = 0.4  # how often a process checks for changes of keys
_TRUSTED_S = 1.0  # how long the keys in memory count as current
_STORE_S = 0.5  # how long a request waits for a silent store
_AUDIT_S = 2.0
_UNKNOWN_S = 0.1  # how often it checks the store because of unknown keys
_READ_ONE_BY_ONE = 20
_NO_DIGEST = bytes(32)


class TooManyKeys(Exception):
    """The service has the maximum number of keys."""

    def __init__(self) -> None:
        super().__init__(f"there are {MOST_KEYS:,} keys: revoke some before you create others")


class Keyring:
    """Every key, in memory, so that most requests do not read the store.

    A key that any process creates or revokes takes effect here within `_TRUSTED_S`. While the
    store does not answer, the known keys are accepted for `unseen_s`, and after that only the root
    key, because a revocation could be missed. A flood of unknown keys costs the store one check
    per `_UNKNOWN_S`, which all their requests share.
    """

    def __init__(
        self,
        documents: Documents,
        usage: RedisKeyUsage,
        audit: RedisAudit,
        root: SecretStr | None,
        *,
        unseen_s: float = 10.0,
    ) -> None:
        """`unseen_s`: how long known keys are accepted while the store does not answer."""
        self.usage = usage
        self.audit = audit
        self._documents = documents
        self._root = None if root is None else digest_of(root.get_secret_value())
        self._unseen_s = unseen_s
        self._keys: dict[str, Key] = {}
        self._unreadable: frozenset[str] = frozenset()
        self._origins: Mapping[str, frozenset[str]] = {}  # ids of keys
        self._known_at = float("-inf")  # when the last successful check began
        self._tried_at = float("-inf")
        self._checking = asyncio.Lock()
        self._silent = False

    @property
    def enabled(self) -> bool:
        """Whether requests need a key."""
        return self._root is not None

    async def follow(self) -> None:
        """Follow the changes of other processes, until cancelled."""
        while True:
            try:
                await self._newer_than(time.monotonic())
                self._silent = False
            except StoreUnavailable as error:
                if not self._silent:
                    self._silent = True
                    logger.warning("changes of keys cannot be read: %s", error)
            await asyncio.sleep(_POLL_S)

    async def caller(self, token: str) -> Caller | None:
        """The holder of this key; None when it is unknown, revoked or expired.

        An unknown id and a wrong secret take the same steps: both check the store for new keys.
        Raises StoreUnavailable when the keys in memory are too old.
        """
        digest = digest_of(token)
        if self._root is not None and hmac.compare_digest(digest, self._root):
            return ROOT
        key_id = id_in(token)
        if key_id is None:
            return None
        await self._current()
        key = self._matching(key_id, digest)
        if key is None:
            await self._check_unknown()
            key = self._matching(key_id, digest)
        return None if key is None else Caller(key.id, key.name, key)

    def _matching(self, key_id: str, digest: bytes) -> Key | None:
        key = self._keys.get(key_id)
        same = hmac.compare_digest(digest, _NO_DIGEST if key is None else key.digest)
        return key if key is not None and same and not key.expired else None

    def holds(self, caller: Caller) -> bool:
        """Whether a caller's key is still valid, as far as this process knows."""
        if caller.key is None:
            return True
        return caller.id in self._keys and not caller.key.expired

    def allows_origin(self, origin: str) -> bool:
        """Whether some key is for web pages of this origin."""
        ids = self._origins.get(origin, frozenset())
        return any(not self._keys[one].expired for one in ids)

    async def all(self) -> list[Key]:
        """Every key, expired ones included, the oldest first. Raises StoreUnavailable."""
        await self._newer_than(time.monotonic())
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    async def add(self, key: Key) -> None:
        """Store a key. Raises TooManyKeys, StoreUnavailable."""
        if len(await self.all()) >= MOST_KEYS:
            raise TooManyKeys
        await self._documents.put("key", key.id, msgspec.json.encode(key), None)
        await self._newer_than(time.monotonic())

    async def revoke(self, key_id: str) -> bool:
        """Remove a key; False when there is none of this id. Raises StoreUnavailable."""
        removed = await self._documents.delete("key", key_id)
        await self._newer_than(time.monotonic())
        return removed

    async def count(self, key: Key, requests: int = 1) -> Allowance | None:
        """Count requests, all or none; None when the key has no rate, or the store cannot count.

        A store that is known to be silent, or full, refuses no request: rates are for fairness.
        Any other delay is waited for, because it may be caused by the very crowd that the rate
        limits. Raises StoreBusy.
        """
        if key.rate_per_minute is None:
            return None
        # With 900 requests at once an idle store seemed silent for 0.5 s (2026-12-01).
        try:
            async with asyncio.timeout(_STORE_S if self._silent else None):
                return await self.usage.count(key.id, key.rate_per_minute, requests)
        except TimeoutError:
            reason = "the store is silent"
        except StoreBusy as error:
            if not self._silent:
                raise
            reason = str(error)
        except StoreUnavailable as error:
            reason = str(error)
        logger.warning("requests are not counted: %s", reason)
        return None

    async def record(
        self, act: str, caller: Caller, target: Mapping[str, object], address: str | None = None
    ) -> None:
        """Add an entry to the audit log; a failure is only logged, as the act is done.

        `target` must not contain secrets.
        """
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "act": act,
            "key_id": caller.id or None,
            "key_name": caller.name,
            "from": address,
            "target": target,
        }
        try:
            async with asyncio.timeout(_AUDIT_S):
                await self.audit.record(entry, by_admin=caller.may("admin"))
        except (TimeoutError, StoreUnavailable) as error:
            logger.error("not in the audit log: %s (%s)", entry, error)

    async def _current(self) -> None:
        """Raises StoreUnavailable when the keys in memory are too old to be used."""
        now = time.monotonic()
        if now - self._known_at < _TRUSTED_S:
            return
        try:
            async with asyncio.timeout(_STORE_S):
                await self._newer_than(now)
        except (TimeoutError, StoreUnavailable) as error:
            if now - self._known_at >= self._unseen_s:
                raise _unavailable(error) from error

    async def _check_unknown(self) -> None:
        arrived = time.monotonic()
        try:
            async with asyncio.timeout(_STORE_S):
                await asyncio.sleep(self._tried_at + _UNKNOWN_S - arrived)
                await self._newer_than(arrived)
        except (TimeoutError, StoreUnavailable) as error:
            raise _unavailable(error) from error

    async def _newer_than(self, moment: float) -> None:
        """Read all changes before `moment`; concurrent callers share one check of the store."""
        async with self._checking:
            if self._tried_at < moment:
                self._tried_at = time.monotonic()
                await self._check()
            elif self._known_at < moment:
                raise StoreUnreachable("the store has just not answered: try again in a moment")

    async def _check(self) -> None:
        """Read the new keys and drop the removed ones; keys never change."""
        began = time.monotonic()
        ids = frozenset(await self._documents.ids("key"))
        if ids - self._unreadable != self._keys.keys():
            keys = {key_id: key for key_id, key in self._keys.items() if key_id in ids}
            new = ids - keys.keys()
            if len(new) <= _READ_ONE_BY_ONE:
                read = {key_id: await self._read(key_id) for key_id in new}
            else:
                every = [pair async for pair in self._documents.list("key")]
                read = {key_id: _decoded(key_id, data) for key_id, data in every if key_id in new}
            keys |= {key_id: key for key_id, key in read.items() if key is not None}
            self._keys, self._unreadable = keys, ids - keys.keys()
            self._origins = _by_origin(keys.values())
        self._known_at = began

    async def _read(self, key_id: str) -> Key | None:
        try:
            data = await self._documents.get("key", key_id)
        except CorruptSnapshot as error:
            logger.error("%s: it is not accepted; revoke it", error)
            return None
        return None if data is None else _decoded(key_id, data)


def _unavailable(error: Exception) -> StoreUnavailable:
    if isinstance(error, StoreUnavailable):
        return error
    return StoreUnreachable("the store does not answer which keys are valid: try again in a moment")


def _decoded(key_id: str, data: bytes) -> Key | None:
    try:
        return msgspec.json.decode(data, type=Key)
    except msgspec.MsgspecError as error:  # written by another version of this service
        logger.error("the key %s cannot be read, and is not accepted: %s", key_id, error)
        return None


def _by_origin(keys: Iterable[Key]) -> Mapping[str, frozenset[str]]:
    ids: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        for origin in key.origins:
            ids[origin].add(key.id)
    return {origin: frozenset(some) for origin, some in ids.items()}
