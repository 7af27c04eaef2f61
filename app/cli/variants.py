"""`variants`: what came of the recommendations of each variant, beside the control."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.session import JsonOption, opened, out, print_json, run, table

if TYPE_CHECKING:
    from app.attribution.metrics import (
        RateDifference,
        RateEstimate,
        RecommendationMetrics,
        RecommendationMetricsRow,
    )
    from app.variants import Variant

_MOST_DAYS = 400


def variants(
    catalog: Annotated[str, typer.Argument(help="The catalogue.")] = "default",
    days: Annotated[
        int, typer.Option(min=1, max=_MOST_DAYS, help="How many days, until today.")
    ] = 30,
    as_json: JsonOption = False,
) -> None:
    """Show what came of the lists of each variant, and whether it is better than the control.

    The differences may be looked at every day: all looks together are wrong in at most 5 % of
    experiments. docs/experiments.md says how. Variants are set by `PATCH /v1/catalogs/{catalog}`.
    """
    found, known = run(_read(catalog, days))
    if as_json:
        print_json(found)
        return
    if not found.rows:
        out.print(f"no list of {catalog!r} was counted since {found.since}", markup=False)
        return
    measure = "ctr" if any(row.impressions for row in found.rows) else "clicks_per_list"
    name = "CTR" if measure == "ctr" else "clicks a list"
    rows = table(
        "variant", "share", "lists", name, "difference", "conversions a list", "difference",
        whole="variant",
    )  # fmt: skip
    for row in found.rows:
        share = known[row.label].share if row.label in known else None
        rows.add_row(
            row.label,
            "" if share is None else f"{share:.2%}",
            f"{row.lists:,}",
            _rate(getattr(row, measure)),
            _difference(row, measure),
            _rate(row.conversions_per_list),
            _difference(row, "conversions_per_list"),
        )
    out.print(rows)
    lost = found.unattributed
    out.print(
        f"{found.since} to {found.until}; events that belong to no list: {lost.late:,} late, "
        f"{lost.unknown:,} with an unknown recommendation_id, {lost.not_shown:,} of items that "
        "were not shown"
    )


async def _read(catalog: str, days: int) -> tuple["RecommendationMetrics", dict[str, "Variant"]]:
    """The metrics of the last days, and the variants there are now."""
    from app.attribution import report, today
    from app.attribution.metrics import RecommendationMetrics

    async with opened(catalog) as (_, found):
        until = today()
        since = until - timedelta(days=days - 1)
        tallies = await found.attributor.store.tallies(since, until)
        metrics = RecommendationMetrics.of(
            catalog, (since, until), "variant", report(tallies, "variant")
        )
        return metrics, found.settings.variants


def _rate(found: "RateEstimate | None") -> str:
    if found is None:
        return ""
    return f"{found.value:.4f} ({found.low:.4f} – {found.high:.4f})"


def _difference(row: "RecommendationMetricsRow", measure: str) -> str:
    """The difference to the control with the interval for all looks, and what it says."""
    if row.against_control is None:
        return ""
    found: RateDifference | None = getattr(row.against_control, measure)
    if found is None:
        return ""
    relative = "" if found.relative is None else f" ({found.relative:+.1%})"
    if found.sequence is None:
        return f"{found.value:+.4f}{relative}: too early"
    low, high = found.sequence.low, found.sequence.high
    return f"{found.value:+.4f}{relative}, {low:+.4f} … {high:+.4f}: {found.verdict}"
