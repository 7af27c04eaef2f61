"""`enrich`: lines that say in plain words what items are."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from app.cli.progress import bar, check_success, watch
from app.cli.remote import KeyFileOption, UrlOption, refusal, service
from app.cli.session import CatalogOption, Failed, JsonOption, opened, out, print_json, run, table

if TYPE_CHECKING:
    import httpx2

    from app.catalogs import Catalog
    from app.composition import Services
    from app.curate import LineResult
    from app.curate.enrichment.line_file import EnrichmentReport
    from app.jobs import Job
    from tree.item_line import ItemLine

# Vectors are fitted to the words that items had at the last rebuild. With the lines of 3,686 goods
# a rebuild lifts R@20 of wishes from .63 to .71 (2026-12).
_REBUILD_SHARE = 0.1
_SENT_AT_ONCE = 500
_LONGEST_PAUSE_S = 60.0


def enrich(
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            exists=True,
            dir_okay=False,
            help='Lines that were written elsewhere: {"item_id": …, "text": …} a line, gzipped or '
            'not. "text": null removes a line.',
        ),
    ],
    catalog: CatalogOption = "default",
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    rebuild: Annotated[
        bool | None,
        typer.Option(
            "--rebuild/--no-rebuild",
            help="Rebuild the tree afterwards, so that its vectors learn the words of the lines. "
            "Default: when a tenth of the items or more have changed.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Set the lines that say in plain words what items are, for whom and what for."""
    report, job = run(_enrich(source, catalog, url, key_file, rebuild, quiet=as_json))
    if as_json:
        print_json({**report.facts(), "rebuild": job.model_dump(mode="json") if job else None})
    else:
        _show(report)
    run(_settled(report, job))


async def _settled(report: "EnrichmentReport", job: "Job | None") -> None:
    if report.rejected:
        raise Failed(f"{report.rejected:,} of {report.read:,} lines were not used")
    if job:
        check_success(job)


class _Target(Protocol):
    """A catalogue, here or in a running service."""

    async def set_lines(self, lines: "Mapping[str, ItemLine | None]") -> "dict[str, LineResult]":
        """What became of each line."""
        ...

    async def items(self) -> int:
        """How many items it has."""
        ...

    async def rebuild(self, *, quiet: bool) -> "Job":
        """The ended rebuild."""
        ...


async def _enrich(
    source: Path,
    catalog: str,
    url: str | None,
    key_file: Path | None,
    rebuild: bool | None,
    *,
    quiet: bool,
) -> "tuple[EnrichmentReport, Job | None]":
    async with _target(catalog, url, key_file) as target:
        report = await _set(source, target, quiet=quiet)
        if rebuild is None:
            rebuild = report.changed >= max(1, _REBUILD_SHARE * await target.items())
        if not rebuild or not report.changed:
            return report, None
        return report, await target.rebuild(quiet=quiet)


@asynccontextmanager
async def _target(catalog: str, url: str | None, key_file: Path | None) -> AsyncIterator[_Target]:
    if url is None:
        async with opened(catalog) as (parts, found):
            yield _Here(parts, found)
    else:
        async with service(url, key_file) as client:
            yield _There(client, f"/v1/catalogs/{catalog}")


async def _set(source: Path, target: _Target, *, quiet: bool) -> "EnrichmentReport":
    from app.curate.enrichment.line_file import EnrichmentReport, read_lines
    from app.curate.imports.file_lines import Unreadable

    report = EnrichmentReport()
    with bar(quiet=quiet) as progress:
        row = progress.add_task("enriching", total=source.stat().st_size, unit="bytes")
        batches = read_lines(source, report)
        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                report.add(batch, await target.set_lines(batch.lines))
                progress.update(row, completed=batch.position)
        except Unreadable as error:
            detail = f"{source.name} is damaged after line {report.read:,}: {error}"
            raise Failed(f"{detail}; {report.set:,} lines before are set") from error
    return report


class _Here:
    """The catalogue in the store."""

    def __init__(self, parts: "Services", catalog: "Catalog") -> None:
        self._parts = parts
        self._catalog = catalog

    async def set_lines(self, lines: "Mapping[str, ItemLine | None]") -> "dict[str, LineResult]":
        return await self._catalog.curator.set_lines(lines, can_wait=True)

    async def items(self) -> int:
        return len(await self._catalog.store.load())

    async def rebuild(self, *, quiet: bool) -> "Job":
        job = await self._catalog.curator.start_rebuild()
        return await watch(job, self._parts.jobs.get, quiet=quiet)


class _There:
    """The catalogue in a running service."""

    def __init__(self, client: "httpx2.AsyncClient", path: str) -> None:
        self._client = client
        self._path = path

    async def set_lines(self, lines: "Mapping[str, ItemLine | None]") -> "dict[str, LineResult]":
        results: dict[str, LineResult] = {}
        rows = [{"item_id": item_id, "text": line and line.text} for item_id, line in lines.items()]
        for start in range(0, len(rows), _SENT_AT_ONCE):
            body: dict[str, object] = {"lines": rows[start : start + _SENT_AT_ONCE]}
            reply = await self._patiently(f"{self._path}/enrichments:batch", body)
            for row in reply.json()["results"]:
                status = row["status"]
                if status == "rejected":
                    raise Failed(f"the service refused a line: {row['problem']}")
                results[row["item_id"]] = "unknown" if status == "unknown_item" else status
        return results

    async def items(self) -> int:
        reply = await self._client.get(self._path)
        if reply.status_code != HTTPStatus.OK:
            raise Failed(refusal(reply))
        return int(reply.json()["items"])

    async def rebuild(self, *, quiet: bool) -> "Job":
        from app.jobs import Job

        reply = await self._client.post(f"{self._path}/tree/rebuilds", json={})
        if reply.status_code != HTTPStatus.ACCEPTED:
            raise Failed(f"the lines are set, but the tree was not rebuilt: {refusal(reply)}")

        async def read(job_id: str) -> Job | None:
            found = await self._client.get(f"/v1/jobs/{job_id}")
            return Job.model_validate_json(found.content) if found.is_success else None

        return await watch(Job.model_validate_json(reply.content), read, quiet=quiet)

    async def _patiently(self, path: str, body: dict[str, object]) -> "httpx2.Response":
        """The answer; a service that has too much to do is asked again when it says so."""
        while True:
            reply = await self._client.post(path, json=body)
            if reply.status_code == HTTPStatus.OK:
                return reply
            pause = reply.headers.get("retry-after", "")
            if reply.status_code != HTTPStatus.TOO_MANY_REQUESTS or not pause.isdecimal():
                raise Failed(refusal(reply))
            await asyncio.sleep(min(float(pause), _LONGEST_PAUSE_S))


def _show(report: "EnrichmentReport") -> None:
    out.print(
        f"{report.set:,} lines set, {report.unchanged:,} unchanged, {report.removed:,} removed, "
        f"{report.rejected:,} not used"
    )
    if report.errors:
        rows = table("line", "id", "problem", title="Not used")
        for error in report.errors:
            rows.add_row(str(error.line), error.id or "", error.problem)
        out.print(rows, markup=False)
