"""`Catalogs`: the catalogues that this process serves, each with its parts."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias, TypeVar

from app.budget import SharedBudget
from app.catalog import Catalog
from app.catalog_parts import CatalogParts
from app.catalog_settings import CatalogSettings
from app.deletions import Deletions
from app.embedders import BUILT_IN, EmbedderCache, EmbedderUsage
from app.jobs import Jobs
from app.llm import Models
from app.registry import (
    DEFAULT_CATALOG,
    BeingDeleted,
    Deletion,
    InvalidCatalogName,
    Registry,
    RegistryEntry,
    UnknownCatalog,
    check_name,
)
from app.settings import Settings
from app.storage.attribution import Attribution, MemoryAttribution
from app.storage.feedback import Feedback
from app.storage.memory_feedback import MemoryFeedback
from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore
from tree.worker import Background

__all__ = [
    "DEFAULT_CATALOG",
    "BeingDeleted",
    "Catalog",
    "CatalogSettings",
    "Catalogs",
    "InvalidCatalogName",
    "ListedCatalog",
    "UnknownCatalog",
    "UnknownEmbedder",
]

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0  # for curators to finish their work
_LOOK_S = 0.2  # how long a request waits for the registry to confirm its catalogue
_TRUSTED_S = 1.0  # how long a catalogue counts as existing after the registry was asked
_UNSEEN_S = 10.0  # the same, while the registry does not answer


class UnknownEmbedder(ValueError):
    """This service does not offer the embedder; the message names those it offers."""


@dataclass(frozen=True, slots=True)
class ListedCatalog:
    """A name of the registry: its catalogue, or why it cannot be opened."""

    name: str
    catalog: Catalog | None
    flaw: str = ""


@dataclass(slots=True)
class _Open:
    """A catalogue that this process serves, and when the registry was last asked for it."""

    catalog: Catalog
    seen: float
    trusted_until: float = 0.0  # while the registry does not answer
    follower: Background = field(default_factory=lambda: Background("the log of a catalogue"))


StoreFactory = Callable[[str, CatalogSettings], TreeStore]
_T = TypeVar("_T")
Fill: TypeAlias = Callable[[TreeStore, Feedback, Attribution], Awaitable[_T]]


class Catalogs:
    """The catalogues of the registry; the parts of each are made at its first use.

    With `lagged`, open catalogues follow the commits of other processes, and `lagged` is called
    with the seconds that they were behind. `stores`, `feedback` and `attribution` take the id of a
    catalogue.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what all catalogues share
        self,
        registry: Registry,
        jobs: Jobs,
        stores: StoreFactory,
        settings: Settings,
        models: Models,
        lagged: Callable[[str, float], None] | None = None,
        feedback: Callable[[str], Feedback] | None = None,
        embedders: EmbedderCache | None = None,
        day_budget: Callable[[str, float], SharedBudget] | None = None,
        attribution: Callable[[str], Attribution] | None = None,
    ) -> None:
        self.registry = registry
        self._models = models
        self._stores = stores
        self._settings = settings
        self._parts = CatalogParts(
            registry, jobs, settings, models, embedders or EmbedderCache(), day_budget
        )
        self._lagged = lagged
        self._attribution = attribution or (lambda _: MemoryAttribution())
        self._feedback = feedback or (lambda _: MemoryFeedback())
        self._open: dict[str, _Open] = {}
        self._closing = Background("closing a catalogue")
        self._looks = Background("a look at the registry", quiet=Exception)  # raised to the caller
        self._deletions = Deletions(registry, jobs, self.remove, self._begun)

    async def create(self, name: str, settings: CatalogSettings) -> tuple[Catalog, bool]:
        """The catalogue of that name, and whether it is new; an existing one keeps its settings.

        Raises InvalidCatalogName, BeingDeleted, and UnknownEmbedder: clients choose only among
        the embedders that the settings offer.
        """
        if settings.embedder is None:
            settings = settings.model_copy(update={"embedder": self._settings.embedder})
        try:
            self.check(name, settings)
        except UnknownEmbedder:
            if await self.registry.look(name) is None:
                raise
            return await self.get(name), False
        asked_at = time.monotonic()
        entry, created = await self.registry.create(name, settings)
        return self._opened(name, entry, asked_at), created

    def check(self, name: str, settings: CatalogSettings) -> None:
        """Raises InvalidCatalogName or UnknownEmbedder when `create` would."""
        check_name(name)
        self.check_embedder(settings.embedder)

    def check_embedder(self, name: str | None) -> None:
        """Raises UnknownEmbedder for one that clients cannot choose; None is the default."""
        offered = self._settings.embedder
        if name not in (None, offered, *BUILT_IN):
            known = " and ".join(dict.fromkeys(map(repr, (offered, *BUILT_IN))))
            raise UnknownEmbedder(
                f"unknown embedder {name!r}: this service has {known}; for another one, set "
                f"UNILLMREC_EMBEDDER={name}"
            )

    async def holds(self, name: str) -> bool:
        """Whether the catalogue of that name holds items, users or counts, or is damaged."""
        try:
            catalog = await self.get(name)
            if len(await catalog.store.load()):
                return True
        except UnknownCatalog:
            return False
        except CorruptSnapshot:
            return True
        if await anext(aiter(catalog.store.staged_ids(batch=1)), None):
            return True
        return any([True async for entries in catalog.feedback.entries() if entries])

    async def put_filled(self, name: str, settings: CatalogSettings, fill: Fill[_T]) -> _T:
        """The result of `fill`, which writes the content of a new catalogue.

        The new catalogue then replaces the one of that name in one step. Raises BeingDeleted.
        """
        entry, undo = await self.registry.prepare(name, settings)
        store = self._stores(entry.id, settings)
        try:
            async with self._deletions.deferred(undo):
                try:
                    filled = await fill(
                        store, self._feedback(entry.id), self._attribution(entry.id)
                    )
                finally:
                    await store.aclose()
                replaced = await self.registry.publish(entry)
        except BaseException:
            with suppress(StoreUnavailable):  # a running service removes it later
                await self._deletions.finish(undo)
            raise
        await self.registry.remove(undo)
        if replaced:
            await self._deletions.finish(replaced)
        return filled

    async def get(self, name: str, *, trust: bool = False) -> Catalog:
        """The catalogue of that name. Raises UnknownCatalog, also right after a deletion.

        With `trust`, the registry is asked at most once a second; after CatalogDeleted, the
        caller must ask again without it.
        """
        now = time.monotonic()
        known = self._open.get(name)
        if known and (now < known.trusted_until or (trust and now - known.seen < _TRUSTED_S)):
            return known.catalog
        if known is None:
            return self._opened(name, await self.registry.look(name), now)
        try:
            entry = await self._looks.within(_LOOK_S, self.registry.look(name))
        except (TimeoutError, StoreUnavailable):
            # A request that needs the store fails by its own deadline; and in a cluster, only
            # the node of the registry may be down.
            known.trusted_until = time.monotonic() + _UNSEEN_S
            return known.catalog
        return self._opened(name, entry, now)

    async def change(
        self, catalog: Catalog, change: Callable[[CatalogSettings], CatalogSettings]
    ) -> Catalog:
        """The catalogue with other settings, as `change` makes them from the newest ones.

        Other processes see them with their next request, or within a second. Raises UnknownCatalog.
        """
        known = RegistryEntry(catalog.name, catalog.id, catalog.settings)
        entry = await self.registry.change(known, change)
        return self._opened(catalog.name, entry, time.monotonic())

    async def check_exists(self, catalog: Catalog) -> None:
        """Raises UnknownCatalog where it has been deleted, whatever has its name now."""
        entry = await self.registry.look(catalog.name)
        if entry is None or entry.id != catalog.id:
            raise UnknownCatalog(catalog.name)

    async def list(self) -> list[ListedCatalog]:
        """All catalogues, by name, including those that cannot be opened."""
        found = []
        for name in await self.registry.names():
            with suppress(UnknownCatalog):  # deleted since the list was read
                found.append(await self.look(name))
        return found

    async def look(self, name: str) -> ListedCatalog:
        """One entry of `list`. Raises UnknownCatalog."""
        try:
            return ListedCatalog(name, await self.get(name))
        except CorruptSnapshot as error:
            return ListedCatalog(name, None, str(error))

    def opened(self) -> tuple[Catalog, ...]:
        """The catalogues that this process serves; nothing is read for it."""
        return tuple(known.catalog for known in self._open.values())

    def loaded(self) -> dict[str, SemanticTree]:
        """The newest loaded trees of this process, by catalogue."""
        trees = {name: known.catalog.store.seen() for name, known in self._open.items()}
        return {name: tree for name, tree in trees.items() if tree is not None}

    def embedder_usage(self) -> dict[str, EmbedderUsage]:
        """What this process has asked embedders for, by model."""
        return dict(self._parts.embedders.spending.usage)

    def model_failures(self) -> dict[tuple[str, str], int]:
        """How often models have failed in this process, by model and reason."""
        return dict(self._models.outages.counts)

    async def answers(self) -> None:
        """Check that the store can be read: the registry or, in a cluster, any open catalogue.

        Raises StoreUnavailable.
        """
        if not self._open:
            await self.registry.names()
            return
        try:
            await self._looks.within(_LOOK_S, self.registry.names())
        except (TimeoutError, StoreUnavailable):
            loads = [known.catalog.store.load() for known in self._open.values()]
            loaded = await asyncio.gather(*loads, return_exceptions=True)
            failures = [one for one in loaded if isinstance(one, StoreUnavailable)]
            if len(failures) == len(loaded):
                raise failures[0] from None

    # -- deletion

    async def delete(self, name: str) -> None:
        """Delete a catalogue with all its content; its jobs are cancelled.

        Continues when the caller is cancelled, and finishes what another process has begun.
        Raises UnknownCatalog.
        """
        await self._deletions.delete(name)

    async def remove(self, catalog_id: str) -> None:
        """Remove all keys of a catalogue; later writes to it are refused."""
        store = self._stores(catalog_id, CatalogSettings())
        await store.drop()
        await store.aclose()

    async def finish_deletions(self) -> None:
        """Begin to finish the deletions whose process has died."""
        await self._deletions.finish_orphans()

    def _begun(self, deletion: Deletion) -> None:
        if (known := self._open.get(deletion.name)) and known.catalog.id in deletion.ids:
            self._release(deletion.name)

    # -- open catalogues

    def _opened(self, name: str, entry: RegistryEntry | None, asked_at: float) -> Catalog:
        """The open catalogue for an entry that the registry was asked for at `asked_at`.

        An answer to an older question than the last one changes nothing.
        """
        known = self._open.get(name)
        if known and asked_at < known.seen:
            return known.catalog
        if known and (entry is None or entry.id != known.catalog.id):
            self._release(name)
            known = None
        if entry is None:
            raise UnknownCatalog(name)
        if known is None:
            store, feedback = self._stores(entry.id, entry.settings), self._feedback(entry.id)
            catalog = self._parts.catalog(entry, store, feedback, self._attribution(entry.id))
            known = self._open[name] = _Open(catalog, asked_at)
            if self._lagged:
                known.follower.persist(partial(self._followed, known, self._lagged))
        elif entry.settings != known.catalog.settings:
            known.catalog = replace(known.catalog, settings=entry.settings)
            known.catalog.recommender.configure(entry)
        known.seen = asked_at
        known.trusted_until = 0.0
        return known.catalog

    async def _followed(self, known: _Open, lagged: Callable[[str, float], None]) -> None:
        """Follow the log; returns when any process has deleted the catalogue."""
        name = known.catalog.name
        await known.catalog.store.follow(partial(lagged, name))
        if self._open.get(name) is known:
            self._release(name)

    def _release(self, name: str) -> None:
        """Stop to serve it; it is closed in the background."""
        self._closing.start(_closed(self._open.pop(name)))

    async def aclose(self) -> None:
        """Close every catalogue, after its curator has finished.

        Another process or the next start finishes deletions in progress.
        """
        for name in list(self._open):
            self._release(name)
        await self._deletions.aclose()
        await self._looks.aclose()
        await self._closing.aclose(_CLOSE_S)
        await self._parts.aclose()


async def _closed(known: _Open) -> None:
    catalog = known.catalog
    await known.follower.aclose()
    await catalog.curator.aclose()
    await catalog.recommender.aclose()
    await catalog.store.aclose()
