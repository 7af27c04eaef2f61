"""`Curator`: all changes of one catalogue go through here."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from app.curate.batch_encoder import BatchEncoder
from app.curate.building import engine_for
from app.curate.enrichment.enrichment import Enrichment, EnrichmentParams
from app.curate.growth import Growth
from app.curate.imports import Importer, ImportParams, forget_upload
from app.curate.job_runs import JobRuns, RebuildParams
from app.curate.labels import LabelRefresher, LabelWriter
from app.curate.leaf_labels import LeafLabels
from app.curate.owner_settings import OwnerSettings
from app.curate.rebuilder import Rebuilder
from app.curate.refused_texts import RefusedTexts
from app.curate.tuner import Tuner, TuningParams
from app.curate.writes import COMMIT_ITEMS, LineResult, Writer
from app.embedders import EmbedderCache, counting
from app.jobs import Job, JobReport, JobRunning, Jobs
from app.llm import Models
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from app.storage.feedback import Feedback
from app.storage.memory_feedback import MemoryFeedback
from tree.edits import Edit, Reshape
from tree.errors import EmbedderBudgetSpent, EmbedderUnavailable, InvalidEdit, UnknownVersion
from tree.item import Item
from tree.item_line import ItemLine
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore
from tree.worker import Background, together

_CLOSE_S = 2.0  # for what the last writes have started
_ONLY_ONE_KEPT = "UNILLMREC_KEPT_VERSIONS is 1, so no version stays to go back to; set it to 2"
_BUDGET_PAUSE_S = 600.0  # the same, after what the embedder may cost was spent
_EMBEDDER_PAUSE_S = 30.0  # after which jobs start again that an outage of the embedder stopped


class Curator:
    """Puts, deletes, imports and rebuilds for one catalogue; see `JobWorker` for its jobs.

    Any number of processes may change the same catalogue at the same time.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a catalogue shares with the others
        self,
        catalog_id: str,
        store: WritableStore,
        jobs: Jobs,
        embedders: EmbedderCache,
        settings: Settings,
        models: Models | None = None,
        owner: OwnerSettings = OwnerSettings(),  # noqa: B008 - frozen
        batch_encoder: BatchEncoder | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        """`feedback` has the histories that a tuning learns from; without it, there are none."""
        self._catalog = catalog_id
        self._store = store
        self._jobs = jobs
        self._growth = Growth(embedders, settings.rebuild_growth)
        self._kept_versions = settings.kept_versions
        self._embedders = embedders
        self._writer = Writer(
            catalog_id,
            store,
            embedders,
            settings.commit_window_ms / 1000,
            self._after_commit,
            batch_encoder,
        )
        self._refused_texts = RefusedTexts(catalog_id, store, embedders, self._writer)
        self._leaf_labels = LeafLabels(store, self._writer.relabel)
        models = models or Models.none(MemoryDocuments())
        labels = LabelWriter(models, settings, owner.language, guidance=owner.guidance)
        self._refresher = LabelRefresher(store, labels, settings)
        self._enrichment = Enrichment(
            store, self._set_lines, models, settings, owner, catalog=catalog_id
        )
        self._uploads = settings.uploads
        self._importer = Importer(store, settings.uploads, settings.max_unpacked_bytes)
        self._paused_until = 0.0
        # What fails here starts again after a later write.
        self._background = Background(f"background work of catalogue {catalog_id}")
        rebuilder = Rebuilder(store, embedders, labels, engine_for(settings))
        self._runs = JobRuns(
            store,
            self._writer,
            self._importer,
            rebuilder,
            self._enrichment,
            Tuner(store, embedders, feedback or MemoryFeedback(), rebuilder, settings),
            self._growth,
            self._background,
            self._start_automatically,
        )

    async def put(self, items: Sequence[Item]) -> dict[str, bool]:
        """Create or replace items of distinct ids; per id whether it was created.

        The next request can recommend them. Raises StoreUnavailable, TooManyWrites.
        """
        return await self.apply_batch(items, ())

    async def patch(self, item_id: str, change: Callable[[Item], Item]) -> Item | None:
        """The item as `change` makes it from its newest record; None when there is no such item.

        No other write is lost. `change` may be called several times; its errors are raised here.
        """
        return await self._writer.patch(item_id, change)

    async def set_lines(
        self, lines: Mapping[str, ItemLine | None], *, can_wait: bool = False
    ) -> dict[str, LineResult]:
        """Per id what became of its line; None removes it. See LineWrites."""
        return await self._writer.set_lines(lines, can_wait=can_wait)

    async def _set_lines(self, lines: Mapping[str, ItemLine]) -> dict[str, LineResult]:
        return await self.set_lines(lines, can_wait=True)

    async def delete(self, ids: Collection[str]) -> dict[str, bool]:
        """Remove items before the next request; per id whether it was there."""
        return await self.apply_batch((), ids)

    async def apply_batch(self, puts: Sequence[Item], deletes: Collection[str]) -> dict[str, bool]:
        """`put` and `delete` of disjoint ids; in one commit up to a thousand items."""
        results: dict[str, bool] = {}
        for start in range(0, max(len(puts), 1), COMMIT_ITEMS):
            some = {item.id: item for item in puts[start : start + COMMIT_ITEMS]}
            gone = frozenset(deletes) if start == 0 else frozenset()
            results |= await self._writer.write(some, gone)
        return results

    def _after_commit(self, tree: SemanticTree, edits: Sequence[Edit]) -> None:
        """Label the nodes that a commit has reshaped, describe new items, rebuild an outgrown tree.

        All of it later, so that no write waits.
        """
        self._enrichment.refresher.note(edits)
        fresh = [spec.id for edit in edits if isinstance(edit, Reshape) for spec in edit.put]
        if fresh:
            self._leaf_labels.note(fresh)
            self._refresher.note(tree, edits)
        paused = self._runs.is_building or time.monotonic() < self._paused_until
        if not paused and self._growth.outgrown(tree):
            self._background.start(self._start_automatically(RebuildParams()))

    async def _start_automatically(self, params: RebuildParams) -> None:
        with suppress(JobRunning):
            await self.start_rebuild(params, automatic=True)

    async def rename(self, node_id: int, label: str | None, locked: bool | None) -> Node:
        """Give a node another label, or lock the one it has. Raises UnknownNode."""
        return await self._writer.rename(node_id, label, locked)

    # -- jobs

    async def start_import(self, params: ImportParams) -> Job:
        """A job that imports an uploaded JSONL file, gzipped or not, and removes the file.

        `skip` leaves bad lines out; `abort` imports nothing if there is one. Items that were read
        are durable, and get their place in the tree even if the import fails or is cancelled.
        """
        return await self._jobs.start("import", self._catalog, params.model_dump(mode="json"))

    async def imported(self, job: Job) -> int:
        """How many lines of an import are durable so far, with or without a place in the tree."""
        return (await self._importer.stored(job.id)).accepted

    async def start_rebuild(
        self,
        params: RebuildParams = RebuildParams(),  # noqa: B008
        *,
        automatic: bool = False,
    ) -> Job:
        """A job that builds the tree, a subtree or only the labels anew.

        Writes go on meanwhile and are carried over. Raises JobRunning, UnknownNode.
        """
        if params.root is not None:
            (await self._store.load()).node(params.root)
        body = params.model_dump(mode="json")
        return await self._jobs.start("rebuild", self._catalog, body, automatic=automatic)

    async def start_enrichment(self, params: EnrichmentParams) -> Job:
        """A job in which a model writes lines for items. Raises JobRunning."""
        return await self._jobs.start("enrichment", self._catalog, params.model_dump(mode="json"))

    async def start_tuning(self, params: TuningParams) -> Job:
        """A job that learns from histories how vectors should change. Raises JobRunning."""
        return await self._jobs.start("tuning", self._catalog, params.model_dump(mode="json"))

    async def start_activation(self, version: int) -> Job:
        """A job that puts the shape of a kept version into use again, with the items of now.

        Raises JobRunning, UnknownVersion, and InvalidEdit for the version in use.
        """
        kept = [one.version for one in await self._store.versions()]
        why = f": {_ONLY_ONE_KEPT}" if self._kept_versions == 1 else ""
        if version not in kept:
            raise UnknownVersion(f"version {version} is not kept, but {_list_of(kept)}{why}")
        if version == kept[0]:
            raise InvalidEdit(f"version {version} is in use{why}")
        return await self._jobs.start("activation", self._catalog, {"version": version})

    async def resume(self) -> None:
        """Place the items that an import has left without a place."""
        if await self._jobs.is_running("import", self._catalog):
            return
        if await anext(aiter(self._store.staged_ids(batch=1)), None):
            with suppress(JobRunning):
                await self._jobs.start("placement", self._catalog, {})

    async def housekeep(self) -> None:
        """See JobWorker."""
        if time.monotonic() >= self._paused_until:
            await self.resume()
            await self._refused_texts.ask_again_if_due()
            await self._enrichment.refresher.housekeep()

    async def ask_refused_again(self) -> None:
        """See RefusedTexts."""
        await self._refused_texts.ask_again()

    async def on_ended(self, job: Job) -> None:
        """See JobWorker."""
        forget_upload(self._uploads, job)

    async def stored_result(self, job: Job) -> dict[str, object] | None:
        """See JobWorker."""
        if job.type != "import":
            return None
        return await self._importer.partial_result(job.id, ImportParams.model_validate(job.params))

    async def can_run(self, job: Job) -> bool:
        """See JobWorker. An upload is in the data folder of the process that received it."""
        if job.type != "import":
            return True
        return self._importer.path(ImportParams.model_validate(job.params)).exists()

    async def work(self, job: Job, report: JobReport) -> dict[str, object]:
        """See JobWorker. A job fails during an outage of the embedder; placements and automatic
        rebuilds start again later."""
        account = self._embedders.account(self._catalog)
        account.limit_usd = self._runs.limit_usd(job)
        report.other_cost = lambda: account.cost_usd
        try:
            with counting(account):
                result = await self._runs.run(job, report)
        except EmbedderUnavailable as error:
            is_spent = isinstance(error, EmbedderBudgetSpent)
            pause_s = _BUDGET_PAUSE_S if is_spent else _EMBEDDER_PAUSE_S
            self._paused_until = time.monotonic() + pause_s
            raise
        finally:
            account.open = False
            report.update_cost()
        await account.save_refused()
        return {**result, "embeddings": account.result()} if account.counted else result

    async def aclose(self) -> None:
        """Finish within two seconds what writes have started; the next start does the rest."""
        await together(
            [
                self._refresher.aclose(),
                self._enrichment.aclose(),
                self._background.aclose(_CLOSE_S),
                self._close_writing(),
            ]
        )

    async def _close_writing(self) -> None:
        await self._leaf_labels.aclose(_CLOSE_S)  # before the writer, which commits the labels
        await self._writer.aclose(_CLOSE_S)


def _list_of(versions: Sequence[int]) -> str:
    """The kept versions, as the end of a sentence."""
    names = [str(version) for version in versions]
    if len(names) > 1:
        return f"versions {', '.join(names[:-1])} and {names[-1]} are"
    return f"version {names[0]} is" if names else "none is"
