"""`Enrichment`: all that writes lines with a model in one catalogue."""

import math
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict

from app.budget import Budget
from app.curate.enrichment.item_pictures import ItemPictures
from app.curate.enrichment.line_refresher import LineRefresher
from app.curate.enrichment.line_run import LineRun, RunResult, SetLines
from app.curate.enrichment.line_scan import Choice, LineScan
from app.curate.enrichment.line_writer import LineWriter, Task
from app.curate.owner_settings import EnrichmentOptions, OwnerSettings
from app.jobs import Job, JobFailed, JobReport
from app.llm import ModelRejected, Models, ModelUnavailable
from app.llm.errors import NoBatchApi, NoReplyMode
from app.llm.writing_model import WritesNoText
from app.settings import Settings
from tree.store.protocol import ReadableStore

_SAMPLE = 600  # items whose questions are counted for an estimate
_PATIENCE_S = 600.0  # a job outlives an outage of some minutes
_MANY = 10**12


class EnrichmentParams(BaseModel):
    """The parameters of an enrichment."""

    model_config = ConfigDict(frozen=True)

    only: Choice = "missing"
    max_cost_usd: float | None = None
    dry_run: bool = False
    batch_api: bool = False


class Enrichment:
    """Jobs that write lines, and the lines of new and changed items in the background."""

    def __init__(
        self,
        store: ReadableStore,
        set_lines: SetLines,
        models: Models,
        settings: Settings,
        owner: OwnerSettings,
        *,
        catalog: str = "",
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """`patience_s`: how long a job waits for the end of an outage."""
        self._store = store
        self._models = models
        self._set_lines = set_lines
        self._settings = settings
        self._owner = owner
        self._patience_s = patience_s
        pictures = ItemPictures(settings.llm_enrich_pictures, settings.llm_picture_hosts)
        self._writer = LineWriter(
            models,
            models.documents,
            pictures,
            timeout_s=settings.llm_enrich_timeout_s,
            catalog=catalog,
        )
        self.refresher = LineRefresher(store, self._writer, set_lines, settings, owner)

    async def run(self, job: Job, report: JobReport) -> dict[str, object]:
        """The result of a job; what another process has written of it is not written again.

        Raises JobFailed, StoreUnavailable.
        """
        params = EnrichmentParams.model_validate(job.params)
        if not self._writer.configured:
            raise JobFailed("no_model", "there is no model: set UNILLMREC_LLM_MODEL")
        options = await self._owner.enrichment()
        if params.dry_run:
            return await self._estimate(params, options, report)
        limit = params.max_cost_usd
        if limit is None:
            limit = self._settings.llm_enrich_cost_usd
        task = self._writer.task(
            job.id,
            self._owner.language,
            options.guidance,
            Budget(_MANY, _MANY, max(0.0, limit - job.cost_usd)),
            renewal=job.id if params.only == "all" else "",
            images=options.images,
            again=True,
        )
        run = LineRun(
            self._store,
            self._writer,
            self._set_lines,
            task,
            report,
            at_once=self._settings.llm_enrich_concurrency,
            patience_s=self._patience_s,
        )
        came = 0
        try:
            if params.batch_api:
                came = await self._by_batches(job, task, params.only, report)
            done = await run.over(params.only)
            done.kept = max(0, done.kept - came)
        except WritesNoText:
            run.result.stopped = "no_text"
            done = run.result
        except NoReplyMode:  # before a batch
            run.result.stopped = "invalid"
            done = run.result
        except ModelUnavailable as error:  # of the batch API
            raise JobFailed("llm_unavailable", str(error), run.result.result(task)) from error
        except NoBatchApi as error:
            raise JobFailed("no_batch_api", str(error), run.result.result(task)) from error
        except ModelRejected as error:
            raise JobFailed("model_rejected", str(error), run.result.result(task)) from error
        _check_end(job, task, done)
        return done.result(task)

    async def _by_batches(self, job: Job, task: Task, only: Choice, report: JobReport) -> int:
        """Keep lines that the batch API has written; how many came."""
        from app.curate.enrichment.line_batches import LineBatches  # imports the client library
        from app.llm.batch_run import BatchRun

        api = self._models.line_batches
        if api is None:
            raise NoBatchApi
        context = task.context
        calls = BatchRun(
            api, self._models.documents, job.catalog, price=context.price, totals=context.totals
        )
        return await LineBatches(self._store, self._writer, calls).fill(task, only, report)

    async def _estimate(
        self, params: EnrichmentParams, options: EnrichmentOptions, report: JobReport
    ) -> dict[str, object]:
        """As if no line were there: lines that are paid for are not looked up."""
        report.phase("estimating", unit="lines")
        tree = await self._store.load()
        ids, total = await LineScan(params.only).sample(tree, _SAMPLE)
        items = list((await self._store.items(ids)).values())
        estimate = self._writer.estimate(
            items, total, self._owner.language, options.guidance, images=options.images
        )
        report.phase("estimating", total, "lines")
        report.advance(total)
        told = asdict(estimate)
        if params.batch_api and estimate.cost_usd is not None:
            told["cost_usd"] = estimate.cost_usd / 2
        return {"dry_run": True, "estimate": told}

    async def aclose(self) -> None:
        """End the background work; the next start finds what is left of it."""
        await self.refresher.aclose()
        await self._writer.aclose()


def _check_end(job: Job, task: Task, done: RunResult) -> None:
    """Raise JobFailed when a run has ended in a way that the caller has to mend."""
    result = done.result(task)
    match done.stopped:
        case "unavailable":
            detail = "the model does not answer; start it again, and it goes on"
            raise JobFailed("llm_unavailable", detail, result)
        case "budget" if not (done.enriched or task.context.totals.calls or job.cost_usd):
            needed = math.ceil(done.needed_usd * 10_000) / 10_000
            detail = f"one call may cost up to {needed:.4f} USD: give at least that"
            raise JobFailed("budget_too_small", detail, result)
        case "invalid":
            raise JobFailed("llm_invalid", str(NoReplyMode()), result)
        case "no_text":
            raise JobFailed("no_text", "the model answers with numbers only", result)
