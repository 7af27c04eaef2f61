"""`evaluate`: how good the recommendations are, on a user's own data or on public formats."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from app.cli.evaluating import Watching, chosen_models, loaded
from app.cli.session import Failed, JsonOption, explained, out, print_json, run
from app.cli.watching import bar
from app.evaluation.choices import COMPARED, SHARES, SIZES, DomainBy, Format, Protocol

if TYPE_CHECKING:
    from app.evaluation.studies import Asked
    from app.evaluation.trials import Trial
    from app.llm import Models

commands = typer.Typer(
    help="Measure how good the recommendations are, on your own data or on public formats.",
    no_args_is_help=True,
)

_OUT = Path("evaluation")

Study: TypeAlias = Callable[["Asked", "Models"], Iterable["Trial"]]


@dataclass(frozen=True, slots=True)
class Common:
    """What all studies are told: a field is an option of their commands. See _study."""

    data: Annotated[
        list[Path],
        typer.Argument(
            help="A folder, or files: MIND, Amazon reviews, MovieLens, or plain JSON Lines.",
            exists=True,
        ),
    ]
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system", "-s", help="Who is asked: NAME or NAME:PARAMETER=VALUE,…; repeat it."
        ),
    ] = None
    format: Annotated[
        Format | None, typer.Option("--format", help="Found out from the files unless given.")
    ] = None
    min_rating: Annotated[
        float | None, typer.Option(help="Leave out events with a lower rating, or none.")
    ] = None
    readers: Annotated[
        int, typer.Option(min=0, help="How many readers, after a seeded shuffle; 0 for all.")
    ] = 1_000
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder of results.jsonl and report.html.", file_okay=False),
    ] = _OUT
    record: Annotated[
        Path | None, typer.Option(help="Keep what the model says in this file.", dir_okay=False)
    ] = None
    replay: Annotated[
        Path | None,
        typer.Option(help="Ask no model: say again what it said.", exists=True, dir_okay=False),
    ] = None
    as_json: JsonOption = False

    def systems(self, models: "Models", *asking: str) -> list[str]:
        """Those that were asked for, or the usual ones; `asking` are usual where a model is."""
        if self.system:
            return self.system
        return [*(("beam", *asking) if models.configured else ()), *COMPARED]


def _study(*, without: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a study a command: its own options come first, then the fields of Common.

    The study gets those as one Common; fields that it goes `without` have their defaults there.
    """

    def added(study: Callable[..., None]) -> Callable[..., None]:
        own = list(signature(study).parameters.values())[1:]
        shared = [
            field for name, field in signature(Common).parameters.items() if name not in without
        ]

        @wraps(study)
        def command(**given: object) -> None:
            told = {field.name: given.pop(field.name) for field in shared}
            study(Common(**told), **given)  # type: ignore[arg-type]  # typer has checked them

        options = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*own, *shared)]
        command.__signature__ = Signature(options)  # type: ignore[attr-defined]  # typer reads it
        return commands.command()(command)

    return added


@_study()
def compare(
    common: Common,
    protocol: Annotated[Protocol, typer.Option(help="What is held out.")] = Protocol.LEAVE_LAST_OUT,
) -> None:
    """Systems side by side (the paper's table 2)."""
    from app.evaluation import studies

    _run(common, lambda asked, models: studies.compare(asked, protocol, common.systems(models)))


@_study(without=("record", "replay"))
def training(
    common: Common,
    share: Annotated[
        list[float] | None, typer.Option(min=0.001, max=1, help="Of the readers; repeat it.")
    ] = None,
) -> None:
    """How much training data others need to catch up (figure 4)."""
    from app.evaluation import studies

    learned = common.system or ["itemknn", "als"]
    _run(common, lambda asked, _: studies.training(asked, learned, ["embedded"], share or SHARES))


@_study()
def k(common: Common) -> None:
    """Quality by the length of the list, and by items per leaf (figure 6)."""
    from app.evaluation import studies

    _run(common, lambda asked, models: studies.k(asked, common.systems(models, "paper")))


