"""What random schedules draw from, what the catalogue should be, and what a process has of it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from redis.asyncio import Redis

from app.curate.building import local
from app.curate.labels import LabelWriter
from app.curate.rebuilder import Rebuilder
from app.curate.writes import Writer
from app.embedders import EmbedderCache, LexicalEmbedder
from app.llm import Models
from app.settings import Settings
from app.storage.redis_documents import RedisDocuments
from tree.errors import StaleVersion, StoreUnavailable
from tree.item import Item
from tree.node import Node, TreeSettings
from tree.snapshot import SemanticTree
from tree.store.protocol import NEVER_STAGED, Carry
from tree.store.redis_store import RedisTreeStore

REPLICAS = 3
SETTINGS = TreeSettings(leaf_capacity=4, fan_out=3, seed=1)
SPACE = LexicalEmbedder().space
PATIENCE_S = 30

_T = TypeVar("_T")

# -- what is drawn

IDS = [f"{kind}/{number}" for kind in ("book", "film") for number in range(24)]
ids = st.sampled_from(IDS)
some_ids = st.lists(ids, min_size=1, max_size=8, unique=True)
replicas = st.integers(0, REPLICAS - 1)
steps = st.integers(0, 40)  # of the event loop, after which a process dies
numbers = st.integers(0, 999)

WORDS = [
    "space", "ship", "star", "war", "love", "town", "sea", "island", "king", "queen", "winter",
    "river", "machine", "dream",
]  # fmt: skip
TIMES = {
    "never": None,
    "past": datetime(2001, 1, 1, tzinfo=UTC),
    "future": datetime.now(UTC) + timedelta(days=365),
}


@st.composite
def contents(draw: st.DrawFn) -> Callable[[str], Item]:
    """What makes an item of an id."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
    fields: dict[str, Any] = {
        "title": " ".join(words),
        "categories": draw(st.sampled_from([(), ("Old",), ("New",), ("New", "Newer")])),
        "popularity": draw(st.sampled_from([None, 3.0])),
        "hidden": draw(st.booleans()),
        "expires_at": TIMES[draw(st.sampled_from(sorted(TIMES)))],
    }
    return lambda item_id: Item(id=item_id, domain=item_id.partition("/")[0], **fields)


# -- what the catalogue should be


@dataclass
class Model:
    """The newest record of every item, and as what the tree knows those that have a place."""

    records: dict[str, Item] = field(default_factory=dict)
    placed: dict[str, Item] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)
    locked: dict[int, Node] = field(default_factory=dict)  # as they were locked
    version: int = 0

    def put(self, items: Iterable[Item]) -> None:
        for item in items:
            self.records[item.id] = self.placed[item.id] = item
            self.staged.discard(item.id)

    def delete(self, gone: Iterable[str]) -> None:
        for item_id in gone:
            self.records.pop(item_id, None)
            self.placed.pop(item_id, None)
            self.staged.discard(item_id)

    def stage(self, items: Iterable[Item]) -> None:
        for item in items:
            self.records[item.id] = item
            self.staged.add(item.id)

    def place(self, some: Iterable[str]) -> None:
        for item_id in self.staged & set(some):
            self.placed[item_id] = self.records[item_id]
            self.staged.discard(item_id)


# -- what a process has


class Gated(RedisTreeStore):
    """A store whose `replace` waits until it may go on."""

    def __init__(self, client: Redis, prefix: str) -> None:
        super().__init__(client, "shop", space=SPACE, settings=SETTINGS, prefix=prefix)
        self.waits = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def replace(
        self,
        tree: SemanticTree,
        *,
        base: int,
        staging_seq: int = NEVER_STAGED,
        note: str = "rebuild",
        carry: Carry | None = None,
    ) -> SemanticTree:
        """See TreeStore."""
        self.waits.set()
        await self.go.wait()
        return await super().replace(
            tree, base=base, staging_seq=staging_seq, note=note, carry=carry
        )


@dataclass
class Rebuild:
    """A rebuild under way, and what was staged when it began."""

    task: asyncio.Task[SemanticTree]
    read: dict[str, Item]


class Replica:
    """One process' view of the catalogue."""

    def __init__(self, client: Redis, prefix: str) -> None:
        embedders = EmbedderCache()
        self.store = Gated(client, prefix)
        self.writer = Writer("shop", self.store, embedders, 0.0, lambda tree, edits: None)
        models = Models.none(RedisDocuments(client, prefix=prefix))
        self.rebuilder = Rebuilder(self.store, embedders, LabelWriter(models, Settings()), local())
        self.rebuild: Rebuild | None = None
        self.seen: SemanticTree | None = None
        self.held: set[str] = set()  # ids, when it was seen

    async def die(self) -> None:
        """The object is thrown away with all that it was about to do."""
        if self.rebuild is not None:
            await cancelled(self.rebuild.task)


async def cancelled(task: asyncio.Task[_T]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, StaleVersion, StoreUnavailable):
        await task


async def dies_after(loops: int, work: Coroutine[None, None, object]) -> None:
    """Begin some work, and stop it wherever it is after so many turns of the event loop."""
    task = asyncio.create_task(work)
    for _ in range(loops):
        await asyncio.sleep(0)
    await cancelled(task)
