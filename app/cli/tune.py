"""`tune`: vectors that have learned from a catalogue's own users."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from app.cli.line_targets import line_target
from app.cli.progress import check_success
from app.cli.remote import KeyFileOption, UrlOption
from app.cli.session import CatalogOption, JsonOption, out, print_json, run, table

if TYPE_CHECKING:
    from app.curate import TuningParams
    from app.jobs import Job


def tune(
    catalog: CatalogOption = "default",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only find out what it would bring.")
    ] = False,
    users: Annotated[
        int, typer.Option(min=1, help="Most users whose histories are read.")
    ] = 50_000,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from histories which items go together, where that finds more on other users.

    A small map of the vectors is learned. Users and items that it has not learned from decide how
    strongly it is mixed in, and whether it is used at all; then the tree is built anew. Items that
    come later get such vectors, too. An earlier version, or a rebuild with --embedder, undoes it.
    """
    from app.curate import TuningParams

    params = TuningParams(dry_run=dry_run, users=users)
    job = run(_tuned(params, catalog, url, key_file, quiet=as_json))
    if as_json:
        print_json(job)
    else:
        _show(job.result or {})


async def _tuned(
    params: "TuningParams", catalog: str, url: str | None, key_file: Path | None, *, quiet: bool
) -> "Job":
    async with line_target(catalog, url, key_file) as target:
        job = await target.tune(params, quiet=quiet)
    check_success(job)
    return job


class _Gain(msgspec.Struct):
    """See Gain."""

    before: float
    after: float
    low: float
    high: float
    gain: float


class _Figures(msgspec.Struct):
    """See TuningFigures."""

    cases: int
    recall: _Gain
    ndcg: _Gain


class _Confirmed(msgspec.Struct):
    """See Confirmed."""

    known: _Figures
    new: _Figures
    served: _Figures
    refused: str | None


class _Result(msgspec.Struct):
    """See Tuner."""

    training_users: int
    held_out_users: int
    mix: float
    factors: dict[str, float]
    applied: bool
    refused: str | None
    tree_version: int
    vectors: _Confirmed | None
    weights: _Confirmed | None


def _show(result: Mapping[str, object]) -> None:
    found = msgspec.convert(result, _Result)
    for title, of in (("Vectors", found.vectors), ("Weights", found.weights)):
        if of is not None:
            out.print(_table(title, of))
    learned = f"learned from {found.training_users:,} users, examined on {found.held_out_users:,}"
    changes = [f"mixed in by {found.mix:g}"] if found.mix else []
    changes += [f"{name} times {factor:g}" for name, factor in found.factors.items()]
    if found.refused:
        line = f"not used: {found.refused}"
    elif not found.applied:
        line = f"it would be used: {', '.join(changes)}"
    else:
        line = f"in use since version {found.tree_version:,}: {', '.join(changes)}"
    out.print(f"{line}; {learned}", markup=False, highlight=False)


def _table(title: str, found: _Confirmed) -> Table:
    title += f" (not used: {found.refused})" if found.refused else ""
    rows = table("held-out items", "cases", "R@20", "gain", "NDCG@20", "gain", title=title)
    kinds = {
        "known": found.known,
        "new, in no history": found.new,
        "known, with events": found.served,
    }
    for kind, of in kinds.items():
        cells = [cell for gain in (of.recall, of.ndcg) for cell in _cells(gain)]
        rows.add_row(kind, f"{of.cases:,}", *cells)
    return rows


def _cells(gain: _Gain) -> tuple[str, str]:
    difference = f"{gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"{gain.before:.4f} → {gain.after:.4f}", difference
