"""`evaluate`: how good the recommendations are, on a user's own data or on public formats."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypedDict, Unpack

import typer

from app.cli.evaluating import Watching, chosen_models, loaded
from app.cli.session import Failed, JsonOption, explained, out, print_json, run
from app.cli.watching import bar
from app.evaluation.choices import COMPARED, SHARES, SIZES, DomainBy, Protocol
from app.evaluation.formats import Format

if TYPE_CHECKING:
    from app.evaluation.studies import Asked
    from app.evaluation.trials import Trial
    from app.llm import Models

commands = typer.Typer(
    help="Measure how good the recommendations are, on your own data or on public formats.",
    no_args_is_help=True,
)

DataArgument: TypeAlias = Annotated[
    list[Path],
    typer.Argument(help="A folder, or files: MIND, Amazon reviews, MovieLens, or plain JSON Lines.",
                   exists=True),
]  # fmt: skip
FormatOption: TypeAlias = Annotated[
    Format | None, typer.Option("--format", help="Found out from the files unless given.")
]
MinRatingOption: TypeAlias = Annotated[
    float | None, typer.Option(help="Leave out events with a lower rating, or none.")
]
SystemsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--system", "-s", help="Who is asked: NAME or NAME:PARAMETER=VALUE,…; repeat it."),
]
ReadersOption: TypeAlias = Annotated[
    int, typer.Option(min=0, help="How many readers, after a seeded shuffle; 0 for all.")
]
SeedOption: TypeAlias = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
OutOption: TypeAlias = Annotated[
    Path, typer.Option("--out", help="Folder of results.jsonl and report.html.", file_okay=False)
]
RecordOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="Keep what the model says in this file.", dir_okay=False)
]
ReplayOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Ask no model: say again what it said.", exists=True, dir_okay=False),
]

_OUT = Path("evaluation")
_READERS = 1_000


@dataclass(frozen=True, slots=True)
class _Common:
    """What all studies are told."""

    data: list[Path]
    system: list[str]
    format: Format | None
    min_rating: float | None
    readers: int
    seed: int
    out: Path
    record: Path | None
    replay: Path | None
    as_json: bool


Study: TypeAlias = Callable[["Asked", "Models"], Iterable["Trial"]]


@commands.command()
def compare(
    data: DataArgument,
    system: SystemsOption = None,
    protocol: Annotated[Protocol, typer.Option(help="What is held out.")] = Protocol.LEAVE_LAST_OUT,
    format: FormatOption = None,
    min_rating: MinRatingOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Systems side by side (the paper's table 2)."""
    from app.evaluation import studies

    common = _Common(
        data, system or [], format, min_rating, readers, seed, out, record, replay, as_json
    )
    _run(common, lambda asked, models: studies.compare(asked, protocol, _named(common, models)))


@commands.command()
def training(
    data: DataArgument,
    system: SystemsOption = None,
    share: Annotated[
        list[float] | None, typer.Option(min=0.001, max=1, help="Of the readers; repeat it.")
    ] = None,
    format: FormatOption = None,
    min_rating: MinRatingOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    as_json: JsonOption = False,
) -> None:
    """How much training data others need to catch up (figure 4)."""
    from app.evaluation import studies

    common = _Common(
        data, system or [], format, min_rating, readers, seed, out, None, None, as_json
    )
    learned = common.system or ["itemknn", "als"]
    _run(
        common,
        lambda asked, _: studies.training(asked, learned, ["embedded"], share or SHARES),
    )


