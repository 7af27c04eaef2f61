"""`Trial`: a system and the questions that it is asked; `Evaluation` makes a row of each."""

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import numpy as np

from app.evaluation.case import Case, Question, System, Training
from app.evaluation.dataset import Dataset
from app.evaluation.kept import KeptAnswers
from app.evaluation.metrics import Background, Measured, topics_of
from app.evaluation.protocols import Split
from app.evaluation.report import Data, Results, Row, Run, Spent
from app.evaluation.report.rows import Scalar
from app.evaluation.systems import Surroundings, systems
from app.recommend import Recommendation
from prompts import fingerprints
from tree.node import LEXICAL

_ASKED_AT_ONCE = 512
_OURS = frozenset({"embedded", "beam", "paper", "flat"})
_TOPICS_SHOWN = 12

_SLATE = 300  # candidates that are shown at once, and so asked for to the last

# All settings but these count: a new one does until somebody knows better. Secrets, places, what
# the service does with its store and its jobs, and labels, which no evaluation has written.
_NEVER_MATTERS = frozenset(
    {
        "build_engine", "build_processes", "commit_window_ms", "data_dir", "fsync", "job_ttl_s",
        "kept_versions", "key_prefix", "label_ttl_s", "llm_api_key", "llm_concurrency",
        "llm_label_concurrency", "llm_label_cost_usd", "llm_label_max_tokens", "llm_label_model",
        "llm_label_refresh_usd", "llm_labels", "max_body_bytes", "max_import_bytes", "ray_address",
        "rebuild_growth", "redis_url", "trace_ttl_s", "user_ttl_s",
    }
)  # fmt: skip
_OF_MODELS = ("llm_", "profile_ttl_s", "slate_cache_ttl_s")  # how these begin


class Watcher(Protocol):
    """Who is told how far an evaluation is."""

    def began(self, trial: "Trial") -> None:
        """The next trial: first the system learns."""
        ...

    def fitted(self, share: float) -> None:
        """How much of that is done, 0 … 1."""
        ...

    def answered(self, cases: int) -> None:
        """So many more questions are answered."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """Who is asked what. `settings` are those of the protocol, `parameters` what a study varies.

    Where `measured` is not set only what the answers cost counts, not how good they are.
    """

    study: str
    protocol: str
    system: str
    split: Split
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    varied: str = ""  # the same as the system is told it: `share=0.1`
    cutoffs: tuple[int, ...] = (10, 20)
    measured: bool = True

    @property
    def asked(self) -> str:
        """The system's name with all of its parameters."""
        if not self.varied:
            return self.system
        return f"{self.system}{',' if ':' in self.system else ':'}{self.varied}"

    @property
    def cases(self) -> Sequence[Case]:
        return self.split[1]


@dataclass(frozen=True, slots=True)
class _First:
    """The first trial on a split, with which all others on it are compared."""

    split: Split  # held: its id is how it is known
    name: str
    measured: Measured


