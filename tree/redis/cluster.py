"""`ClusterRedis`: the client of a Redis Cluster, with the interface of a client of one server.

redis-py has a cluster client, too. Under load on three nodes (8.1.0, 2026-11-21) it closed the
connections of requests under way whenever it read the layout again, so that one dead node failed
requests to healthy ones and slowed them tenfold; it sends ASKING over another connection than its
command; and it runs a thread with an event loop for every command of a transaction. We need less:
every command of ours goes to one slot. So each node has redis-py's client of one server, and this
class finds the node.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisClusterException,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)
from redis.typing import EncodableT, PatternT

from tree.redis.pool import PoolFull

Address: TypeAlias = tuple[str, int]

_ATTEMPTS = 16
_PAUSE_S = 0.05  # 16 of them are as long as a lost connection is tried again
_AFTER_NAME = 1
_AFTER_SCRIPT = 3  # EVALSHA, the script, the number of keys, the first key
_NODE_COMMANDS = frozenset(
    {"INFO", "CONFIG", "SCAN", "DBSIZE", "FLUSHALL", "FLUSHDB", "CLIENT", "CLUSTER", "PING"}
)

_T = TypeVar("_T")


class ClusterRedis(Redis):
    """Every command and pipeline goes to the node that serves the slot of its first key.

    It follows slots that move and replicas that take over. The keys of one command must share a
    slot. A lost node fails only commands for its own slots. Scripts are loaded on all nodes, and
    `scan_iter` reads all of them where it has to. Commands for one node (INFO, CONFIG) are for
    `primaries`.
    """

    def __init__(self, seeds: Iterable[Address], node: Callable[[Address], Redis]) -> None:
        """`seeds` are nodes that know the layout; `node` makes the client of any node."""
        self._make = node
        self._nodes = {address: node(address) for address in seeds}
        self._owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._layouts = 0  # that were read
        self._reading = asyncio.Lock()
        super().__init__(connection_pool=next(iter(self._nodes.values())).connection_pool)

    async def execute_command(self, *args: EncodableT, **options: object) -> Any:  # noqa: ANN401
        """The answer of the node that serves the first key."""
        name = str(args[0]).upper()
        if name == "SCRIPT LOAD":
            return await self._everywhere(args, options)
        if name.partition(" ")[0] in _NODE_COMMANDS:
            raise RedisClusterException(f"{name} concerns one node: ask it of `primaries`")

        async def ask(node: Redis) -> object:
            try:
                return await node.execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except MovedError:
                raise
            except AskError as elsewhere:
                return await self._asking(elsewhere, args, options)

        return await self.routed(_slot(args), ask)

    def pipeline(
        self,
        transaction: bool = True,
        shard_hint: str | None = None,  # noqa: ARG002 - redis-py's signature
    ) -> "Pipeline":
        """A pipeline whose keys share a slot."""
        return _SlotPipeline(self, transaction)

    async def scan_iter(  # type: ignore[override]
        self,
        match: PatternT | None = None,
        count: int | None = None,
        _type: str | None = None,
        **kwargs: object,
    ) -> AsyncIterator[Any]:
        """The keys that match, of one node where the pattern has a hash tag, else of all."""
        slot = _slot_of_all(match)
        if slot is None:
            for _, node in await self.primaries():
                async for key in node.scan_iter(match, count, _type, **kwargs):
                    yield key
            return
        scanned: Address | None = None
        while True:
            await self._read_layout()
            owner = self._owners[slot]
            if owner == scanned:
                return  # the keys did not move while they were read
            scanned = owner
            async for key in self._owner(slot)[1].scan_iter(match, count, _type, **kwargs):
                yield key

    async def primaries(self) -> list[tuple[str, Redis]]:
        """Every node that serves slots, by address."""
        await self._read_layout()
        owners = sorted({owner for owner in self._owners if owner})
        return [(f"{host}:{port}", self._node((host, port))) for host, port in owners]

    async def routed(self, slot: int, act: Callable[[Redis], Awaitable[_T]]) -> _T:
        """The result of `act` on the node that serves `slot`, also when the slot moves."""
        failure: Exception = SlotNotCoveredError(f"no node of the cluster serves slot {slot}")
        for _ in range(_ATTEMPTS):
            if self._owners[slot] is None:
                await self._read_layout()
            address, node = self._owner(slot)
            try:
                return await act(node)
            except MovedError as moved:
                self._owners[slot] = _known(moved.host, address), moved.port
                failure = moved
            except (AskError, TryAgainError, ClusterDownError) as unsettled:
                failure = unsettled
                await asyncio.sleep(_PAUSE_S)
            except (ConnectionError, TimeoutError) as lost:
                await self._read_layout(last=address)
                if self._owners[slot] == address or isinstance(lost, TimeoutError):
                    raise
                failure = lost
        raise failure

    async def aclose(
        self,
        close_connection_pool: bool | None = None,  # noqa: ARG002 - redis-py's signature
    ) -> None:
        """Close every connection."""
        await asyncio.gather(*(node.aclose() for node in self._nodes.values()))

    def _owner(self, slot: int) -> tuple[Address, Redis]:
        address = self._owners[slot]
        if address is None:
            raise SlotNotCoveredError(f"no node of the cluster serves slot {slot}")
        return address, self._node(address)

    def _node(self, address: Address) -> Redis:
        if address not in self._nodes:
            self._nodes[address] = self._make(address)
        return self._nodes[address]

    async def _read_layout(self, last: Address | None = None) -> None:
        """Ask a node who serves which slot, `last` after the others; concurrent calls share it."""
        before = self._layouts
        async with self._reading:
            if self._layouts > before:
                return
            failure: Exception = RedisClusterException("the cluster has no nodes")
            for address in sorted(self._nodes, key=lambda one: one == last):
                try:
                    node = self._nodes[address]
                    ranges = await node.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
                except (ConnectionError, TimeoutError, PoolFull) as error:
                    failure = error
                    continue
                self._owners = _owners(ranges, address)
                self._layouts += 1
                return
            raise failure

    async def _asking(
        self, elsewhere: AskError, args: tuple[EncodableT, ...], options: dict[str, object]
    ) -> object:
        """The answer of the node to which a slot is moving; ASKING must use the same connection."""
        node = self._node((_known(elsewhere.host, next(iter(self._nodes))), elsewhere.port))
        async with node.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")
            pipeline.execute_command(*args, **options)
            return (await pipeline.execute())[1]

    async def _everywhere(self, args: tuple[EncodableT, ...], options: dict[str, object]) -> object:
        """Send a command to all nodes; the answer of any that can be reached."""
        asked = [
            node.execute_command(*args, **options)  # type: ignore[no-untyped-call]
            for node in self._nodes.values()
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if not isinstance(answer, BaseException):
                return answer
        raise cast(BaseException, answers[0])


class _SlotPipeline(Pipeline):
    """A pipeline that finds its node when it is executed."""

    def __init__(self, cluster: ClusterRedis, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack = list(self.command_stack)
        if not stack:
            return []

        async def send(node: Redis) -> list[Any]:
            self.connection_pool = node.connection_pool
            self.command_stack = list(stack)
            return await super(_SlotPipeline, self).execute(raise_on_error)

        return await self._cluster.routed(_slot(stack[0][0]), send)


def _slot(args: tuple[EncodableT, ...]) -> int:
    at = _AFTER_SCRIPT if args[0] in ("EVAL", "EVALSHA") else _AFTER_NAME
    if args[0] in ("XREAD", "XREADGROUP"):
        at = next(i for i, part in enumerate(args) if part in ("STREAMS", b"STREAMS")) + 1
    if len(args) <= at:
        raise RedisClusterException(f"{args[0]!r} has no key that would say which node to ask")
    key = args[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _slot_of_all(pattern: PatternT | None) -> int | None:
    """The slot of all keys that match, when their hash tag says so."""
    text = pattern.decode() if isinstance(pattern, bytes) else str(pattern or "")
    before, brace, rest = text.partition("{")
    tag, end, _ = rest.partition("}")
    if not (brace and end and tag) or set("*?[\\") & set(before + tag):
        return None
    return key_slot(text.encode())


def _owners(ranges: list[list[Any]], asked: Address) -> list[Address | None]:
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, primary, *_ in ranges:
        host = primary[0].decode() if isinstance(primary[0], bytes) else primary[0]
        address = _known(host, asked), int(primary[1])
        owners[first : last + 1] = [address] * (last - first + 1)
    return owners


def _known(host: str | None, answering: Address) -> str:
    """The host of a node; a node that does not know its own host is where it was asked."""
    return answering[0] if host is None or host in ("", "?") else host
