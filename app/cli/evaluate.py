"""`evaluate`: the quality of recommendations, on your own data or on public formats."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from app.cli.evaluate_halflife import advice, evaluated_half_lives
from app.cli.evaluate_wishes import Catalogues, evaluated_wishes
from app.cli.evaluation_options import OUT, Common, study
from app.cli.evaluation_setup import evaluating, loaded
from app.cli.session import Failed, JsonOption, explained, out, print_json, run
from app.evaluation.choices import (
    HALF_LIVES_DAYS,
    SHARES,
    SIZES,
    DomainBy,
    LeftOut,
    Protocol,
)

if TYPE_CHECKING:
    from app.evaluation.report import ResultRow, Results
    from app.evaluation.studies import StudyInput
    from app.evaluation.trials import Trial
    from app.llm import Models

commands = typer.Typer(
    help="Measure how good the recommendations are, on your own data or on public formats.",
    no_args_is_help=True,
)

_study = partial(study, commands)

Study: TypeAlias = Callable[["StudyInput", "Models"], Iterable["Trial"]]


@_study()
def compare(
    common: Common,
    protocol: Annotated[
        Protocol, typer.Option(help="Choice of targets.")
    ] = Protocol.LEAVE_LAST_OUT,
) -> None:
    """Compares systems on one protocol (table 2 of the paper)."""
    from app.evaluation import studies

    _run(common, lambda given, models: studies.compare(given, protocol, common.systems(models)))


@_study(without=("record", "replay"))
def training(
    common: Common,
    share: Annotated[
        list[float] | None,
        typer.Option(min=0.001, max=1, help="Share of users; may be repeated."),
    ] = None,
) -> None:
    """How much training data others need to reach the systems that need none (figure 4)."""
    from app.evaluation import studies

    learned = common.system or ["itemknn", "als"]
    _run(common, lambda given, _: studies.training(given, learned, ["embedded"], share or SHARES))


@_study()
def k(common: Common) -> None:
    """Quality by length of the list, and by items per leaf (figure 6)."""
    from app.evaluation import studies

    _run(common, lambda given, models: studies.k(given, common.systems(models, "paper")))


@_study()
def prompts(common: Common) -> None:
    """The four perspectives of the prompts (figure 7)."""
    from app.evaluation import studies

    _run(common, lambda given, _: studies.prompts(given, common.system or ["beam"]))


@_study(without=("system", "users"))
def tokens(
    common: Common,
    size: Annotated[
        list[int] | None, typer.Option(min=100, help="Number of items; may be repeated.")
    ] = None,
) -> None:
    """Tokens of prompts, by stage and size of the catalogue (figure 8).

    Where no model is configured, a stand-in reads the prompts.
    """
    from app.evaluation import studies

    _run(common, lambda given, _: studies.tokens(given, size or SIZES), stand_in=True)


@_study()
def topics(common: Common) -> None:
    """Topics of answers and of histories, by diversity (figure 9)."""
    from app.evaluation import studies

    _run(
        common,
        lambda given, models: studies.topics(given, common.systems(models)),
        metrics=("topic_similarity", "topic_level", "recall", "ndcg", "ilad", "coverage"),
    )


@_study()
def coldstart(
    common: Common,
    natural: Annotated[
        bool,
        typer.Option("--natural", help="Do not shorten histories."),
    ] = False,
    items: Annotated[
        bool,
        typer.Option("--items", help="By items instead: those in no training history, and others."),
    ] = False,
) -> None:
    """Quality by length of the history, or for items without events."""
    from app.evaluation import studies

    def study(given: "StudyInput", models: "Models") -> Iterable["Trial"]:
        if items:
            return studies.cold_items(given, common.systems(models))
        return studies.coldstart(replace(given, natural=natural), common.systems(models))

    _run(common, study)


@_study()
def crossdomain(
    common: Common,
    source: Annotated[str, typer.Option(help="Domain of the history.")] = "",
    target: Annotated[str, typer.Option(help="Domain of the recommended items.")] = "",
    by: Annotated[DomainBy, typer.Option(help="Field with the domain.")] = DomainBy.DOMAIN,
    unseen: Annotated[
        bool,
        typer.Option("--unseen", help="Learn from no events in the target domain."),
    ] = False,
) -> None:
    """Recommends items of one domain from a history in another."""
    from app.evaluation import studies

    def study(given: "StudyInput", models: "Models") -> Iterable["Trial"]:
        domains = replace(given, source=source, target=target, by=by, unseen=unseen)
        return studies.crossdomain(domains, common.systems(models))

    _run(common, study)


@_study(without=("system", "record", "replay"))
def halflife(
    common: Common,
    half_life: Annotated[
        list[float] | None,
        typer.Option(min=0, help="A half-life in days, 0 for none; may be repeated."),
    ] = None,
) -> None:
    """Chooses the half-life of counts, and what counts weigh, on data with times."""

    async def evaluated() -> None:
        results, rows, chosen = await evaluated_half_lives(common, half_life or HALF_LIVES_DAYS)
        _finish(common, results, rows, ("ndcg@20", "recall@20"))
        if not common.as_json:
            out.print(*advice(chosen), sep="\n", markup=False, soft_wrap=True)

    run(evaluated())


@_study(without=("data", "users", "min_rating"))
def wishes(
    common: Common,
    file: Annotated[
        Path,
        typer.Argument(
            help='Lines {"wish", "item_id"} or {"query", "item_ids"}, with "data" where they are '
            "for several data sets.",
            exists=True,
            dir_okay=False,
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder with a data set; may be repeated. Default: the folders beside the file.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    only_items: Annotated[
        Path | None,
        typer.Option(
            help='Only these items of the catalogue: lines with an id, or {"item_id"}.',
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    without: Annotated[
        list[LeftOut] | None,
        typer.Option(help="Leave this field out of the items' text; may be repeated."),
    ] = None,
    with_history: Annotated[
        bool,
        typer.Option(
            "--with-history",
            help="Each wish is of a user who had its item, with what they had before.",
        ),
    ] = False,
) -> None:
    """How often a wish in words finds the items that it was written for."""
    from app.evaluation.wishes import METRICS

    catalogues = Catalogues(data or (), only_items, without or ())

    async def evaluated() -> None:
        results, rows = await evaluated_wishes(common, file, catalogues, with_history=with_history)
        _finish(common, results, rows, METRICS)

    run(evaluated())


@commands.command()
def report(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)] = OUT,
    as_json: JsonOption = False,
) -> None:
    """Show the stored results, and write report.html again."""
    from app.evaluation.dataset import DataError
    from app.evaluation.report import Results, show, write
    from app.evaluation.report import as_json as as_object

    results = Results(folder / "results.jsonl")
    with explained():
        try:
            rows = results.rows()
        except DataError as error:
            raise Failed(str(error)) from error
        if not rows:
            raise Failed(f"{results.path}: there are no results; `evaluate compare` makes some")
        write(folder / "report.html", rows)
    if as_json:
        print_json(as_object(rows))
    else:
        show(out, rows)
        out.print(f"{folder / 'report.html'}")


def _run(
    common: Common,
    study: Study,
    *,
    metrics: Sequence[str] | None = None,
    stand_in: bool = False,
) -> None:
    run(_evaluated(common, study, metrics, stand_in))


async def _evaluated(
    common: Common, study: Study, metrics: Sequence[str] | None, stand_in: bool
) -> None:
    from app.evaluation.metrics import topics_of
    from app.evaluation.studies import EmptyStudyInput, StudyInput
    from app.evaluation.systems import systems

    async with evaluating(common, stand_in=stand_in) as opened:
        models, context = opened.models, opened.context
        # Wrong names are found before anything is read or built.
        systems(common.system or (), context)
        without_data = study(EmptyStudyInput(), models)
        systems(list(dict.fromkeys(trial.full_name for trial in without_data)), context)
        data = loaded(
            common.data, common.format, common.min_rating, opened.bar, common.enrichments or ()
        )
        leaves: Callable[[], dict[str, str]] = dict
        if not all(topics_of(data.items)) or len(set(topics_of(data.items))) == 1:
            opened.bar.begins("building the tree")
            leaves = await context.trees.leaves(data.items)
        given = StudyInput(
            data,
            common.users or None,
            common.seed,
            leaves,
            min_rating=common.min_rating,
        )
        evaluation = opened.evaluation(data)
        rows = [row async for row in evaluation.run(study(given, models))]
    _finish(common, opened.results, rows, metrics)


def _finish(
    common: Common,
    results: "Results",
    rows: Sequence["ResultRow"],
    metrics: Sequence[str] | None,
) -> None:
    from app.evaluation.report import as_json, show, write

    write(common.out / "report.html", results.rows())
    if common.as_json:
        print_json(as_json(rows))
    else:
        show(out, rows, metrics=metrics)
        out.print(f"{common.out / 'report.html'}")