@_study()
def prompts(common: Common) -> None:
    """The four perspectives from which a model can be asked (figure 7)."""
    from app.evaluation import studies

    _run(common, lambda asked, _: studies.prompts(asked, common.system or ["beam"]))


@_study(without=("system", "readers"))
def tokens(
    common: Common,
    size: Annotated[
        list[int] | None, typer.Option(min=100, help="Items of the catalogue; repeat it.")
    ] = None,
) -> None:
    """What prompts cost, by stage, as the catalogue grows (figure 8).

    Where no model is configured, a stand-in reads the prompts.
    """
    from app.evaluation import studies

    _run(common, lambda asked, _: studies.tokens(asked, size or SIZES), stand_in=True)


@_study()
def topics(common: Common) -> None:
    """Topics of what is answered and of what was read, by diversity (figure 9)."""
    from app.evaluation import studies

    _run(
        common,
        lambda asked, models: studies.topics(asked, common.systems(models)),
        metrics=("topic_similarity", "topic_level", "recall", "ndcg", "ilad", "coverage"),
    )


@_study()
def coldstart(
    common: Common,
    natural: Annotated[
        bool, typer.Option("--natural", help="Readers who did as much, not the same ones cut.")
    ] = False,
) -> None:
    """How little need be known of a reader: by length of history."""
    from app.evaluation import studies

    def study(asked: "Asked", models: "Models") -> Iterable["Trial"]:
        return studies.coldstart(replace(asked, natural=natural), common.systems(models))

    _run(common, study)


@_study()
def crossdomain(
    common: Common,
    source: Annotated[str, typer.Option(help="The domain that is told.")] = "",
    target: Annotated[str, typer.Option(help="The domain that is asked for.")] = "",
    by: Annotated[DomainBy, typer.Option(help="What tells domains apart.")] = DomainBy.DOMAIN,
) -> None:
    """From the history in one domain to items of another."""
    from app.evaluation import studies

    def study(asked: "Asked", models: "Models") -> Iterable["Trial"]:
        domains = replace(asked, source=source, target=target, by=by)
        return studies.crossdomain(domains, common.systems(models))

    _run(common, study)


@commands.command()
def report(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)] = _OUT,
    as_json: JsonOption = False,
) -> None:
    """Show the results that are there, and write report.html anew."""
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
    from app.evaluation.dataset import DataError
    from app.evaluation.report import Results, as_json, show, write
    from app.evaluation.studies import Asked, Draft
    from app.evaluation.systems import MissingLibrary, Surroundings, UnknownSystem, systems
    from app.evaluation.trials import Evaluation
    from app.llm.recording import RecordingError

    results = Results(common.out / "results.jsonl")
    try:
        with bar(quiet=common.as_json) as progress:
            watching = Watching(progress)
            async with chosen_models(common.record, common.replay, stand_in) as (settings, models):
                around = Surroundings(settings, models)
                # What is named wrongly is told before anything is read or built.
                systems(common.system or (), around)
                drafted = study(Draft(), models)
                systems(list(dict.fromkeys(trial.asked for trial in drafted)), around)
                data = loaded(common.data, common.format, common.min_rating, watching)
                leaves: Callable[[], dict[str, str]] = dict
                if not all(item.categories for item in data.items):
                    watching.begins("building the tree")
                    leaves = await around.trees.leaves(data.items)
                asked = Asked(
                    data,
                    common.readers or None,
                    common.seed,
                    leaves,
                    min_rating=common.min_rating,
                )
                evaluation = Evaluation(
                    data,
                    around,
                    results,
                    watching,
                    seed=common.seed,
                    ask_again=bool(common.record or common.replay),
                )
                rows = [row async for row in evaluation.run(study(asked, models))]
    except (DataError, UnknownSystem, MissingLibrary, RecordingError) as error:
        raise Failed(str(error)) from error
    write(common.out / "report.html", results.rows())
    if common.as_json:
        print_json(as_json(rows))
    else:
        show(out, rows, metrics=metrics)
        out.print(f"{common.out / 'report.html'}")
