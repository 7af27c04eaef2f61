"""`backup`, `restore` and `compact`, for the whole store."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer
from rich.progress import Progress, TaskID

from app.cli.progress import bar
from app.cli.session import JsonOption, err, opened_store, out, print_json, run
from tree.worker import Background

if TYPE_CHECKING:
    from app.backup import ArchiveReader
    from app.jobs import JobReport

_PRIVATE = 0o600
_LOOK_S = 0.1


def backup(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write it, a zip file.")],
    as_json: JsonOption = False,
) -> None:
    """Write everything in the store into one file; the service may run meanwhile.

    The file has every catalogue with its items, tree, labels, locks, users and counts, the keys
    and the settings. Each catalogue is consistent.
    """
    facts = run(_backup(file, quiet=as_json))
    left_out = cast(dict[str, str], facts["left_out"])
    if as_json:
        print_json(facts)
    else:
        _report(file, facts)
    for name, flaw in left_out.items():
        err.print(
            f"catalogue {name} is damaged and not in the file: {flaw}", style="red", markup=False
        )
    if left_out:
        raise typer.Exit(1)


def _report(file: Path, facts: dict[str, object]) -> None:
    out.print(
        f"{facts['bytes']:,} bytes written to {file}, SHA-256 {facts['sha256']}",
        markup=False,
        soft_wrap=True,
    )
    if facts["damaged"]:
        out.print(
            f"{facts['damaged']} items are damaged and left out: see unillmrec doctor --deep",
            style="yellow",
        )


def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file of `backup`.")],
    catalog: Annotated[
        list[str] | None,
        typer.Option(
            "--catalog",
            "-c",
            help="Only this catalogue, as NAME or, under another name, OLD=NEW; repeatable.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace catalogues that are not empty.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into the store; the service may run meanwhile.

    The whole file is checked before anything changes. A catalogue appears once it is complete.
    """
    restored = run(_restore(file, catalog, overwrite=overwrite, check=check, quiet=as_json))
    if as_json:
        print_json({"file": str(file), "restored": not check, "catalogs": restored})
        return
    for name, items in restored.items():
        done = "is whole in the file" if check else "is restored"
        out.print(f"catalogue {name} {done}: {items:,} items", markup=False)


def compact(as_json: JsonOption = False) -> None:
    """Rewrite the store's append-only file without deleted and erased data.

    Until then it contains the ids of erased users, and old versions of items.
    """
    run(_compact())
    if as_json:
        print_json({"compacted": True})
    else:
        out.print(
            "The append-only file is rewritten: data that was deleted or erased is no longer in it."
        )


async def _backup(file: Path, *, quiet: bool) -> dict[str, object]:
    from app.backup import backup_pieces
    from app.jobs import JobReport

    report, found, size = JobReport.unwatched(), hashlib.sha256(), 0
    part = file.with_name(f"{file.name}.part")
    try:
        async with opened_store() as parts:
            with _private(part) as target, bar(quiet=quiet) as progress:
                row = progress.add_task("backup", total=None, unit="items")
                async for piece in backup_pieces(parts.catalogs, report):
                    await asyncio.to_thread(target.write, piece)
                    found.update(piece)
                    size += len(piece)
                    _show(report, progress, row)
        with bar(quiet=quiet) as progress:
            archive = await asyncio.to_thread(_read, part, progress)
        archive.close()
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    catalogs = archive.manifest.catalogs
    return {
        "file": str(file),
        "bytes": size,
        "sha256": found.hexdigest(),
        "left_out": archive.manifest.left_out,
        "damaged": sum(facts.damaged for facts in catalogs.values()),
        "catalogs": {name: facts.model_dump(mode="json") for name, facts in catalogs.items()},
    }


async def _restore(
    file: Path, only: list[str] | None, *, overwrite: bool, check: bool, quiet: bool
) -> dict[str, int]:
    from app.backup import Restore
    from app.jobs import JobReport

    with (
        bar(quiet=quiet) as progress,
        closing(await asyncio.to_thread(_read, file, progress)) as archive,
    ):
        names = _names(only)
        if check:
            return {name: archive.facts(name).items for name in names or archive.manifest.catalogs}
        report = JobReport.unwatched()
        async with opened_store(create=True) as parts:
            row = progress.add_task("restore", total=None, unit="items")
            restore = Restore(archive, parts.catalogs, names, overwrite=overwrite)
            bars = Background("the progress bar")
            bars.start(_follow(report, progress, row))
            try:
                return await restore.run(report)
            finally:
                await bars.aclose()


async def _follow(report: "JobReport", progress: Progress, row: TaskID) -> None:
    while True:
        _show(report, progress, row)
        await asyncio.sleep(_LOOK_S)


async def _compact() -> None:
    from app.composition import compact_store
    from app.settings import Settings

    await compact_store(Settings())


def _names(only: list[str] | None) -> dict[str, str] | None:
    """The new name of each catalogue to restore, by its name in the file."""
    if not only:
        return None
    pairs = [one.partition("=") for one in only]
    return {old: new or old for old, _, new in pairs}


@contextmanager
def _private(part: Path) -> Iterator[BinaryIO]:
    """A new file for its owner only, as it contains users; flushed to the disk at the end."""
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _read(file: Path, progress: Progress) -> "ArchiveReader":
    """The archive, after a check of the whole file. Raises BadArchive."""
    from app.backup import ArchiveReader

    row = progress.add_task("checking", total=None, unit="bytes")
    try:
        return ArchiveReader(
            file, lambda done, total: progress.update(row, completed=done, total=total)
        )
    finally:
        progress.remove_task(row)


def _show(report: "JobReport", progress: Progress, row: TaskID) -> None:
    now = report.job.progress
    progress.update(row, description=now.phase, completed=now.done, total=now.total, unit=now.unit)
