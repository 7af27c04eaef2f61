"""`evaluate`: how good the recommendations are, on a user's own data or on public formats."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from pydantic import SecretStr
from rich.markup import escape
from rich.progress import Progress, TaskID

from app.cli.session import Failed, JsonOption, err, out, print_json, run
from app.cli.watching import bar
from app.evaluation.choices import COMPARED, SHARES, SIZES, Protocol
from app.evaluation.formats import Format
from app.settings import Settings

if TYPE_CHECKING:
    from app.evaluation.dataset import Dataset
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
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Systems side by side (the paper's table 2)."""
    from app.evaluation import studies

    common = _Common(data, system or [], format, readers, seed, out, record, replay, as_json)
    _run(common, lambda asked, models: studies.compare(asked, protocol, _named(common, models)))


@commands.command()
def training(
    data: DataArgument,
    system: SystemsOption = None,
    share: Annotated[
        list[float] | None, typer.Option(min=0.001, max=1, help="Of the readers; repeat it.")
    ] = None,
    format: FormatOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    as_json: JsonOption = False,
) -> None:
    """How much training data others need to catch up (figure 4)."""
    from app.evaluation import studies

    common = _Common(data, system or [], format, readers, seed, out, None, None, as_json)
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
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quality by the length of the list, and by items per leaf (figure 6)."""
    from app.evaluation import studies

    common = _Common(data, system or [], format, readers, seed, out, record, replay, as_json)
    _run(common, lambda asked, models: studies.k(asked, _named(common, models, "paper")))


@commands.command()
def prompts(
    data: DataArgument,
    system: SystemsOption = None,
    format: FormatOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """The four perspectives from which a model can be asked (figure 7)."""
    from app.evaluation import studies

    common = _Common(data, system or [], format, readers, seed, out, record, replay, as_json)
    _run(common, lambda asked, _: studies.prompts(asked, common.system or ["beam"]))


@commands.command()
def tokens(
    data: DataArgument,
    size: Annotated[
        list[int] | None, typer.Option(min=100, help="Items of the catalogue; repeat it.")
    ] = None,
    format: FormatOption = None,
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

    common = _Common(data, [], format, 1_000, seed, out, record, replay, as_json)
    _run(common, lambda asked, _: studies.tokens(asked, size or SIZES), stand_in=True)


@commands.command()
def topics(
    data: DataArgument,
    system: SystemsOption = None,
    format: FormatOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Topics of what is answered and of what was read, by diversity (figure 9)."""
    from app.evaluation import studies

    common = _Common(data, system or [], format, readers, seed, out, record, replay, as_json)
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
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """How little need be known of a reader: by length of history."""
    from app.evaluation import studies

    common = _Common(data, system or [], format, readers, seed, out, record, replay, as_json)
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
    format: FormatOption = None,
    readers: ReadersOption = _READERS,
    seed: SeedOption = 0,
    out: OutOption = _OUT,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """From the history in one domain to items of another."""
    from app.evaluation import studies

    common = _Common(data, system or [], format, readers, seed, out, record, replay, as_json)
    _run(
        common,
        lambda asked, models: studies.crossdomain(asked, _named(common, models)),
        domains=(source, target),
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

    try:
        rows = Results(folder / "results.jsonl").rows()
    except DataError as error:
        raise Failed(str(error)) from error
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


def _run(
    common: _Common,
    study: Study,
    *,
    metrics: Sequence[str] | None = None,
    natural: bool = False,
    domains: tuple[str, str] = ("", ""),
    stand_in: bool = False,
) -> None:
    run(_evaluated(common, study, metrics, natural, domains, stand_in))


async def _evaluated(
    common: _Common,
    study: Study,
    metrics: Sequence[str] | None,
    natural: bool,
    domains: tuple[str, str],
    stand_in: bool,
) -> None:
    from app.evaluation.dataset import DataError
    from app.evaluation.report import Results, as_json, show, write
    from app.evaluation.studies import Asked
    from app.evaluation.systems import MissingLibrary, Surroundings, UnknownSystem, systems
    from app.evaluation.trials import Evaluation
    from app.llm.recording import RecordingError

    results = Results(common.out / "results.jsonl")
    try:
        with bar(quiet=common.as_json) as progress:
            watching = _Watching(progress)
            data = _loaded(common, watching)
            async with _models(common, stand_in) as (settings, models):
                around = Surroundings(settings, models)
                systems(common.system, around)  # a wrong name is told before anything is built
                watching.begins("building the tree")
                leaves = await around.trees.leaves(data.items)
                asked = Asked(
                    data, common.readers or None, common.seed, leaves, *domains, natural=natural
                )
                evaluation = Evaluation(data, around, results, watching, seed=common.seed)
                rows = [row async for row in evaluation.run(study(asked, models))]
    except (DataError, UnknownSystem, MissingLibrary, RecordingError) as error:
        raise Failed(str(error)) from error
    write(common.out / "report.html", results.rows())
    if common.as_json:
        print_json(as_json(rows))
    else:
        show(out, rows, metrics=metrics)
        out.print(f"{common.out / 'report.html'}")


def _loaded(common: _Common, watching: "_Watching") -> "Dataset":
    from app.evaluation.formats import load

    watching.begins("reading", unit="bytes")
    data = load(common.data, common.format, on_progress=watching.read)
    for reason, count in data.skipped.counts.items():
        err.print(
            f"left out: {count:,} × {reason}, first at {data.skipped.first[reason]}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    return data


@asynccontextmanager
async def _models(common: _Common, stand_in: bool) -> AsyncIterator[tuple[Settings, "Models"]]:
    """The models that the settings name: recorded, replayed, or a stand-in where none is named."""
    from app.evaluation import stand_in as standing_in
    from app.llm.recording import Recorded, Recorder, RecordingError, Replayed, recorded_models
    from app.main import opened_models

    settings = Settings()
    if common.record and common.replay:
        raise RecordingError("a run is recorded or replayed, not both")
    if common.replay is not None:
        replay = common.replay
        settings = _replaying(settings, recorded_models(replay))
        async with opened_models(settings, lambda model: Replayed(replay, model.name)) as models:
            yield settings, models
    elif settings.llm_model is None and stand_in:
        err.print("no model is configured: a stand-in reads the prompts", style="yellow")
        yield settings, standing_in.models()
    elif common.record is not None:
        if settings.llm_model is None:
            raise RecordingError("there is nothing to record: set UNILLMREC_LLM_MODEL")
        with Recorder(common.record) as recorder:
            async with opened_models(settings, lambda model: Recorded(model, recorder)) as models:
                yield settings, models
    else:
        async with opened_models(settings, lambda model: model) as models:
            yield settings, models


def _replaying(settings: Settings, recorded: set[str]) -> Settings:
    """The settings with the model of a recording, where they name none; no key is needed."""
    from app.llm.recording import RecordingError

    found: dict[str, object] = {"llm_api_key": SecretStr("none")}
    if settings.llm_model is None:
        if len(recorded) != 1:
            names = ", ".join(sorted(recorded)) or "no model"
            raise RecordingError(
                f"the recording is of {names}: set UNILLMREC_LLM_MODEL and those of the stages"
            )
        found["llm_model"] = next(iter(recorded))
    return settings.model_copy(update=found)


class _Watching:
    """See Watcher: one bar, for what goes on now."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._row: TaskID | None = None
        self._trial: Trial | None = None  # that learns still

    def begins(self, what: str, total: float | None = None, unit: str = "") -> None:
        """Something else begins."""
        if self._row is not None:
            self._progress.remove_task(self._row)
        self._row = self._progress.add_task(escape(what), total=total, unit=unit)

    def read(self, done: int, total: int) -> None:
        """Bytes of the files."""
        if self._row is not None:
            self._progress.update(self._row, completed=done, total=total)

    def began(self, trial: "Trial") -> None:
        """See Watcher."""
        self._trial = trial
        self.begins(f"{trial.system} learns", total=1.0)

    def fitted(self, share: float) -> None:
        """See Watcher."""
        if self._row is not None:
            self._progress.update(self._row, completed=share)

    def answered(self, cases: int) -> None:
        """See Watcher."""
        if self._trial is not None:
            self.begins(self._trial.system, total=len(self._trial.cases), unit="readers")
            self._trial = None
        if self._row is not None:
            self._progress.advance(self._row, cases)
