"""`recommend`: recommendations for one user, as a table."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from app.cli.session import CatalogOption, JsonOption, opened, out, print_json, run, table
from app.options import EffortName, StrategyName, TaskName

if TYPE_CHECKING:
    from app.recommend import Recommendation

_SEPARATOR = " › "


def recommend(
    history: Annotated[
        list[str] | None, typer.Option(help="Item ids, oldest first: id,id or given repeatedly.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="A sentence about the user.")] = None,
    instruction: Annotated[str | None, typer.Option(help="A wish in words, for now.")] = None,
    task: Annotated[
        TaskName,
        typer.Option(
            help="recommend: what suits; search: what the instruction asks for; complement: what "
            "goes with the history; explore: what suits and few know; trending: what rises now."
        ),
    ] = "recommend",
    domain: Annotated[list[str] | None, typer.Option(help="Only items of this domain.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 10,
    diversity: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    fold: Annotated[
        bool, typer.Option(help="Show one thing in several sizes, colours or editions once.")
    ] = True,
    group_by: Annotated[
        str | None, typer.Option(help="An attribute: at most one item for each of its values.")
    ] = None,
    effort: Annotated[EffortName, typer.Option(help="What a model may cost.")] = "auto",
    strategy: Annotated[
        StrategyName,
        typer.Option(help="How items are found; embedded asks no model."),
    ] = "beam",
    timeout_s: Annotated[float, typer.Option(min=0.1, max=600)] = 60,
    catalog: CatalogOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Recommend items to a user."""
    ids = [item_id for given in history or () for item_id in given.split(",") if item_id]
    asked: dict[str, object] = {
        "history": [{"item_id": item_id} for item_id in ids],
        "profile": profile,
        "instruction": instruction,
        "task": task,
        "domains": domain or None,
        "limit": limit,
        "diversity": diversity,
        "fold": fold,
        "group_by": group_by,
        "effort": effort,
        "strategy": strategy,
        "timeout_ms": round(1000 * timeout_s),
    }
    answer = run(_recommend(catalog, asked))
    if as_json:
        print_json(answer)
    else:
        _show(answer)


async def _recommend(catalog: str, asked: dict[str, object]) -> "Recommendation":
    from app.recommend import RecommendRequest

    request = RecommendRequest.model_validate(asked)
    async with opened(catalog) as (_, found):
        return await found.recommender.recommend(request)


def _show(answer: "Recommendation") -> None:
    rows = table("", "title", "path", "reason", "score")
    for item in answer.items:
        cells = (str(item.fields.get("title", item.item_id)), _SEPARATOR.join(item.path))
        rows.add_row(str(item.rank), *map(escape, (*cells, item.reason or "")), f"{item.score:.3f}")
    out.print(rows)
    if not answer.items:
        out.print("Nothing to recommend: the catalogue has no item that may be shown.")
    if answer.absent_items:
        out.print(f"Not in the catalogue: {', '.join(answer.absent_items)}", markup=False)
    if answer.degraded:
        out.print(f"Partly or wholly without the model: {answer.degraded_reason}", style="yellow")
    for warning in answer.warnings:
        out.print(warning.message, style="yellow", markup=False)
    usage = answer.usage
    if usage.calls:
        out.print(
            f"{usage.calls} calls in {usage.rounds} rounds, {usage.input_tokens:,} input tokens, "
            f"{usage.output_tokens:,} output tokens"
            + (f", ${usage.cost_usd:.4f}" if usage.cost_usd else ""),
            style="dim",
        )
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in answer.timing_ms.items())
    out.print(f"tree version {answer.tree_version}; milliseconds: {stages}", style="dim")