class Evaluation:
    """Runs trials on one data set. What `results` hold already is not run again.

    But for answers in which a model failed: an outage is not a result. With `ask_again` every
    system that asks a model is asked again, so that a recording of it holds all that it needs.
    Every system is compared with the first of its split, whoever of the two was asked in an earlier
    run: their answers are kept beside the results.
    """

    def __init__(
        self,
        data: Dataset,
        around: Surroundings,
        results: Results,
        watcher: Watcher,
        *,
        seed: int = 0,
        ask_again: bool = False,
    ) -> None:
        self._data = Data.of(data)
        self._around = replace(
            around, seed=seed, heard=self._hear, progress=lambda _, share: watcher.fitted(share)
        )
        self._results = results
        self._watcher = watcher
        self._seed = seed
        self._usage: dict[str, Spent] = {}
        self._degraded = 0
        self._ask_again = ask_again
        self._kept = KeptAnswers(results.path.parent / "answers")
        self._first: dict[int, _First] = {}
        self._background: tuple[Training, Background] | None = None

    async def run(self, trials: Iterable[Trial]) -> AsyncIterator[Row]:
        """The rows in the order of the trials, each as soon as it is there.

        Raises UnknownSystem and MissingLibrary, DataError for a file of results that is none.
        """
        known = {row.key: row for row in self._results.rows() if not row.degraded}
        for trial in trials:
            self._watcher.began(trial)
            run = self._run_of(trial)
            asked_again = self._ask_again and self._asks(trial)
            before = None if asked_again else known.get(run.key)
            row = None if before is None else await self._compared(trial, before)
            if row is None:
                row = await self._row(trial, run)
            else:
                self._watcher.answered(len(trial.cases))
            if row is not before:
                self._results.append(row)
            yield row

    def _asks(self, trial: Trial) -> bool:
        """Whether the system asks a model."""
        models = self._around.models
        asking = _OURS - {"embedded"}
        return _name(trial) in asking and models is not None and models.configured

    def _run_of(self, trial: Trial) -> Run:
        asks = self._asks(trial)
        settings = self._settings(asks) if _name(trial) in _OURS else {}
        settings |= {**trial.settings, "cases": len(trial.cases)}
        return Run(
            study=trial.study,
            data=self._data,
            protocol=trial.protocol,
            seed=self._seed,
            system=trial.system,
            settings=dict(sorted(settings.items())),
            parameters=dict(trial.parameters),
            prompts=fingerprints() if asks else {},
        )

    def _settings(self, asks: bool) -> dict[str, Scalar]:
        """Those of the service that can make another answer, or another price."""
        dumped = self._around.settings.model_dump(mode="json", exclude=set(_NEVER_MATTERS))
        settings = {name: own for name, own in dumped.items() if not name.startswith(_OF_MODELS)}
        models = self._around.models
        if asks and models is not None:
            settings |= {name: own for name, own in dumped.items() if name.startswith(_OF_MODELS)}
            settings["llm_model"] = dumped["llm_model"] or models.of["recall"].model.name
            settings["llm_prices"] = json.dumps(dumped["llm_prices"], sort_keys=True)
            # What follows a question mark may be a key.
            settings["llm_base_url"] = (dumped["llm_base_url"] or "").partition("?")[0]
        return settings

    async def _row(self, trial: Trial, run: Run) -> Row:
        training, cases = trial.split
        self._usage, self._degraded = {}, 0
        [system] = systems([trial.asked], self._around)
        try:
            begun = time.perf_counter()
            await system.fit(training)
            fitted = time.perf_counter()
            answers = await self._answers(system, [case.question for case in cases], trial)
            ended = time.perf_counter()
        finally:
            await system.aclose()
        took = round(fitted - begun, 3), round(ended - fitted, 3)
        if not trial.measured:
            return Row(
                run=run,
                cases=len(cases),
                metrics={},
                usage=self._usage,
                degraded=self._degraded,
                fit_s=took[0],
                rank_s=took[1],
                ended=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        self._kept.put(run.key, answers)
        measured = await self._measured(trial, answers)
        first = self._first_of(trial, measured)
        return Row.of(
            run,
            measured,
            usage=self._usage,
            degraded=self._degraded,
            against=None if first.measured is measured else {first.name: first.measured},
            fit_s=took[0],
            rank_s=took[1],
        )

    async def _compared(self, trial: Trial, row: Row) -> Row | None:
        """A row of an earlier run, compared as in this one.

        None where that takes answers that are not kept any more.
        """
        if not trial.measured:
            return row
        answers = self._kept.get(row.key, len(trial.cases))
        if answers is None:
            return None
        measured = await self._measured(trial, answers)
        first = self._first_of(trial, measured)
        against = (
            {}
            if first.measured is measured
            else {first.name: measured.against(first.measured, seed=self._seed)}
        )
        return row if against == row.against else msgspec.structs.replace(row, against=against)

    def _first_of(self, trial: Trial, measured: Measured) -> _First:
        own = _First(trial.split, trial.asked, measured)
        return self._first.setdefault(id(trial.split), own)

    async def _measured(self, trial: Trial, answers: Sequence[Sequence[str]]) -> Measured:
        training, cases = trial.split
        background = await self._seen_against(training)
        return Measured.of(cases, answers, background, trial.cutoffs, _limit(trial))

    async def _answers(
        self, system: System, questions: Sequence[Question], trial: Trial
    ) -> list[list[str]]:
        limit = _limit(trial)
        answers: list[list[str]] = []
        for start in range(0, len(questions), _ASKED_AT_ONCE):
            some = questions[start : start + _ASKED_AT_ONCE]
            answers += await system.rank(some, limit)
            self._watcher.answered(len(some))
        return answers

    def _hear(self, _: str, __: Question, answer: Recommendation) -> None:
        self._degraded += answer.degraded
        for stage, usage in answer.usage.stages.items():
            if usage.calls:
                self._usage[stage] = _sum(self._usage.get(stage, Spent()), usage)

    async def _seen_against(self, training: Training) -> Background:
        """The catalogue with its default vectors: every system is measured by the same ones."""
        if self._background is None or self._background[0] is not training:
            store = await self._around.trees.of(training.items, LEXICAL)
            tree = await store.load()
            rows = [tree.row(item.id) for item in training.items]
            vectors = tree.rows.vectors[np.array([-1 if row is None else row for row in rows])]
            topics = topics_of(training.items)
            told_apart = topics if len(set(topics)) > 1 else None
            background = Background.of(
                training.items, training.readers, vectors=vectors, topics=told_apart
            )
            self._background = training, background
        return self._background[1]


def _limit(trial: Trial) -> int:
    """How many items are asked for: as metrics look at, and slates to the last candidate."""
    slates = (len(case.question.candidates or ()) for case in trial.cases)
    return max(*trial.cutoffs, *(size for size in slates if size <= _SLATE), 1)


def _name(trial: Trial) -> str:
    return trial.system.partition(":")[0]


def _sum(so_far: Spent, usage: object) -> Spent:
    return Spent(
        **{name: getattr(so_far, name) + getattr(usage, name) for name in Spent.__struct_fields__}
    )
