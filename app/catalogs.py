"""`Catalogs`: which catalogues there are, and the parts that serve each of them."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel, ConfigDict, Field

from app.curate import Curator, TextReader
from app.curate.uploads import sweep
from app.jobs import Job, JobRunning, Jobs, Report
from app.llm import Models
from app.recommend import Manner, Recommender
from app.settings import Settings
from app.signals import erase
from prompts import Perspective
from tree.embedders import EmbedderCache
from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.item import Item
from tree.node import LEXICAL, TreeSettings
from tree.snapshot import SemanticTree
from tree.store.documents import Documents
from tree.store.feedback import Feedback, MemoryFeedback, User
from tree.store.protocol import TreeStore

logger = logging.getLogger(__name__)

DEFAULT_CATALOG = "default"
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_STOP_S = 15.0
_LOOK_S = 0.5  # how long a request waits to hear that its catalogue still exists
_TRUSTED_S = 1.0  # how long a catalogue is taken to exist after it was last seen in the store
_UNSEEN_S = 10.0  # how much longer while the registry does not answer


class UnknownCatalog(LookupError):
    """No catalogue of that name."""


class InvalidCatalogName(ValueError):
    """A name that cannot be a catalogue's."""


class UnknownEmbedder(ValueError):
    """An embedder that this deployment does not offer; the message says which it does."""


