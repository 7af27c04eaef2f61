"""`CatalogJobs`: jobs are run by the curator of the catalogue that they were made for."""

import asyncio
import logging
import shutil
from contextlib import suppress

from app.catalog import Catalog
from app.catalogs import Catalogs, UnknownCatalog
from app.curate.imports import forget_upload
from app.curate.imports.uploads import remove_abandoned
from app.jobs import Job, JobReport
from app.lists import RecommendationRuns, catalogs_of, forget_requests
from app.settings import Settings
from tree.errors import CatalogDeleted, StoreUnavailable, TreeError
from tree.store.keys import name_of

logger = logging.getLogger(__name__)


class CatalogJobs:
    """See JobWorker."""

    def __init__(self, catalogs: Catalogs, settings: Settings) -> None:
        self._catalogs = catalogs
        self._settings = settings

    async def can_run(self, job: Job) -> bool:
        """See JobWorker. A job whose catalogue is gone can be ended by any process."""
        try:
            catalog = await self._catalog_of(job)
            if job.type == "recommendation":
                return await self._runs(catalog).can_run(job)
            return await catalog.curator.can_run(job)
        except UnknownCatalog:
            return True

    async def housekeep(self) -> None:
        """See JobWorker."""
        await asyncio.to_thread(remove_abandoned, self._settings)
        await self._catalogs.finish_deletions()
        await self._remove_lists()
        for name in [catalog.name for catalog in self._catalogs.opened()]:
            try:
                await (await self._catalogs.get(name)).curator.housekeep()
            except StoreUnavailable:
                raise
            except (UnknownCatalog, TreeError) as error:  # the others need it all the same
                logger.debug("housekeeping of catalogue %s failed: %s", name, error)

    async def stored_result(self, job: Job) -> dict[str, object] | None:
        """See JobWorker."""
        with suppress(UnknownCatalog):
            catalog = await self._catalog_of(job)
            if job.type == "recommendation":
                return await self._runs(catalog).stored_result(job)
            return await catalog.curator.stored_result(job)
        return None

    async def on_ended(self, job: Job) -> None:
        """See JobWorker. Removes the upload, also when its catalogue is deleted."""
        forget_upload(self._settings.uploads, job)
        await asyncio.to_thread(forget_requests, self._settings.runs, job)

    async def work(self, job: Job, report: JobReport) -> dict[str, object]:
        """See JobWorker."""
        try:
            catalog = await self._catalog_of(job)
            if job.type == "recommendation":
                return await self._runs(catalog).work(job, report)
            return await catalog.curator.work(job, report)
        except UnknownCatalog as error:
            raise CatalogDeleted(f"catalogue {job.catalog!r} was deleted") from error

    async def _remove_lists(self) -> None:
        """Remove the files of recommendation runs whose catalogue has been deleted."""
        registry = self._catalogs.registry
        for folder, catalog_id in (
            await asyncio.to_thread(catalogs_of, self._settings.runs)
        ).items():
            entry = await registry.look(name_of(catalog_id))
            if entry is None or entry.id != catalog_id:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _runs(self, catalog: Catalog) -> RecommendationRuns:
        return RecommendationRuns(catalog.recommender, catalog.feedback, self._settings.runs)

    async def _catalog_of(self, job: Job) -> Catalog:
        """The catalogue of a job, not a later one of the same name. Raises UnknownCatalog."""
        catalog = await self._catalogs.get(job.catalog)
        if catalog.id != job.catalog_id:
            raise UnknownCatalog(job.catalog)
        return catalog
