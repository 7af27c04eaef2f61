"""`versions` lists the stored versions of the tree; `activate` puts one back into use."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.progress import check_success, watch
from app.cli.session import CatalogOption, JsonOption, opened, out, print_json, run, table

if TYPE_CHECKING:
    from app.jobs import Job
    from tree.store.protocol import TreeVersion


def versions(catalog: CatalogOption = "default", as_json: JsonOption = False) -> None:
    """List the stored versions of the tree; the first is in use."""
    stored = run(_stored(catalog))
    if as_json:
        listed = [
            {"version": one.version, "items": one.items, "note": one.note, "built_at": _time(one)}
            for one in stored
        ]
        print_json({"catalog": catalog, "versions": listed})
        return
    rows = table("version", "items", "built", "made by", "in use")
    for at, one in enumerate(stored):
        built = f"{datetime.fromtimestamp(one.built_at, UTC):%Y-%m-%d %H:%M} UTC"
        rows.add_row(str(one.version), f"{one.items:,}", built, one.note, "" if at else "✓")
    out.print(rows)


def activate(
    version: Annotated[int, typer.Argument(min=0, help="A number from `versions`.")],
    catalog: CatalogOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Put a stored version back into use, with the current items."""
    job = run(_activate(catalog, version, quiet=as_json))
    if as_json:
        print_json(job)
    elif job.result:
        out.print(f"version {version} is in use again, as {job.result['tree_version']}")


async def _stored(catalog: str) -> list["TreeVersion"]:
    async with opened(catalog) as (_, found):
        return await found.store.versions()


async def _activate(catalog: str, version: int, *, quiet: bool) -> "Job":
    async with opened(catalog) as (parts, found):
        job = await found.curator.start_activation(version)
        job = await watch(job, parts.jobs.get, quiet=quiet)
    check_success(job)
    return job


def _time(one: "TreeVersion") -> str:
    return datetime.fromtimestamp(one.built_at, UTC).isoformat()
