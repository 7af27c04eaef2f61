"""`enrich`: lines that say in plain words what items are, by a model or from a file."""

import asyncio
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from app.cli.line_targets import Target, line_target
from app.cli.progress import bar, check_success
from app.cli.remote import KeyFileOption, UrlOption
from app.cli.session import CatalogOption, Failed, JsonOption, out, print_json, run, table

if TYPE_CHECKING:
    from app.curate import EnrichmentParams
    from app.curate.enrichment.line_file import EnrichmentReport
    from app.jobs import Job

# Vectors are fitted to the words that items had at the last rebuild. With the lines of 3,686 goods
# a rebuild lifts R@20 of wishes from .63 to .71 (2026-12).
_REBUILD_SHARE = 0.1


class Only(StrEnum):
    """Which items get lines of a model."""

    MISSING = "missing"
    STALE = "stale"
    ALL = "all"


def enrich(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            exists=True,
            dir_okay=False,
            help='Lines that were written elsewhere: {"item_id": …, "text": …} a line, gzipped or '
            'not. "text": null removes a line. No model is asked.',
        ),
    ] = None,
    catalog: CatalogOption = "default",
    only: Annotated[
        Only | None,
        typer.Option(
            help="missing (the default): items without a line; stale: those, and lines that a "
            "model wrote with other instructions; all: every item but those with a line of yours."
        ),
    ] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option(min=0, help="Most that the lines may cost. Default: as set.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate calls, tokens and cost.")
    ] = False,
    batch_api: Annotated[
        bool,
        typer.Option(
            "--batch-api", help="By the provider's batch API: half the price, within a day."
        ),
    ] = False,
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
    """Let a model write a line for each item: what it is in plain words, for whom and what for.

    Lines that are paid for are kept: when the command is stopped, the next one goes on. The
    catalogue can be used and changed meanwhile. With --from, sets lines that you have.
    """
    if source is not None:
        if only or dry_run or batch_api or max_cost_usd is not None:
            raise typer.BadParameter("--from asks no model: leave out what is about one")
        report, rebuilt = run(_from_file(source, catalog, url, key_file, rebuild, quiet=as_json))
        if as_json:
            print_json({**report.facts(), "rebuild": _json(rebuilt)})
        else:
            _show(report)
        run(_settled(report, rebuilt))
        return
    from app.curate import EnrichmentParams

    params = EnrichmentParams(
        only=(only or Only.MISSING).value,
        max_cost_usd=max_cost_usd,
        dry_run=dry_run,
        batch_api=batch_api,
    )
    job, rebuilt = run(_by_model(params, catalog, url, key_file, rebuild, quiet=as_json))
    if as_json:
        print_json({**job.model_dump(mode="json"), "rebuild": _json(rebuilt)})
    else:
        for line in _facts(job.result or {}):
            out.print(line, markup=False, highlight=False)
    if not dry_run:
        run(_check_written(job))


def _json(job: "Job | None") -> object:
    return job.model_dump(mode="json") if job else None


# -- by a model


async def _by_model(
    params: "EnrichmentParams",
    catalog: str,
    url: str | None,
    key_file: Path | None,
    rebuild: bool | None,
    *,
    quiet: bool,
) -> "tuple[Job, Job | None]":
    async with line_target(catalog, url, key_file) as target:
        job = await target.enrich(params, quiet=quiet)
        check_success(job)
        written = 0 if params.dry_run else msgspec.convert(job.result, _Written).enriched
        rebuilt = await _rebuilt(target, written, rebuild, quiet=quiet)
    if rebuilt:
        check_success(rebuilt)
    return job, rebuilt


async def _check_written(job: "Job") -> None:
    """Raises Failed when lines were wanted and not one is there."""
    done = msgspec.convert(job.result, _Written)
    if not done.enriched and (done.failed or done.left):
        raise Failed("not one item has got a line")


async def _rebuilt(
    target: Target, changed: int, rebuild: bool | None, *, quiet: bool
) -> "Job | None":
    """The ended rebuild, if there is to be one after so many new lines."""
    if rebuild is None:
        rebuild = changed >= max(1, _REBUILD_SHARE * await target.items())
    return await target.rebuild(quiet=quiet) if rebuild and changed else None


class _Estimate(msgspec.Struct):
    """See LineEstimate."""

    items: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class _Written(msgspec.Struct):
    """See RunResult."""

    enriched: int
    kept: int
    failed: dict[str, int]
    left: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    stopped: str | None = None


def _facts(result: Mapping[str, object]) -> Iterator[str]:
    """The lines that describe an enrichment."""
    if "estimate" in result:
        estimate = msgspec.convert(result["estimate"], _Estimate)
        cost = "no price is known" if estimate.cost_usd is None else f"{estimate.cost_usd:.2f} USD"
        yield (
            f"lines of {estimate.items:,} items would take about {estimate.calls:,} calls, "
            f"{estimate.input_tokens:,} tokens in and {estimate.output_tokens:,} out, {cost}"
        )
        return
    done = msgspec.convert(result, _Written)
    yield (
        f"{done.enriched:,} items have a line now, {done.kept:,} of them paid for before "
        f"({done.calls:,} calls, {done.input_tokens:,} tokens in and {done.output_tokens:,} out, "
        f"{done.cost_usd:.4f} USD)"
    )
    if done.failed:
        reasons = ", ".join(f"{count:,} {why}" for why, count in done.failed.items())
        yield f"no usable line, asked for again by the next enrich: {reasons}"
    if done.left:
        yield f"{done.left:,} items are left: the budget is spent; see --max-cost-usd"


# -- from a file


async def _from_file(
    source: Path,
    catalog: str,
    url: str | None,
    key_file: Path | None,
    rebuild: bool | None,
    *,
    quiet: bool,
) -> "tuple[EnrichmentReport, Job | None]":
    async with line_target(catalog, url, key_file) as target:
        report = await _set(source, target, quiet=quiet)
        return report, await _rebuilt(target, report.changed, rebuild, quiet=quiet)


async def _settled(report: "EnrichmentReport", job: "Job | None") -> None:
    if report.rejected:
        raise Failed(f"{report.rejected:,} of {report.read:,} lines were not used")
    if job:
        check_success(job)


async def _set(source: Path, target: Target, *, quiet: bool) -> "EnrichmentReport":
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
