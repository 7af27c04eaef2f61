"""What an evaluation on the command line is run with: data, models, a bar that shows how far."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import Progress, TaskID

from app.cli.session import err
from app.evaluation.choices import Format

if TYPE_CHECKING:
    from app.evaluation.dataset import Dataset
    from app.evaluation.trials import Trial
    from app.llm import Models
    from app.settings import Settings


def loaded(
    paths: Sequence[Path], format: Format | None, min_rating: float | None, watching: "Watching"
) -> "Dataset":
    """The data, and on stderr what of them was left out. Raises DataError."""
    from app.evaluation.formats import load

    watching.begins("reading", unit="bytes")
    data = load(paths, format, min_rating=min_rating, on_progress=watching.read)
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
    """The models that the settings name: recorded, replayed, or a stand-in where none is named."""
    from app.evaluation import stand_in as standing_in
    from app.llm.recording import Recorded, Recorder, RecordingError, Replayed, recorded_models
    from app.services import opened_models
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
            raise RecordingError("there is nothing to record: set UNILLMREC_LLM_MODEL")
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
    """The settings with the model of a recording, where they name none; no key is needed."""
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


class Watching:
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
