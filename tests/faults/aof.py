"""A recorded life of a catalogue, and what is left of it in a copy of its append-only file."""

import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis
from rich.progress import Progress

from app.cli.deep import catalogue_checks, document_check
from app.embedders import LexicalEmbedder
from app.storage.redis_documents import RedisDocuments
from tree import place
from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.inspect import violations
from tree.item import Item
from tree.node import TreeSettings
from tree.redis.aof_truncation import torn_files
from tree.redis.embedded_server import EmbeddedServer, Fsync
from tree.store.redis_store import RedisTreeStore

CATALOG = "books"
SETTINGS = TreeSettings(leaf_capacity=6, fan_out=4)
DOCUMENT = b'{"leaf_capacity": 6}'
_WORDS = ("sea", "ship", "war", "love", "robot", "garden", "ghost", "train", "king", "winter")


@dataclass(frozen=True)
class State:
    """What was acknowledged, and how large the append-only file was then."""

    version: int
    items: dict[str, Item]
    waiting: frozenset[str]
    size: int


@dataclass
class Life:
    """The data folder of a stopped server, and every state that was acknowledged."""

    folder: Path
    states: list[State] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return newest_log(self.folder)


@dataclass(frozen=True)
class Left:
    """What a server over a damaged copy has to offer."""

    refusal: str = ""  # of the server to start, or of the store to load
    started: bool = True
    version: int = -1
    items: dict[str, Item] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    violations: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()  # what `doctor --deep` names
    torn: int = 0  # bytes that were cut off and kept

    def holds(self, state: State) -> bool:
        """Whether this is that state, to the letter of every record."""
        return (
            (self.version, self.ids, self.items) == (state.version, state.items.keys(), state.items)
            # an item that waits although it has a place is only placed once more
            and self.waiting - self.ids == state.waiting - state.items.keys()
        )


def newest_log(folder: Path) -> Path:
    files = (folder / "appendonlydir").glob("*.incr.aof")
    return max(files, key=lambda file: int(file.name.split(".")[-3]))


@asynccontextmanager
async def serving(folder: Path, fsync: Fsync = "everysec") -> AsyncIterator[Redis]:
    """One connection to the embedded server over `folder`: WAITAOF counts by connection."""
    server = await EmbeddedServer.start(folder, fsync=fsync)
    try:
        async with Redis.from_url(server.connect_url, single_connection_client=True) as client:
            yield client
    finally:
        await server.stop()


def opened(client: Redis) -> RedisTreeStore:
    return RedisTreeStore(client, CATALOG, space=LexicalEmbedder().space, settings=SETTINGS)


class Writing:
    """Commits of every kind, drawn by a seed, and the model that they must add up to."""

    def __init__(self, client: Redis, life: Life, seed: int) -> None:
        self._client = client
        self._store = opened(client)
        self._life = life
        self._draw = random.Random(seed)
        self._items: dict[str, Item] = {}
        self._waiting: dict[str, Item] = {}
        self._made = 0

    async def start(self) -> None:
        await RedisDocuments(self._client).put("catalog", CATALOG, DOCUMENT, None)
        await self._acknowledged()

    async def step(self, *, snapshots: bool = True) -> None:
        """One acknowledged change; a snapshot among them makes all that was before it idle."""
        weights = [10, 2, 1, 1] if snapshots else [10, 2, 0, 0]
        kind = self._draw.choices(["commit", "stage", "compact", "replace"], weights)[0]
        tree = await self._store.load()
        if kind == "commit":
            await self._commit()
        elif kind == "stage":
            some = {item.id: item for item in (self._new() for _ in range(2))}
            await self._store.stage(list(some.values()))
            self._waiting |= some
        elif kind == "compact":
            await self._store.compact()
        elif tree.version:
            await self._store.replace(tree, base=tree.version)
        await self._acknowledged()

    async def _commit(self) -> None:
        tree = await self._store.load()
        known = sorted(self._items)
        puts = {item.id: item for item in (self._new() for _ in range(self._draw.randint(1, 4)))}
        if known:
            for item_id in self._draw.sample(known, min(2, len(known))):
                puts[item_id] = self._item(item_id)
        if self._waiting:
            puts |= dict([self._waiting.popitem()])
        drops = [one for one in self._draw.sample(known, len(known) // 12) if one not in puts]
        vectors = LexicalEmbedder(tree.space).encode([item.text for item in puts.values()])
        edits = place.plan(tree, list(puts.values()), vectors, drops)
        await self._store.commit(edits, base=tree.version)
        self._items |= puts
        for one in drops:
            del self._items[one]

    async def _acknowledged(self) -> None:
        tree = await self._store.load()
        self._life.states.append(
            State(
                tree.version,
                dict(self._items),
                frozenset(self._waiting),
                newest_log(self._life.folder).stat().st_size,
            )
        )

    def _new(self) -> Item:
        self._made += 1
        return self._item(f"item {self._made}")

    def _item(self, item_id: str) -> Item:
        words = " ".join(self._draw.choices(_WORDS, k=5))
        return Item(
            id=item_id,
            title=f"{words} {self._draw.randint(0, 9_999)}",
            categories=(self._draw.choice(_WORDS),),
            domain=self._draw.choice(["books", "films"]),
            popularity=float(self._draw.randint(0, 999)),
            hidden=self._draw.random() < 0.1,
        )


def copied(life: Life, target: Path) -> Path:
    """A copy of the data folder to spoil."""
    shutil.copytree(life.folder / "appendonlydir", target / "appendonlydir")
    return target


async def left_of_cut(life: Life, target: Path, size: int) -> Left:
    """See `left_in`: of a copy in `target` whose newest file ends after `size` bytes."""
    folder = copied(life, target)
    os.truncate(newest_log(folder), size)
    return await left_in(folder)


async def left_in(folder: Path) -> Left:
    """What a server over `folder` starts with, as the service would see it."""
    try:
        async with serving(folder) as client:
            store = opened(client)
            findings = [
                *await _told(store),
                *(await document_check(RedisDocuments(client))).flaws,
            ]
            torn = sum(file.stat().st_size for file in torn_files(folder))
            try:
                kept = await RedisDocuments(client).get("catalog", CATALOG)
                tree = await store.load()
            except CorruptSnapshot as error:
                return Left(str(error), findings=tuple(findings), torn=torn)
            assert kept in (DOCUMENT, None)
            ids = frozenset(tree.item_ids())
            return Left(
                version=tree.version,
                items=await store.items(ids),
                ids=ids,
                waiting=frozenset({one async for batch in store.staged_ids() for one in batch}),
                violations=tuple(violations(tree)),
                findings=tuple(findings),
                torn=torn,
            )
    except StoreUnavailable as error:
        return Left(str(error), started=False)


async def _told(store: RedisTreeStore) -> list[str]:
    with Progress(disable=True) as bar:
        checks = [check async for check in catalogue_checks(CATALOG, store, bar)]
    return [flaw for check in checks for flaw in check.flaws]
