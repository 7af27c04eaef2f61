"""Parts of the command `evaluate`: loading of data, choice of models, progress bar."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import Progress, TaskID

from app.cli.evaluation_options import Common
from app.cli.progress import bar
from app.cli.session import Failed, err
from app.evaluation.choices import DataFormat

if TYPE_CHECKING:
    from app.evaluation.dataset import Dataset
    from app.evaluation.report import Results
    from app.evaluation.systems import EvalContext
    from app.evaluation.trials import Evaluation, Trial
    from app.llm import Models
    from app.settings import Settings


@dataclass(frozen=True, slots=True)
class OpenedEvaluation:
    """What the systems of one command are built from and measured with."""

    common: Common
    results: "Results"
    bar: "EvaluationBar"
    context: "EvalContext"
    models: "Models"

    def evaluation(self, data: "Dataset", *, with_lists: bool = True) -> "Evaluation":
        """An evaluation on one data set."""
        from app.evaluation.trials import Evaluation

        return Evaluation(
            data,
            self.context,
            self.results,
            self.bar,
            seed=self.common.seed,
            ask_again=bool(self.common.record or self.common.replay),
            with_lists=with_lists,
        )


@asynccontextmanager
async def evaluating(common: Common, *, stand_in: bool = False) -> AsyncIterator[OpenedEvaluation]:
    """The parts of a command, with a progress bar. Raises Failed for errors of data or systems."""
    from app.embedders import EmbedderCache
    from app.evaluation.dataset import DataError
    from app.evaluation.report import Results
    from app.evaluation.systems import EvalContext, MissingLibrary, Trees, UnknownSystem
    from app.llm.recording import RecordingError

    results = Results(common.out / "results.jsonl")
    try:
        with bar(quiet=common.as_json) as progress:
            async with chosen_models(common.record, common.replay, stand_in) as (settings, models):
                embedders = EmbedderCache(settings.embedder_endpoint)
                context = EvalContext(settings, models, trees=Trees(embedders))
                yield OpenedEvaluation(common, results, EvaluationBar(progress), context, models)
    except (DataError, UnknownSystem, MissingLibrary, RecordingError) as error:
        raise Failed(str(error)) from error


def loaded(
    paths: Sequence[Path],
    format: DataFormat | None,
    min_rating: float | None,
    progress_bar: "EvaluationBar",
    enrichments: Sequence[Path] = (),
) -> "Dataset":
    """The data; rows that were left out are listed on stderr. Raises DataError."""
    from app.evaluation.formats import load
    from app.evaluation.formats.enrichments import with_enrichments

    progress_bar.begins("reading", unit="bytes")
    data = load(paths, format, min_rating=min_rating, on_progress=progress_bar.read)
    for path in enrichments:
        data = with_enrichments(data, path)
    for reason, count in data.skipped.counts.items():
        err.print(
            f"left out: {count:,} × {reason}, first at {data.skipped.first[reason]}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    return data


@asynccontextmanager
async def chosen_models(
    record: Path | None, replay: Path | None, stand_in: bool
) -> AsyncIterator[tuple["Settings", "Models"]]:
    """The configured models, recorded or replayed; the stand-in where none is configured."""
    from app.composition import opened_models
    from app.evaluation import stand_in as standing_in
    from app.llm.recording import Recorded, Recorder, RecordingError, Replayed, recorded_models
    from app.settings import Settings

    settings = Settings()
    if record and replay:
        raise RecordingError("a run is recorded or replayed, not both")
    if replay is not None:
        settings = _replaying(settings, recorded_models(replay))
        async with opened_models(settings, lambda model: Replayed(replay, model.name)) as models:
            yield settings, models
    elif record is not None:
        if settings.llm_model is None:
            raise RecordingError("nothing to record: set UNILLMREC_LLM_MODEL")
        with Recorder(record) as recorder:
            async with opened_models(settings, lambda model: Recorded(model, recorder)) as models:
                yield settings, models
    elif settings.llm_model is None and stand_in:
        err.print("no model is configured: a stand-in reads the prompts", style="yellow")
        yield settings, standing_in.models()
    else:
        async with opened_models(settings, lambda model: model) as models:
            yield settings, models


def _replaying(settings: "Settings", recorded: set[str]) -> "Settings":
    """The settings with the model of a recording where they name none. No key is needed."""
    from pydantic import SecretStr

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


class EvaluationBar:
    """See ProgressListener. One bar, for the current activity."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._row: TaskID | None = None
        self._trial: Trial | None = None  # that is in training

    def begins(self, what: str, total: float | None = None, unit: str = "") -> None:
        """Start a new bar."""
        if self._row is not None:
            self._progress.remove_task(self._row)
        self._row = self._progress.add_task(escape(what), total=total, unit=unit)

    def read(self, done: int, total: int) -> None:
        """Show how many bytes of the files are read."""
        if self._row is not None:
            self._progress.update(self._row, completed=done, total=total)

    def began(self, trial: "Trial") -> None:
        """See ProgressListener."""
        self._trial = trial
        self.begins(f"{trial.system}: training", total=1.0)

    def fitted(self, share: float) -> None:
        """See ProgressListener."""
        if self._row is not None:
            self._progress.update(self._row, completed=share)

    def answered(self, cases: int) -> None:
        """See ProgressListener."""
        if self._trial is not None:
            self.begins(self._trial.system, total=len(self._trial.cases), unit="users")
            self._trial = None
        if self._row is not None:
            self._progress.advance(self._row, cases)
