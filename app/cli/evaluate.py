"""`evaluate`: the quality of recommendations, on your own data or on public formats."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from app.cli.evaluation_setup import EvaluationBar, chosen_models, loaded
from app.cli.progress import bar
from app.cli.session import Failed, JsonOption, explained, out, print_json, run
from app.evaluation.choices import COMPARED, SHARES, SIZES, DataFormat, DomainBy, Protocol

if TYPE_CHECKING:
    from app.evaluation.studies import StudyInput
    from app.evaluation.trials import Trial
    from app.llm import Models

commands = typer.Typer(
    help="Measure how good the recommendations are, on your own data or on public formats.",
    no_args_is_help=True,
)

_OUT = Path("evaluation")

Study: TypeAlias = Callable[["StudyInput", "Models"], Iterable["Trial"]]


@dataclass(frozen=True, slots=True)
class Common:
    """Options of all studies: each field becomes an option of their commands. See _study."""

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
            "--system", "-s", help="A system: NAME or NAME:PARAMETER=VALUE,…; may be repeated."
        ),
    ] = None
    format: Annotated[
        DataFormat | None, typer.Option("--format", help="Detected from the files unless given.")
    ] = None
    min_rating: Annotated[
        float | None, typer.Option(help="Leave out events without this rating or a higher one.")
    ] = None
    users: Annotated[
        int,
        typer.Option(
            "--users", "--readers", min=0, help="Number of users, chosen at random; 0 for all."
        ),
    ] = 1_000
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder of results.jsonl and report.html.", file_okay=False),
    ] = _OUT
    record: Annotated[
        Path | None,
        typer.Option(help="Record replies of the model here.", dir_okay=False),
    ] = None
    replay: Annotated[
        Path | None,
        typer.Option(help="Use recorded replies instead of a model.", exists=True, dir_okay=False),
    ] = None
    as_json: JsonOption = False

    def systems(self, models: "Models", *with_model: str) -> list[str]:
        """The requested systems, or the default ones; `with_model` are added where a model is."""
        if self.system:
            return self.system
        return [*(("beam", *with_model) if models.configured else ()), *COMPARED]


def _study(*, without: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that makes a study a command: its own options come first, then those of Common.

    The study gets the latter as one Common, in which the fields in `without` have their defaults.
    """

    def decorate(study: Callable[..., None]) -> Callable[..., None]:
        specific = list(signature(study).parameters.values())[1:]
        shared = [
            field for name, field in signature(Common).parameters.items() if name not in without
        ]

        @wraps(study)
        def command(**given: object) -> None:
            values = {field.name: given.pop(field.name) for field in shared}
            study(Common(**values), **given)  # type: ignore[arg-type]  # typer has checked them

        options = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*specific, *shared)]
        command.__signature__ = Signature(options)  # type: ignore[attr-defined]  # typer reads it
        return commands.command()(command)

    return decorate


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
) -> None:
    """Quality by length of the history."""
    from app.evaluation import studies

    def study(given: "StudyInput", models: "Models") -> Iterable["Trial"]:
        return studies.coldstart(replace(given, natural=natural), common.systems(models))

    _run(common, study)


@_study()
def crossdomain(
    common: Common,
    source: Annotated[str, typer.Option(help="Domain of the history.")] = "",
    target: Annotated[str, typer.Option(help="Domain of the recommended items.")] = "",
    by: Annotated[DomainBy, typer.Option(help="Field with the domain.")] = DomainBy.DOMAIN,
) -> None:
    """Recommends items of one domain from a history in another."""
    from app.evaluation import studies

    def study(given: "StudyInput", models: "Models") -> Iterable["Trial"]:
        domains = replace(given, source=source, target=target, by=by)
        return studies.crossdomain(domains, common.systems(models))

    _run(common, study)


@commands.command()
def report(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)] = _OUT,
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
    from app.embedders import EmbedderCache
    from app.evaluation.dataset import DataError
    from app.evaluation.report import Results, as_json, show, write
    from app.evaluation.studies import EmptyStudyInput, StudyInput
    from app.evaluation.systems import EvalContext, MissingLibrary, Trees, UnknownSystem, systems
    from app.evaluation.trials import Evaluation
    from app.llm.recording import RecordingError

    results = Results(common.out / "results.jsonl")
    try:
        with bar(quiet=common.as_json) as progress:
            progress_bar = EvaluationBar(progress)
            async with chosen_models(common.record, common.replay, stand_in) as (settings, models):
                embedders = EmbedderCache(settings.embedder_endpoint)
                context = EvalContext(settings, models, trees=Trees(embedders))
                # Wrong names are found before anything is read or built.
                systems(common.system or (), context)
                without_data = study(EmptyStudyInput(), models)
                systems(list(dict.fromkeys(trial.full_name for trial in without_data)), context)
                data = loaded(common.data, common.format, common.min_rating, progress_bar)
                leaves: Callable[[], dict[str, str]] = dict
                if not all(item.categories for item in data.items):
                    progress_bar.begins("building the tree")
                    leaves = await context.trees.leaves(data.items)
                given = StudyInput(
                    data,
                    common.users or None,
                    common.seed,
                    leaves,
                    min_rating=common.min_rating,
                )
                evaluation = Evaluation(
                    data,
                    context,
                    results,
                    progress_bar,
                    seed=common.seed,
                    ask_again=bool(common.record or common.replay),
                )
                rows = [row async for row in evaluation.run(study(given, models))]
    except (DataError, UnknownSystem, MissingLibrary, RecordingError) as error:
        raise Failed(str(error)) from error
    write(common.out / "report.html", results.rows())
    if common.as_json:
        print_json(as_json(rows))
    else:
        show(out, rows, metrics=metrics)
        out.print(f"{common.out / 'report.html'}")
