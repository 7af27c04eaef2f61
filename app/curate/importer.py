"""`Importer`: a file of items goes to the staging area, from wherever it was left off."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.curate.imports import ImportReport, Unreadable, read_items
from app.jobs import JobFailed, Report
from tree.store.protocol import Mark, TreeStore


class ImportParams(BaseModel):
    """What an import was asked for."""

    model_config = ConfigDict(frozen=True)

    upload: str  # the name of a file in the folder of uploads
    on_error: Literal["skip", "abort"] = "skip"
    dry_run: bool = False


class Importer:
    """Reads uploads. What it has read is durable, and so is how far it has come."""

    def __init__(self, store: TreeStore, uploads: Path) -> None:
        self._store = store
        self._uploads = uploads

    def path(self, params: ImportParams) -> Path:
        """Where the upload lies."""
        return self._uploads / params.upload

    async def stored(self, job_id: str) -> ImportReport:
        """What an import has staged by now, wherever it runs or ended."""
        mark = await self._store.mark(job_id)
        return ImportReport() if mark is None else ImportReport.model_validate_json(mark)

    async def run(self, job_id: str, params: ImportParams, report: Report) -> ImportReport:
        """Stage all acceptable lines that are not staged yet; what became of all of them.

        `on_error` abort stages nothing if there is a bad line, `dry_run` nothing at all.
        Raises JobFailed, also when the file breaks off: what comes before is staged.
        """
        mark = await self._store.mark(job_id)
        if mark is None and (params.on_error == "abort" or params.dry_run):
            checked = await self._read(params, report, ImportReport(), "checking", None)
            if params.on_error == "abort" and checked.rejected:
                raise JobFailed(
                    "invalid_lines",
                    f"{checked.rejected} lines are not acceptable, so nothing was imported",
                    checked.result(),
                )
            if params.dry_run:
                return checked
        return await self._read(params, report, await self.stored(job_id), "reading", job_id)

    async def _read(
        self,
        params: ImportParams,
        report: Report,
        outcome: ImportReport,
        phase: str,
        job_id: str | None,
    ) -> ImportReport:
        """`outcome` for the whole file; the items are staged when there is a `job_id` to mark."""
        path = self.path(params)
        report.phase(phase, path.stat().st_size, "bytes")
        report.advance(outcome.position)
        before = outcome.model_dump_json().encode() if outcome.read else b""
        batches = read_items(path, outcome)
        try:
            while items := await asyncio.to_thread(next, batches, None):
                if job_id:
                    mark = Mark(job_id, outcome.model_dump_json().encode(), before)
                    await _undivided(self._store.stage(items, mark))
                    before = mark.content
                report.advance(outcome.position - report.job.progress.done)
            report.advance(outcome.position - report.job.progress.done)
        except Unreadable as error:
            result = {**outcome.result(), "stored": job_id is not None}
            raise JobFailed("unreadable", str(error), result) from error
        return outcome


async def _undivided(staging: Coroutine[None, None, None]) -> None:
    """Wait for the end of `staging` also when cancelled.

    A batch that is on its way is stored, whoever has stopped listening: the mark read afterwards
    is to count it.
    """
    work = asyncio.ensure_future(staging)
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # looked at: the cancellation is what is told
        raise
