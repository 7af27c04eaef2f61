"""`FeedbackScan`: what is stored of the users of one catalogue, in batches, by one SCAN."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, cast

from redis.asyncio import Redis

from app.storage.feedback import FeedbackEntry, ItemNeighbours, User, UserEntry
from app.storage.keys import FeedbackKeys
from tree.redis.connection import translated

_KEYS_AT_ONCE = 1_000  # of one step of a SCAN
_READ_AT_ONCE = 50  # lists of neighbours, or users: a full one takes the server 0.1 ms

_Entry = TypeVar("_Entry")
_ReadPage = Callable[[Sequence[str]], Awaitable[Sequence[_Entry]]]


class FeedbackScan:
    """Reads all neighbours and users. Keys that are written meanwhile may be left out."""

    def __init__(
        self,
        client: Redis,
        keys: FeedbackKeys,
        read_users: Callable[[Sequence[str]], Awaitable[Mapping[str, User]]],
    ) -> None:
        """`read_users` gives the users of some ids, without those of whom nothing is stored."""
        self._client = client
        self._keys = keys
        self._read_users = read_users

    def entries(self) -> AsyncIterator[Sequence[FeedbackEntry]]:
        """The neighbours of all items, and all users; an entry may come twice."""
        by_stem: dict[str, _ReadPage[FeedbackEntry]] = {
            self._keys.neighbours(""): self._paired,
            self._keys.history(""): self._known,
            self._keys.facts(""): self._without_history,
        }
        return self._read(by_stem)

    async def users(self) -> AsyncIterator[Sequence[UserEntry]]:
        """All users, each once."""
        by_stem: dict[str, _ReadPage[UserEntry]] = {
            self._keys.history(""): self._known,
            self._keys.facts(""): self._without_history,
        }
        seen: set[int] = set()  # hashes: a SCAN may give a key twice
        async for page in self._read(by_stem):
            new = [entry for entry in page if hash(entry.user_id) not in seen]
            seen.update(hash(entry.user_id) for entry in new)
            yield new

    async def _read(
        self, by_stem: Mapping[str, _ReadPage[_Entry]]
    ) -> AsyncIterator[Sequence[_Entry]]:
        found: dict[str, list[str]] = {stem: [] for stem in by_stem}
        keys = self._client.scan_iter(match=self._keys.pattern, count=_KEYS_AT_ONCE)
        async with translated():
            async for key in keys:
                name = cast(bytes, key).decode(errors="replace")
                for stem, ids in found.items():
                    if name.startswith(stem):
                        ids.append(name.removeprefix(stem))
                        if len(ids) == _READ_AT_ONCE:
                            yield await by_stem[stem](ids)
                            ids.clear()
            for stem, ids in found.items():
                if ids:
                    yield await by_stem[stem](ids)

    async def _paired(self, items: Sequence[str]) -> Sequence[ItemNeighbours]:
        pipeline = self._client.pipeline()
        for item in items:
            pipeline.zrange(self._keys.neighbours(item), 0, -1, withscores=True)
        lists = cast(list[list[tuple[bytes, float]]], await pipeline.execute())
        return [
            ItemNeighbours(item, {name.decode(): score for name, score in near})
            for item, near in zip(items, lists, strict=True)
            if near
        ]

    async def _known(self, ids: Sequence[str]) -> Sequence[UserEntry]:
        users = await self._read_users(ids)
        return [UserEntry(user_id, user) for user_id, user in users.items()]

    async def _without_history(self, ids: Sequence[str]) -> Sequence[UserEntry]:
        """Users with a history are found by its key."""
        return [entry for entry in await self._known(ids) if not entry.user.history]
