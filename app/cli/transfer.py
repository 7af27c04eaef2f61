"""`import` and `export`: whole catalogues in and out."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.table import Table

from app.cli.session import (
    CatalogOption,
    Failed,
    Interrupted,
    JsonOption,
    opened,
    out,
    print_json,
    run,
)
from app.cli.watching import bar, ended_well, watch

if TYPE_CHECKING:
    import httpx2

    from app.jobs import Job

_PIECE_BYTES = 262_144
_COPIED_AT_ONCE = 1_048_576
_GZIP_MAGIC = b"\x1f\x8b"

_UrlOption = Annotated[
    str | None, typer.Option("--url", help="A running service; else straight to the store.")
]


class OnError(StrEnum):
    """What becomes of bad lines."""

    SKIP = "skip"
    ABORT = "abort"


def import_file(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="JSON Lines, gzipped or not."),
    ],
    catalog: CatalogOption = "default",
    url: _UrlOption = None,
    on_error: Annotated[
        OnError, typer.Option(help="Leave bad lines out, or import nothing if there is one.")
    ] = OnError.SKIP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the lines.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create or replace items from a file, one JSON object a line."""
    if url is None:
        work = _import_here(file, catalog, on_error, dry_run, quiet=as_json)
    else:
        work = _import_there(url, file, catalog, on_error, dry_run, quiet=as_json)
    job = run(work)
    if as_json:
        print_json(job)
    else:
        _report(job)
    run(_settled(job))


def export(
    catalog: CatalogOption = "default",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Else to stdout.")
    ] = None,
    records: Annotated[
        bool,
        typer.Option(
            "--records", help="Whatever record can be read, also where the tree is damaged."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write every item of a catalogue, one JSON object a line."""
    count = run(_export(catalog, output, records=records))
    if output is not None and as_json:
        print_json({"catalog": catalog, "items": count, "output": str(output)})
    elif output is not None:
        out.print(f"{count:,} items written to {output}", markup=False)


async def _settled(job: "Job") -> None:
    ended_well(job)


async def _import_here(
    file: Path, catalog: str, on_error: OnError, dry_run: bool, *, quiet: bool
) -> "Job":
    from app.curate import ImportParams
    from app.curate.uploads import arriving

    async with opened(catalog) as (parts, found):
        with arriving(parts.settings.uploads) as upload, file.open("rb") as source:
            await asyncio.to_thread(shutil.copyfileobj, source, upload.file, _COPIED_AT_ONCE)
            path = upload.finish()  # the job removes it
        try:
            params = ImportParams(upload=path.name, on_error=on_error.value, dry_run=dry_run)
            job = await found.curator.start_import(params)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        try:
            return await watch(job, parts.jobs.get, quiet=quiet)
        except asyncio.CancelledError as error:
            await parts.jobs.cancel(job.id)
            await parts.jobs.wait(job.id)
            raise Interrupted(_told(await found.curator.imported(job))) from error


def _told(stored: int) -> str:
    if not stored:
        return "stopped; nothing was imported"
    return (
        f"stopped; {stored:,} lines are stored. Items without a place in the tree get it from the "
        "next `unillmrec serve` or `unillmrec rebuild`; to go on, import the file again: what is "
        "stored is replaced by the same"
    )


async def _import_there(
    url: str,
    file: Path,
    catalog: str,
    on_error: OnError,
    dry_run: bool,
    *,
    quiet: bool,
) -> "Job":
    from app.jobs import Job

    async with _service(url) as client:
        with file.open("rb") as source:
            zipped = source.read(2) == _GZIP_MAGIC
            source.seek(0)
            reply = await client.post(
                f"/v1/catalogs/{catalog}/imports",
                params={"on_error": on_error.value, "dry_run": dry_run},
                content=_pieces(source, file.stat().st_size, quiet=quiet),
                headers={"Content-Type": "application/gzip" if zipped else "application/x-ndjson"},
            )
        if reply.status_code != HTTPStatus.ACCEPTED:
            raise Failed(_refusal(reply))

        async def read(job_id: str) -> Job | None:
            reply = await client.get(f"/v1/jobs/{job_id}")
            if reply.status_code == HTTPStatus.NOT_FOUND:
                return None
            if reply.status_code != HTTPStatus.OK:
                raise Failed(_refusal(reply))
            return Job.model_validate_json(reply.content)

        return await watch(Job.model_validate_json(reply.content), read, quiet=quiet)


@asynccontextmanager
async def _service(url: str) -> AsyncIterator["httpx2.AsyncClient"]:
    """A client of a running service. Raises Failed where it does not answer."""
    import httpx2

    try:
        timeout = httpx2.Timeout(30.0, write=None)
        async with httpx2.AsyncClient(base_url=url, timeout=timeout) as client:
            yield client
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Failed(f"{url} does not answer ({str(error) or type(error).__name__})") from error


async def _pieces(source: BinaryIO, size: int, *, quiet: bool) -> AsyncIterator[bytes]:
    with bar(quiet=quiet) as progress:
        task = progress.add_task("uploading", total=size, unit="bytes")
        while piece := await asyncio.to_thread(source.read, _PIECE_BYTES):
            yield piece
            progress.advance(task, len(piece))


def _refusal(reply: "httpx2.Response") -> str:
    try:
        return f"the service refused: {reply.json()['detail']}"
    except (ValueError, LookupError, TypeError):
        return f"the service answered {reply.status_code}: is this its address?"


def _report(job: "Job") -> None:
    result = job.result or {}
    if not result:
        return
    accepted, rejected = result.get("accepted", 0), result.get("rejected", 0)
    refused = (job.problem or {}).get("code") == "invalid_lines"
    if result.get("dry_run") or refused or result.get("stored") is False:
        out.print(f"nothing imported: {accepted:,} lines are fine, {rejected:,} are not")
    else:
        out.print(f"{accepted:,} items accepted, {rejected:,} lines rejected")
    errors = result.get("errors")
    if not isinstance(errors, list) or not errors:
        return
    table = Table("line", "id", "problem", title="Rejected")
    for row in errors:
        table.add_row(str(row["line"]), row.get("id") or "", row["problem"])
    out.print(table, markup=False)


async def _export(catalog: str, output: Path | None, *, records: bool) -> int:
    from app.api.transfer import exported, exported_records

    async with opened(catalog) as (_, found):
        count = 0
        with _written(output) as file:
            async for lines in exported_records(found) if records else exported(found):
                file.write(lines)
                count += lines.count(b"\n")
        return count


@contextmanager
def _written(output: Path | None) -> Iterator[BinaryIO]:
    """Stdout, or a file that gets its name once it is whole."""
    if output is None:
        yield sys.stdout.buffer
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