@commands.command()
def k(
    data: DataArgument,
    system: SystemsOption = None,
    format: FormatOption = None,
    min_rating: MinRatingOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quality by the length of the list, and by items per leaf (figure 6)."""
    from app.evaluation import studies

    common = _Common(
        data, system or [], format, min_rating, readers, seed, out, record, replay, as_json
    )
    _run(common, lambda asked, models: studies.k(asked, _named(common, models, "paper")))


@commands.command()
def prompts(
    data: DataArgument,
    system: SystemsOption = None,
    format: FormatOption = None,
    min_rating: MinRatingOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """The four perspectives from which a model can be asked (figure 7)."""
    from app.evaluation import studies

    common = _Common(
        data, system or [], format, min_rating, readers, seed, out, record, replay, as_json
    )
    _run(common, lambda asked, _: studies.prompts(asked, common.system or ["beam"]))


@commands.command()
def tokens(
    data: DataArgument,
    size: Annotated[
        list[int] | None, typer.Option(min=100, help="Items of the catalogue; repeat it.")
    ] = None,
    format: FormatOption = None,
    min_rating: MinRatingOption = None,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """What prompts cost, by stage, as the catalogue grows (figure 8).

    Where no model is configured, a stand-in reads the prompts.
    """
    from app.evaluation import studies

    common = _Common(data, [], format, min_rating, 1_000, seed, out, record, replay, as_json)
    _run(common, lambda asked, _: studies.tokens(asked, size or SIZES), stand_in=True)


@commands.command()
def topics(
    data: DataArgument,
    system: SystemsOption = None,
    format: FormatOption = None,
    min_rating: MinRatingOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Topics of what is answered and of what was read, by diversity (figure 9)."""
    from app.evaluation import studies

    common = _Common(
        data, system or [], format, min_rating, readers, seed, out, record, replay, as_json
    )
    wanted = ("topic_similarity", "topic_level", "recall", "ndcg", "ilad", "coverage")
    _run(
        common,
        lambda asked, models: studies.topics(asked, _named(common, models)),
        metrics=wanted,
    )


@commands.command()
def coldstart(
    data: DataArgument,
    system: SystemsOption = None,
    natural: Annotated[
        bool, typer.Option("--natural", help="Readers who did as much, not the same ones cut.")
    ] = False,
    format: FormatOption = None,
    min_rating: MinRatingOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """How little need be known of a reader: by length of history."""
    from app.evaluation import studies

    common = _Common(
        data, system or [], format, min_rating, readers, seed, out, record, replay, as_json
    )
    _run(
        common,
        lambda asked, models: studies.coldstart(asked, _named(common, models)),
        natural=natural,
    )


@commands.command()
def crossdomain(
    data: DataArgument,
    system: SystemsOption = None,
    source: Annotated[str, typer.Option(help="The domain that is told.")] = "",
    target: Annotated[str, typer.Option(help="The domain that is asked for.")] = "",
    by: Annotated[DomainBy, typer.Option(help="What tells domains apart.")] = DomainBy.DOMAIN,
    format: FormatOption = None,
    min_rating: MinRatingOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """From the history in one domain to items of another."""
    from app.evaluation import studies

    common = _Common(
        data, system or [], format, min_rating, readers, seed, out, record, replay, as_json
    )
    _run(
        common,
        lambda asked, models: studies.crossdomain(asked, _named(common, models)),
        source=source,
        target=target,
        by=by,
    )


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


def _named(common: _Common, models: "Models", *asking: str) -> list[str]:
    """The systems that were asked for, or the usual ones."""
    if common.system:
        return common.system
    return [*(("beam", *asking) if models.configured else ()), *COMPARED]


class _Further(TypedDict, total=False):
    """What single studies are told besides. See Asked."""

    natural: bool
    source: str
    target: str
    by: DomainBy


def _run(
    common: _Common,
    study: Study,
    *,
    metrics: Sequence[str] | None = None,
    stand_in: bool = False,
    **further: Unpack[_Further],
) -> None:
    run(_evaluated(common, study, metrics, stand_in, further))


async def _evaluated(
    common: _Common,
    study: Study,
    metrics: Sequence[str] | None,
    stand_in: bool,
    further: _Further,
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
                systems(common.system, around)
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
                    **further,
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
