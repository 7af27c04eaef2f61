"""`versions` and `activate`: the trees that are kept, and one of them put back into use."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.session import CatalogOption, JsonOption, opened, out, print_json, run
from app.cli.watching import ended_well, watch

if TYPE_CHECKING:
    from app.jobs import Job
    from tree.store.protocol import TreeVersion


def versions(catalog: CatalogOption = "default", as_json: JsonOption = False) -> None:
    """List the versions of the tree that are kept; the first is in use."""
    kept = run(_kept(catalog))
    if as_json:
        rows = [
            {"version": one.version, "items": one.items, "note": one.note, "built_at": _time(one)}
            for one in kept
        ]
        print_json({"catalog": catalog, "versions": rows})
        return
    table = Table("version", "items", "built", "made by", "in use")
    for at, one in enumerate(kept):
        built = f"{datetime.fromtimestamp(one.built_at, UTC):%Y-%m-%d %H:%M} UTC"
        table.add_row(str(one.version), f"{one.items:,}", built, one.note, "" if at else "✓")
    out.print(table)


def activate(
    version: Annotated[int, typer.Argument(min=0, help="As `versions` lists it.")],
    catalog: CatalogOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Put a version that is kept back into use, with the items of now."""
    job = run(_activate(catalog, version, quiet=as_json))
    if as_json:
        print_json(job)
    elif job.result:
        out.print(f"version {version} is in use again, as {job.result['tree_version']}")


async def _kept(catalog: str) -> list["TreeVersion"]:
    async with opened(catalog) as (_, found):
        return await found.store.versions()


async def _activate(catalog: str, version: int, *, quiet: bool) -> "Job":
    async with opened(catalog) as (parts, found):
        job = await found.curator.start_activation(version)
        job = await watch(job, parts.jobs.get, quiet=quiet)
    ended_well(job)
    return job


def _time(one: "TreeVersion") -> str:
    return datetime.fromtimestamp(one.built_at, UTC).isoformat()
