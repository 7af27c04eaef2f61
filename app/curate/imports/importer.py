"""`Importer`: stages the items of an uploaded file, and resumes where an earlier run ended."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.curate.imports.file_lines import Unreadable
from app.curate.imports.item_reader import ImportReport, read_items
from app.curate.threads import IMPORTS
from app.curate.writes.kept_lines import with_kept_lines
from app.jobs import Job, JobFailed, JobReport
from tree.domains import Domains
from tree.errors import Overtaken
from tree.item import Item
from tree.store.protocol import Checkpoint, WritableStore
from tree.worker import undivided


class ImportParams(BaseModel):
    """The parameters of an import."""

    model_config = ConfigDict(frozen=True)

    upload: str  # the name of a file in the folder of uploads
    on_error: Literal["skip", "abort"] = "skip"
    dry_run: bool = False


def forget_upload(uploads: Path, job: Job) -> None:
    """Remove the file that an import was to read; other jobs have none."""
    if job.type == "import":
        (uploads / ImportParams.model_validate(job.params).upload).unlink(missing_ok=True)


class Importer:
    """Stages items in batches. Each batch is durable, together with the position in the file."""

    def __init__(self, store: WritableStore, uploads: Path, most_bytes: int | None = None) -> None:
        """`most_bytes` may be unpacked from an upload."""
        self._store = store
        self._uploads = uploads
        self._most_bytes = most_bytes

    def path(self, params: ImportParams) -> Path:
        """The path of the upload."""
        return self._uploads / params.upload

    async def stored(self, job_id: str) -> ImportReport:
        """What an import has staged so far, in this process or in another one."""
        checkpoint = await self._store.checkpoint(job_id)
        return (
            ImportReport() if checkpoint is None else ImportReport.model_validate_json(checkpoint)
        )

    async def partial_result(self, job_id: str, params: ImportParams) -> dict[str, object]:
        """The result of an import that ended early: what it has staged."""
        if params.dry_run:
            return {**ImportReport().result(stored=False), "dry_run": True}
        return (await self.stored(job_id)).result(stored=True)

    async def run(self, job_id: str, params: ImportParams, report: JobReport) -> ImportReport:
        """Stage the acceptable lines that are not staged yet; the report covers all lines.

        `on_error` abort stages nothing if there is a bad line, `dry_run` nothing at all.
        Raises JobFailed, also for a damaged file: the lines before the damage are staged.
        """
        checkpoint = await self._store.checkpoint(job_id)
        if checkpoint is None and (params.on_error == "abort" or params.dry_run):
            checked = await self._read(params, report, ImportReport(), "checking", None)
            if params.on_error == "abort" and checked.rejected:
                raise JobFailed(
                    "invalid_lines",
                    f"{checked.rejected} lines are not acceptable, so nothing was imported",
                    checked.result(stored=False),
                )
            if params.dry_run:
                return checked
        return await self._read(params, report, await self.stored(job_id), "reading", job_id)

    async def _read(
        self,
        params: ImportParams,
        report: JobReport,
        outcome: ImportReport,
        phase: str,
        job_id: str | None,
    ) -> ImportReport:
        """`outcome` for the whole file. The items are staged if there is a `job_id`."""
        path = self.path(params)
        report.phase(phase, path.stat().st_size, "bytes")
        report.advance(outcome.position)
        before = outcome.model_dump_json().encode() if outcome.read else b""
        domains = Domains(await self._store.load())
        batches = read_items(path, outcome, domains, most_bytes=self._most_bytes)
        try:
            while (items := await IMPORTS.run(next, batches, None)) is not None:
                if job_id and items:
                    checkpoint = Checkpoint(job_id, outcome.model_dump_json().encode(), before)
                    # A cancelled job waits for its last batch, which the checkpoint counts.
                    await undivided(self._stage(items, checkpoint))
                    before = checkpoint.content
                report.advance(outcome.position - report.job.progress.done)
        except Unreadable as error:
            result = outcome.result(stored=job_id is not None)
            raise JobFailed(error.code, str(error), result) from error
        return outcome

    async def _stage(self, items: Sequence[Item], checkpoint: Checkpoint) -> None:
        """Stage items with the lines that they keep; none is lost that is set meanwhile."""

        async def stage(*, is_alone: bool) -> None:
            tree = await self._store.load()
            kept = await with_kept_lines(self._store, tree, items)
            await self._store.stage(kept, checkpoint, lines_of=None if is_alone else tree)

        try:
            await stage(is_alone=False)
        except Overtaken:
            async with self._store.commit_lock():
                await stage(is_alone=True)
