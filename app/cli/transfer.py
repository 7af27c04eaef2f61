"""`import` and `export` of whole catalogues."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from app.cli.progress import bar, check_success, watch
from app.cli.remote import KeyFileOption, UrlOption, refusal, service
from app.cli.session import (
    CatalogOption,
    Failed,
    Interrupted,
    JsonOption,
    opened,
    out,
    print_json,
    run,
    table,
)

if TYPE_CHECKING:
    from app.jobs import Job

_PIECE_BYTES = 262_144
_COPIED_AT_ONCE = 1_048_576
_GZIP_MAGIC = b"\x1f\x8b"


class OnError(StrEnum):
    """What to do with bad lines."""

    SKIP = "skip"
    ABORT = "abort"


def import_file(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="JSON Lines, gzipped or not."),
    ],
    catalog: CatalogOption = "default",
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    on_error: Annotated[
        OnError, typer.Option(help="Skip bad lines, or import nothing if there is one.")
    ] = OnError.SKIP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the lines.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create or replace items from a file, one JSON object a line."""
    if url is None:
        work = _import_here(file, catalog, on_error, dry_run, quiet=as_json)
    else:
        work = _import_there(url, key_file, file, catalog, on_error, dry_run, quiet=as_json)
    job = run(work)
    if as_json:
        print_json(job)
    else:
        _report(job)
    run(_settled(job))


def export(
    catalog: CatalogOption = "default",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="A file. Default: stdout.")
    ] = None,
    records: Annotated[
        bool,
        typer.Option("--records", help="Every readable record, also when the tree is damaged."),
    ] = False,
    users: Annotated[
        bool,
        typer.Option(
            "--users", help="Users with their histories, which `events` reads, in place of items."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write every item of a catalogue, or every user, one JSON object a line."""
    if users and records:
        raise typer.BadParameter("--users and --records exclude each other")
    what = "users" if users else "items"
    count = run(_export(catalog, output, records=records, users=users))
    if output is not None and as_json:
        print_json({"catalog": catalog, what: count, "output": str(output)})
    elif output is not None:
        out.print(f"{count:,} {what} written to {output}", markup=False)


async def _settled(job: "Job") -> None:
    check_success(job)


async def _import_here(
    file: Path, catalog: str, on_error: OnError, dry_run: bool, *, quiet: bool
) -> "Job":
    from app.curate import ImportParams
    from app.curate.imports.uploads import new_upload

    async with opened(catalog, create=True) as (parts, found):
        with new_upload(parts.settings.uploads) as upload, file.open("rb") as source:
            while piece := await asyncio.to_thread(source.read, _COPIED_AT_ONCE):
                await asyncio.to_thread(upload.file.write, piece)
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
            raise Interrupted(_interrupted(await found.curator.imported(job))) from error


def _interrupted(stored: int) -> str:
    if not stored:
        return "stopped; nothing was imported"
    return (
        f"stopped; {stored:,} lines are stored. The next `unillmrec serve` or `unillmrec rebuild` "
        "places items without a place in the tree. To continue, import the file again: stored "
        "items are replaced by the same"
    )


async def _import_there(
    url: str,
    key_file: Path | None,
    file: Path,
    catalog: str,
    on_error: OnError,
    dry_run: bool,
    *,
    quiet: bool,
) -> "Job":
    from app.jobs import Job

    async with service(url, key_file) as client:
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
            raise Failed(refusal(reply))

        async def read(job_id: str) -> Job | None:
            reply = await client.get(f"/v1/jobs/{job_id}")
            if reply.status_code == HTTPStatus.NOT_FOUND:
                return None
            if reply.status_code != HTTPStatus.OK:
                raise Failed(refusal(reply))
            return Job.model_validate_json(reply.content)

        job = Job.model_validate_json(reply.content)
        try:
            return await watch(job, read, quiet=quiet)
        except asyncio.CancelledError as error:
            raise Interrupted(
                f"stopped watching; the service continues job {job.id}. To end it: "
                f"curl -X POST {url}/v1/jobs/{job.id}:cancel"
            ) from error


async def _pieces(source: BinaryIO, size: int, *, quiet: bool) -> AsyncIterator[bytes]:
    with bar(quiet=quiet) as progress:
        task = progress.add_task("uploading", total=size, unit="bytes")
        while piece := await asyncio.to_thread(source.read, _PIECE_BYTES):
            yield piece
            progress.advance(task, len(piece))


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
    rows = table("line", "id", "problem", title="Rejected")
    for row in errors:
        rows.add_row(str(row["line"]), row.get("id") or "", row["problem"])
    out.print(rows, markup=False)


async def _export(catalog: str, output: Path | None, *, records: bool, users: bool) -> int:
    from app.api.transfer import exported, exported_records
    from app.signals import user_lines

    async with opened(catalog) as (_, found):
        count = 0
        if users:
            source = user_lines(found.feedback)
        else:
            source = exported_records(found) if records else exported(found)
        with _written(output) as file:
            async for lines in source:
                file.write(lines)
                count += lines.count(b"\n")
        return count


@contextmanager
def _written(output: Path | None) -> Iterator[BinaryIO]:
    """Stdout, or a file that gets its name when it is complete."""
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
