"""`Curator`: all changes of one catalogue go through here."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from app.curate.building import engine_for
from app.curate.importer import Importer, ImportParams
from app.curate.labels import LabelRefresher, ModelLabels
from app.curate.naming import LeafNames
from app.curate.reading import COMMIT_ITEMS
from app.curate.rebuilder import Losses, Rebuilder
from app.curate.texts import TextReader
from app.curate.writer import Writer
from app.jobs import Job, JobFailed, JobRunning, Jobs, Report
from app.llm import Models
from app.settings import Settings
from tree import inspect
from tree.edits import Edit, Relabel, Reshape
from tree.embedders import EmbedderCache
from tree.errors import EmbedderUnavailable, InvalidEdit, TreeError, UnknownVersion
from tree.item import Item
from tree.node import ROOT, Node
from tree.snapshot import SemanticTree
from tree.store.documents import MemoryDocuments
from tree.store.protocol import TreeStore

logger = logging.getLogger(__name__)

RebuildMode = Literal["full", "relabel", "subtree"]

_CHORES_S = 5.0
_NAMED_AT_MOST = 100  # damaged items, and lost labels, in the result of a rebuild
_ONLY_ONE_KEPT = "UNILLMREC_KEPT_VERSIONS is 1, so no version stays to go back to; set it to 2"
_FIRST_FIT = 64  # items after which an unfitted catalogue is built for the first time
_EMBEDDER_AGAIN_S = 30.0  # until what failed for want of the embedder begins by itself again


class RebuildParams(BaseModel):
    """What a rebuild was asked for."""

    model_config = ConfigDict(frozen=True)

    mode: RebuildMode = "full"
    root: int | None = None
    dry_run: bool = False
    max_cost_usd: float | None = None


class Curator:
    """Puts, deletes, imports and rebuilds for one catalogue; see `Worker` for its jobs.

    Any number of processes may curate the same catalogue at once.
    """

    def __init__(
        self,
        catalog: str,
        store: TreeStore,
        jobs: Jobs,
        embedders: EmbedderCache,
        settings: Settings,
        models: Models | None = None,
        language: str = "en",
        texts: TextReader | None = None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._jobs = jobs
        self._embedders = embedders
        self._growth = settings.rebuild_growth
        self._kept_versions = settings.kept_versions
        self._writer = Writer(
            store, embedders, settings.commit_window_ms / 1000, self._look_after, texts
        )
        self._names = LeafNames(store, self._writer.relabel)
        self._labels = ModelLabels(models or Models.none(MemoryDocuments()), settings, language)
        self._refresher = LabelRefresher(store, self._labels, settings)
        self._rebuilder = Rebuilder(store, embedders, self._labels, engine_for(settings))
        self._importer = Importer(store, settings.uploads)
        self._building = asyncio.Lock()
        self._paused_until = 0.0
        self._chores: set[asyncio.Task[None]] = set()

    async def put(self, items: Sequence[Item]) -> dict[str, bool]:
        """Create or replace items, of distinct ids; whether each was created.

        They can be recommended from the next request on. Raises StoreUnavailable.
        """
        return await self.apply_batch(items, ())

    async def patch(self, item_id: str, change: Callable[[Item], Item]) -> Item | None:
        """Change an item by its newest record, whoever else writes it; None when it is not there.

        `change` may be called several times, and what it raises is raised here.
        """
        return await self._writer.patch(item_id, change)

    async def delete(self, ids: Collection[str]) -> dict[str, bool]:
        """Remove items, which are gone from the next request on; whether each was there."""
        return await self.apply_batch((), ids)

    async def apply_batch(self, puts: Sequence[Item], deletes: Collection[str]) -> dict[str, bool]:
        """`put` and `delete` in one step, of disjoint ids."""
        results: dict[str, bool] = {}
        for start in range(0, max(len(puts), 1), COMMIT_ITEMS):
            some = {item.id: item for item in puts[start : start + COMMIT_ITEMS]}
            gone = frozenset(deletes) if start == 0 else frozenset()
            results |= await self._writer.write(some, gone)
        return results

    def _look_after(self, tree: SemanticTree, edits: Sequence[Edit]) -> None:
        """Name what a commit has reshaped; rebuild once the catalogue has outgrown its tree."""
        fresh = [spec.id for edit in edits if isinstance(edit, Reshape) for spec in edit.put]
        if fresh:
            self._names.note(fresh)
            self._refresher.note(tree, edits)
        paused = self._building.locked() or time.monotonic() < self._paused_until
        if not paused and self._outgrown(tree):
            self._in_background(self._start_by_itself(RebuildParams()))

    def _outgrown(self, tree: SemanticTree, more: int = 0) -> bool:
        """Whether as many items have come since the build as double (say) a catalogue.

        Also where others left: a vector space that was fitted to items that are gone tells those
        that came less well apart. `more` are about to come.
        """
        built_of = self._embedders.of(tree.space).population
        arrived = tree.arrived + more
        return len(tree) + more >= _FIRST_FIT and arrived >= (self._growth - 1) * built_of

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._done_or_told(work))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _done_or_told(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except TreeError as error:  # nobody waits for a chore; the next write brings it up again
            logger.warning("a chore of catalogue %s is left undone: %s", self._catalog, error)

    async def _start_by_itself(self, params: RebuildParams) -> None:
        with suppress(JobRunning):
            await self.start_rebuild(params, unasked=True)

    async def rename(self, node_id: int, label: str | None, locked: bool | None) -> Node:
        """Give a node another label, or lock the one it has. Raises UnknownNode."""
        return await self._writer.rename(node_id, label, locked)

    # -- jobs

    async def start_import(self, params: ImportParams) -> Job:
        """Import an uploaded JSONL file, gzipped or not, as a job that removes it at its end.

        `skip` leaves bad lines out; `abort` imports nothing if there is one. What was read is
        durable before it has its place in the tree, and keeps it when the import fails or is
        cancelled half-way.
        """
        return await self._jobs.start("import", self._catalog, params.model_dump(mode="json"))

    async def imported(self, job: Job) -> int:
        """How many lines of an import are durable by now, whether or not they have their place."""
        return (await self._importer.stored(job.id)).accepted

    async def start_rebuild(
        self,
        params: RebuildParams = RebuildParams(),  # noqa: B008
        *,
        unasked: bool = False,
    ) -> Job:
        """Build the tree anew, or a subtree, or only its labels, as a job.

        Ingestion and deletes go on meanwhile and are carried over. Raises JobRunning,
        UnknownNode.
        """
        if params.root is not None:
            (await self._store.load()).node(params.root)
        asked = params.model_dump(mode="json")
        return await self._jobs.start("rebuild", self._catalog, asked, unasked=unasked)

    async def start_activation(self, version: int) -> Job:
        """Put a version that is kept back into use, as a job: its shape, with the items of now.

        Raises JobRunning, UnknownVersion, and InvalidEdit for the one that is in use.
        """
        kept = [one.version for one in await self._store.versions()]
        why = f": {_ONLY_ONE_KEPT}" if self._kept_versions == 1 else ""
        if version not in kept:
            raise UnknownVersion(f"version {version} is not kept, but {kept} are{why}")
        if version == kept[0]:
            raise InvalidEdit(f"version {version} is in use{why}")
        return await self._jobs.start("activation", self._catalog, {"version": version})

    async def resume(self) -> None:
        """Place what was stored by an import that nobody is at."""
        if await self._jobs.under_way("import", self._catalog):
            return
        if await anext(aiter(self._store.staged(batch=1)), None):
            with suppress(JobRunning):
                await self._jobs.start("placement", self._catalog, {})

    async def tend(self) -> None:
        """See Worker."""
        if time.monotonic() >= self._paused_until:
            await self.resume()

    async def ended(self, job: Job) -> None:
        """See Worker."""
        if job.type == "import":
            self._importer.path(ImportParams.model_validate(job.params)).unlink(missing_ok=True)

    async def able(self, job: Job) -> bool:
        """See Worker. An upload lies in the data folder of the process that took it."""
        if job.type != "import":
            return True
        return self._importer.path(ImportParams.model_validate(job.params)).exists()

    async def work(self, job: Job, report: Report) -> dict[str, object]:
        """See Worker. What needs the embedder while it cannot be had fails, and begins anew by
        itself where it is a placement or an outgrown tree."""
        try:
            return await self._worked(job, report)
        except EmbedderUnavailable:
            self._paused_until = time.monotonic() + _EMBEDDER_AGAIN_S
            raise

    async def _worked(self, job: Job, report: Report) -> dict[str, object]:
        match job.type:
            case "import":
                return await self._import(job, report)
            case "placement":
                await self.place_staged(report)
                return {"items": len(await self._store.load())}
            case "rebuild":
                return await self._rebuild(RebuildParams.model_validate(job.params), report)
            case "activation":
                losses = Losses()
                async with self._building:
                    number = TypeAdapter(int).validate_python(job.params["version"])
                    after = await self._rebuilder.activate(number, report, losses)
                return {
                    "tree_version": after.version,
                    "items": len(after),
                    "labels_lost": losses.labels[:_NAMED_AT_MOST],
                }

    async def _import(self, job: Job, report: Report) -> dict[str, object]:
        params = ImportParams.model_validate(job.params)
        try:
            outcome = await self._importer.run(job.id, params, report)
            if not params.dry_run:
                await self.place_staged(report)
        except JobFailed:  # what was read before is durable: it gets its place all the same
            await self.place_staged(report)
            raise
        except asyncio.CancelledError:
            if not report.goes_on:
                self._in_background(self.place_staged(Report.unwatched()))
            raise
        if params.dry_run:
            return {**outcome.result(), "dry_run": True}
        tree = await self._store.load()
        return {**outcome.result(), "items": len(tree), "tree_version": tree.version}

    async def place_staged(self, report: Report) -> None:
        """Give every staged item its place: one by one, or by a rebuild where they are many.

        Memory does not depend on how many they are.
        """
        if await self._staged_outgrow():
            async with self._building:
                if await self._staged_outgrow():
                    await self._rebuilder.full(report)
                    self._write_labels_later()
        total = sum([len(ids) async for ids in self._store.staged()])
        report.phase("placing", total)
        placed = True
        while placed:
            placed = False
            async for ids in self._store.staged(batch=COMMIT_ITEMS):
                count = await self._writer.place(ids)
                report.advance(count)
                placed = placed or count > 0

    def _write_labels_later(self) -> None:
        """Whoever waits for the items does not wait for a model."""
        if self._labels.configured:
            self._in_background(self._start_by_itself(RebuildParams(mode="relabel")))

    async def _staged_outgrow(self) -> bool:
        """Whether the tree should be built anew for what waits."""
        tree = await self._store.load()
        fresh = waiting = 0
        async for ids in self._store.staged():
            waiting += len(ids)
            fresh += sum(item_id not in tree for item_id in ids)
        return waiting > 0 and self._outgrown(tree, fresh)

    async def _rebuild(self, params: RebuildParams, report: Report) -> dict[str, object]:
        top = ROOT if params.root is None else params.root
        publish = not params.dry_run
        relabelled: list[Relabel] = []
        losses = Losses()
        async with self._building:
            match params.mode:
                case "full":
                    tree = await self._rebuilder.full(report, publish=publish, losses=losses)
                case "subtree":
                    tree = await self._rebuilder.subtree(
                        top, report, publish=publish, losses=losses
                    )
                case "relabel":
                    tree, relabelled = await self._rebuilder.relabelled(report)
            result: dict[str, object] = {"dry_run": params.dry_run}
            if self._labels.configured and params.dry_run:
                nodes = None if top == ROOT else [node.id for node in tree.walk(top)]
                estimate = await self._labels.estimate(tree, nodes, self._store.items)
                result["labels"] = asdict(estimate)
            elif self._labels.configured:
                labels = await self._rebuilder.written(tree, top, report, params.max_cost_usd)
                relabelled += labels.edits
                result["labels"] = labels.result()
            if publish and relabelled:
                tree = await self._rebuilder.publish_labels(relabelled, report)
        figures = await asyncio.to_thread(inspect.statistics, tree)
        return {
            **result,
            "tree_version": tree.version,
            **asdict(figures),
            "damaged": len(losses.damage),
            "damaged_items": dict(islice(losses.damage.items(), _NAMED_AT_MOST)),
            "labels_lost": losses.labels[:_NAMED_AT_MOST],
        }

    async def aclose(self) -> None:
        """Finish what was begun after the last writes, or leave it to the next start."""
        await self._refresher.aclose()
        await self._names.aclose(_CHORES_S)
        await self._writer.aclose(_CHORES_S)
        if self._chores:
            _, pending = await asyncio.wait(self._chores, timeout=_CHORES_S)
            for chore in pending:
                chore.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
