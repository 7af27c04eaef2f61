"""`CatalogParts`: makes the parts of each catalogue, and holds what all catalogues share."""

from collections.abc import Callable
from functools import partial

from app.attribution import Attributor
from app.budget import SharedBudget
from app.catalog import Catalog
from app.curate import BatchEncoder, Curator, OwnerSettings, newest_options
from app.embedders import EmbedderCache
from app.jobs import Jobs
from app.llm import Models
from app.recommend import PromptConfig, RecommendConfig, Recommender
from app.recommend.fields import ColumnMemory
from app.registry import Registry, RegistryEntry
from app.settings import Settings
from app.storage.attribution import Attribution
from app.storage.feedback import Feedback
from tree.store.protocol import TreeStore


class CatalogParts:
    """Makes the parts of catalogues."""

    def __init__(
        self,
        registry: Registry,
        jobs: Jobs,
        settings: Settings,
        models: Models,
        embedders: EmbedderCache,
        day_budget: Callable[[str, float], SharedBudget] | None,
    ) -> None:
        self.embedders = embedders
        self._registry = registry
        self._jobs = jobs
        self._settings = settings
        self._models = models
        self._recommend_config = RecommendConfig.of(settings)
        self._texts = BatchEncoder(embedders)
        self._columns = ColumnMemory(settings.filter_memory_mb * 2**20)
        self._day_budget = day_budget

    def catalog(
        self, entry: RegistryEntry, store: TreeStore, feedback: Feedback, attribution: Attribution
    ) -> Catalog:
        """A catalogue over its storage."""
        attributor = Attributor(entry.id, attribution, self._settings.attribution_ttl_s)
        recommender = Recommender(
            entry.id,
            store,
            self._registry.documents,
            self.embedders,
            self._recommend_config,
            self._models,
            PromptConfig.of(entry),
            feedback,
            self._columns,
            examines=self._settings.llm_examination,
            attributor=attributor,
        )
        recommender.configure(entry)
        curator = Curator(
            entry.id,
            store,
            self._jobs,
            self.embedders,
            self._settings,
            self._models,
            OwnerSettings(
                entry.settings.language,
                partial(newest_options, self._registry, entry),
                partial(self._day_budget, entry.id) if self._day_budget else None,
            ),
            self._texts,
            feedback,
        )
        return Catalog(
            entry.name,
            entry.id,
            entry.settings,
            store,
            curator,
            recommender,
            feedback,
            self._registry.documents,
            self._settings.events_per_user_day or None,
            attributor,
        )

    async def aclose(self) -> None:
        """Close what the catalogues share; they are closed before."""
        await self._texts.aclose()
        self._columns.close()
