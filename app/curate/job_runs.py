"""`JobRuns`: imports, placements, rebuilds and activations of one catalogue, as jobs run them."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from app.curate.enrichment.enrichment import Enrichment
from app.curate.growth import Growth
from app.curate.imports import Importer, ImportParams
from app.curate.rebuilder import Losses, Rebuilder
from app.curate.threads import JOBS
from app.curate.tuner import Tuner, TuningParams
from app.curate.writes import COMMIT_ITEMS, Writer
from app.jobs import Job, JobFailed, JobReport
from tree import inspect
from tree.edits import Relabel
from tree.node import ROOT
from tree.store.protocol import WritableStore
from tree.worker import Background, Work

RebuildMode = Literal["full", "relabel", "subtree"]

_MOST_LISTED = 100  # damaged items, and lost labels, in the result of a rebuild


class RebuildParams(BaseModel):
    """The parameters of a rebuild."""

    model_config = ConfigDict(frozen=True)

    mode: RebuildMode = "full"
    root: int | None = None
    embedder: str | None = None  # of mode full: another one than the catalogue has
    dry_run: bool = False
    max_cost_usd: float | None = None


class JobRuns:
    """Runs the jobs of one catalogue. One process builds one tree of it at a time."""

    def __init__(  # noqa: PLR0913, PLR0917 - one for each kind of job
        self,
        store: WritableStore,
        writer: Writer,
        importer: Importer,
        rebuilder: Rebuilder,
        enrichment: Enrichment,
        tuner: Tuner,
        growth: Growth,
        background: Background,
        start: Callable[[RebuildParams], Work[None]],
    ) -> None:
        """`start` starts a rebuild as another job."""
        self._store = store
        self._writer = writer
        self._importer = importer
        self._rebuilder = rebuilder
        self._enrichment = enrichment
        self._tuner = tuner
        self._growth = growth
        self._background = background
        self._start = start
        self._building = asyncio.Lock()

    @property
    def is_building(self) -> bool:
        """Whether this process builds a tree now."""
        return self._building.locked()

    @staticmethod
    def limit_usd(job: Job) -> float:
        """What the embedder may cost in this job: of a rebuild what it says, of others anything.

        The budget of the day is the limit of others: what they pay for is kept, so a limit for
        each would only divide the same cost among several.
        """
        limit = (
            RebuildParams.model_validate(job.params).max_cost_usd if job.type == "rebuild" else None
        )
        return math.inf if limit is None else max(0.0, limit - job.cost_usd)

    async def run(self, job: Job, report: JobReport) -> dict[str, object]:
        """The result of a job. Raises JobFailed, EmbedderUnavailable."""
        match job.type:
            case "import":
                return await self._import(job, report)
            case "placement":
                await self._place_staged(report)
                return {"items": len(await self._store.load())}
            case "rebuild":
                return await self._rebuild(RebuildParams.model_validate(job.params), report)
            case "activation":
                return await self._activate(job, report)
            case "enrichment":
                return await self._enrichment.run(job, report)
            case "recommendation":
                raise LookupError("a recommendation run changes no catalogue")
            case "tuning":
                async with self._building:
                    return await self._tuner.run(TuningParams.model_validate(job.params), report)

    async def _import(self, job: Job, report: JobReport) -> dict[str, object]:
        params = ImportParams.model_validate(job.params)
        try:
            outcome = await self._importer.run(job.id, params, report)
            if not params.dry_run:
                await self._place_staged(report)
        except JobFailed:  # the items that were read are durable
            await self._place_staged(report)
            raise
        except asyncio.CancelledError:
            if not report.continues:
                self._background.start(self._place_staged(JobReport.unwatched()))
            raise
        if params.dry_run:
            return {**outcome.result(stored=False), "dry_run": True}
        tree = await self._store.load()
        result = outcome.result(stored=True)
        return {**result, "items": len(tree), "tree_version": tree.version}

    async def _place_staged(self, report: JobReport) -> None:
        """Give every staged item its place: one by one, or by a rebuild when they are many.

        The memory that it takes does not depend on their number.
        """
        if await self._staged_outgrow_tree():
            async with self._building:
                if await self._staged_outgrow_tree():
                    await self._rebuilder.full(report)
                    self._start_labels()
        total = sum([len(ids) async for ids in self._store.staged_ids()])
        report.phase("placing", total)
        placed = True
        while placed:
            placed = False
            async for ids in self._store.staged_ids(batch=COMMIT_ITEMS):
                count = await self._writer.place(ids)
                report.advance(count)
                placed = placed or count > 0

    def _start_labels(self) -> None:
        """A job of its own: an import does not wait for a model."""
        if self._rebuilder.labels.configured:
            self._background.start(self._start(RebuildParams(mode="relabel")))

    async def _staged_outgrow_tree(self) -> bool:
        """Whether the tree should be built anew for the staged items."""
        tree = await self._store.load()
        fresh = waiting = 0
        async for ids in self._store.staged_ids():
            waiting += len(ids)
            fresh += tree.rows_of(ids).count(None)
        return waiting > 0 and self._growth.outgrown(tree, fresh)

    async def _rebuild(self, params: RebuildParams, report: JobReport) -> dict[str, object]:
        top = ROOT if params.root is None else params.root
        publish = not params.dry_run
        relabelled: list[Relabel] = []
        losses = Losses()
        async with self._building:
            match params.mode:
                case "full":
                    tree = await self._rebuilder.full(
                        report, embedder=params.embedder, publish=publish, losses=losses
                    )
                case "subtree":
                    tree = await self._rebuilder.subtree(
                        top, report, publish=publish, losses=losses
                    )
                case "relabel":
                    tree, relabelled = await self._rebuilder.relabelled(report)
            result: dict[str, object] = {"dry_run": params.dry_run}
            if self._rebuilder.labels.configured and params.dry_run:
                nodes = None if top == ROOT else [node.id for node in tree.walk(top)]
                estimate = await self._rebuilder.labels.estimate(tree, nodes, self._store.items)
                result["labels"] = asdict(estimate)
            elif self._rebuilder.labels.configured:
                labels = await self._rebuilder.labels_by_model(
                    tree, top, report, params.max_cost_usd
                )
                relabelled += labels.edits
                result["labels"] = labels.result()
            if publish and relabelled:
                tree = await self._rebuilder.publish_labels(relabelled, report)
        figures = await JOBS.run(inspect.statistics, tree)
        return {
            **result,
            "tree_version": tree.version,
            **asdict(figures),
            "damaged": len(losses.damage),
            "damaged_items": dict(islice(losses.damage.items(), _MOST_LISTED)),
            "labels_lost": losses.labels[:_MOST_LISTED],
        }

    async def _activate(self, job: Job, report: JobReport) -> dict[str, object]:
        losses = Losses()
        async with self._building:
            number = TypeAdapter(int).validate_python(job.params["version"])
            after = await self._rebuilder.activate(number, report, losses)
        return {
            "tree_version": after.version,
            "items": len(after),
            "labels_lost": losses.labels[:_MOST_LISTED],
        }