class CatalogSettings(BaseModel):
    """What shapes a catalogue's tree and how it is talked about. Fixed when it is created."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    leaf_capacity: int = Field(default=20, ge=2, le=50, description="Most items in a leaf.")
    fan_out: int = Field(default=16, ge=3, le=64, description="Most children of a node.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    embedder: str | None = Field(
        default=None,
        description="`lexical`, or the one that this service was started with, which is taken "
        "where none is named.",
    )
    perspective: Perspective = "interest"
    language: str = Field(default="en", min_length=2, max_length=35)

    @property
    def tree(self) -> TreeSettings:
        return TreeSettings(self.leaf_capacity, self.fan_out, self.seed, self.embedder or LEXICAL)


@dataclass(frozen=True, slots=True)
class Catalog:
    """One catalogue and who works on it."""

    name: str
    settings: CatalogSettings
    store: TreeStore
    curator: Curator
    recommender: Recommender
    feedback: Feedback
    documents: Documents

    async def apply_batch(self, puts: Sequence[Item], deletes: Collection[str]) -> dict[str, bool]:
        """See Curator. What users did with items that go is forgotten with them."""
        done = await self.curator.apply_batch(puts, deletes)
        if deletes:
            await self.feedback.forget_items(deletes)
        return done

    async def put_user(self, user_id: str, user: User) -> None:
        """Store a user. Raises UnknownCatalog.

        Looks afterwards whether the catalogue still exists: this process may trust in that for a
        while, and what is stored after another has deleted it would come back with its name.
        """
        await self.feedback.put_user(user_id, user)
        if await self.documents.get("catalog", self.name) is None:
            await self.feedback.erase(user_id, ())
            raise UnknownCatalog(f"there is no catalogue {self.name!r}: create it first")

    async def erase_user(self, user_id: str) -> None:
        """Forget a user: what is stored of them, and traces and profiles that came about."""
        await erase(self.feedback, self.documents, user_id)


StoreFactory = Callable[[str, CatalogSettings], TreeStore]


class Catalogs:
    """The registry, kept in the store; the parts of a catalogue are made when first asked for.

    With `lagged`, open catalogues keep up with what other processes commit; it is told by how
    many seconds they were behind.
    """

    def __init__(
        self,
        documents: Documents,
        jobs: Jobs,
        stores: StoreFactory,
        settings: Settings,
        models: Models,
        lagged: Callable[[str, float], None] | None = None,
        feedback: Callable[[str], Feedback] | None = None,
        embedders: EmbedderCache | None = None,
    ) -> None:
        self._documents = documents
        self._models = models
        self._jobs = jobs
        self._stores = stores
        self._settings = settings
        self._embedders = embedders or EmbedderCache()
        self._texts = TextReader(self._embedders)
        self._lagged = lagged
        self._feedback = feedback or (lambda _: MemoryFeedback())
        self._open: dict[str, Catalog] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, float] = {}
        self._lock = asyncio.Lock()
        jobs.employ(self)

    async def create(self, name: str, settings: CatalogSettings) -> tuple[Catalog, bool]:
        """The catalogue of that name, and whether it is new; an old one keeps its settings.

        Raises InvalidCatalogName, and UnknownEmbedder: whoever may create a catalogue does not
        choose what is opened here.
        """
        if not _NAME.fullmatch(name):
            raise InvalidCatalogName(
                f"{name!r} cannot name a catalogue: use 1 to 64 of a-z, 0-9, '-' and '_'"
            )
        offered = self._settings.embedder
        if settings.embedder is None:
            settings = settings.model_copy(update={"embedder": offered})
        elif settings.embedder not in (LEXICAL, offered):
            if await self._documents.get("catalog", name) is None:
                both = " and ".join(dict.fromkeys(map(repr, (offered, LEXICAL))))
                raise UnknownEmbedder(f"this service has {both}: see UNILLMREC_EMBEDDER")
            return await self.get(name), False
        data = settings.model_dump_json().encode()
        created = await self._documents.put_new("catalog", name, data, None)
        return await self.get(name), created

    async def get(self, name: str) -> Catalog:
        """Raises UnknownCatalog, also when another process has just deleted it."""
        catalog = self._open.get(name)
        if catalog and time.monotonic() - self._seen[name] < _TRUSTED_S:
            return catalog
        # Not under the lock: while the store is silent, requests would time out one by one.
        try:
            async with asyncio.timeout(_LOOK_S if catalog else None):
                known = _NAME.fullmatch(name)
                data = await self._documents.get("catalog", name) if known else None
        except (TimeoutError, StoreUnavailable):
            if catalog is None:
                raise
            # What needs the store says so itself, by its own deadline; and in a cluster, the
            # registry's node may be down while the catalogue's is not.
            self._seen[name] = time.monotonic() + _UNSEEN_S
            return catalog
        async with self._lock:
            if data is None:
                await self._close(name)
                raise UnknownCatalog(f"there is no catalogue {name!r}: create it first")
            settings = CatalogSettings.model_validate_json(data)
            catalog = self._open.get(name)
            if catalog is None or catalog.settings != settings:
                await self._close(name)
                catalog = self._open[name] = self._made(name, settings)
                if self._lagged:
                    work = catalog.store.follow(partial(self._lagged, name))
                    self._followers[name] = asyncio.create_task(work)
            self._seen[name] = time.monotonic()
            return catalog

    async def list(self) -> list[Catalog]:
        """All catalogues, by name."""
        found = []
        for name in sorted([name async for name, _ in self._documents.list("catalog")]):
            try:
                found.append(await self.get(name))
            except UnknownCatalog:  # deleted since the list was read
                continue
            except CorruptSnapshot as error:  # the others can be served
                logger.error("catalogue %s is left out: %s", name, error)
        return found

    def loaded(self) -> dict[str, SemanticTree]:
        """The newest trees that this process has seen, by catalogue."""
        trees = {name: catalog.store.seen() for name, catalog in self._open.items()}
        return {name: tree for name, tree in trees.items() if tree is not None}

    async def delete(self, name: str) -> None:
        """Remove a catalogue and all it holds, after its jobs have been cancelled.

        Raises UnknownCatalog, and JobRunning when a job does not stop.
        """
        catalog = await self.get(name)
        await self._stop_jobs(name)
        await self._documents.delete("catalog", name)
        await catalog.store.drop()
        async with self._lock:
            await self._close(name)

    async def able(self, job: Job) -> bool:
        """See Worker."""
        with suppress(UnknownCatalog):
            return await (await self.get(job.catalog)).curator.able(job)
        return False

    async def tend(self) -> None:
        """See Worker."""
        await asyncio.to_thread(sweep, self._settings)
        for catalog in list(self._open.values()):
            await catalog.curator.tend()

    async def ended(self, job: Job) -> None:
        """See Worker."""
        with suppress(UnknownCatalog):
            await (await self.get(job.catalog)).curator.ended(job)

    async def work(self, job: Job, report: Report) -> dict[str, object]:
        """See Worker."""
        return await (await self.get(job.catalog)).curator.work(job, report)

    async def _stop_jobs(self, name: str) -> None:
        deadline = time.monotonic() + _STOP_S
        while running := [job for job in await self._jobs.list(name) if not job.ended]:
            if time.monotonic() > deadline:
                raise JobRunning(running[0].id)
            for job in running:
                await self._jobs.cancel(job.id)
            await asyncio.sleep(0.1)

    async def aclose(self) -> None:
        """Let go of every catalogue, after what its curator still has to finish."""
        for name in list(self._open):
            await self._close(name)
        await self._texts.aclose()

    def _made(self, name: str, settings: CatalogSettings) -> Catalog:
        store = self._stores(name, settings)
        feedback = self._feedback(name)
        return Catalog(
            name,
            settings,
            store,
            Curator(
                name,
                store,
                self._jobs,
                self._embedders,
                self._settings,
                self._models,
                settings.language,
                self._texts,
            ),
            Recommender(
                name,
                store,
                self._documents,
                self._embedders,
                self._settings,
                self._models,
                Manner(name, settings.perspective, settings.language),
                feedback,
            ),
            feedback,
            self._documents,
        )

    async def _close(self, name: str) -> None:
        catalog = self._open.pop(name, None)
        if catalog is not None:
            if follower := self._followers.pop(name, None):
                follower.cancel()
                await asyncio.gather(follower, return_exceptions=True)
            await catalog.curator.aclose()
            await catalog.recommender.aclose()
            await catalog.store.aclose()
