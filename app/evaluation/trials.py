"""`Trial`: a system and its queries. `Evaluation` runs trials and makes a row of each."""

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol, get_args

import msgspec
import numpy as np

from app.embedders import DEFAULT_EMBEDDER
from app.evaluation.answer_store import AnswerStore
from app.evaluation.case import Case, Query, System, Training
from app.evaluation.dataset import Dataset
from app.evaluation.metrics import CatalogStatistics, SystemMetrics, topics_of
from app.evaluation.protocols import Split
from app.evaluation.report import Data, ModelUsage, ResultRow, Results, Run
from app.evaluation.report.result_row import Scalar
from app.evaluation.systems import EvalContext, systems
from app.options import StrategyName
from app.recommend import Recommendation
from prompts import fingerprints
from tree.item import Item
from tree.vectors import Int8Matrix

_QUERIES_AT_ONCE = 512
_SERVICE_SYSTEMS = frozenset(get_args(StrategyName))
_LARGEST_RANKED = 300  # up to so many candidates, a system ranks all of them

# Settings that cannot change an answer: secrets, paths, store, jobs, labels. All others are part of
# the key of a run, also new ones.
_IRRELEVANT_SETTINGS = frozenset(
    {
        "build_engine", "build_processes", "commit_window_ms", "data_dir", "events_per_user_day",
        "fsync", "job_ttl_s",
        "kept_versions", "key_prefix", "label_ttl_s", "llm_api_key", "llm_concurrency",
        "llm_enrich_concurrency", "llm_enrich_cost_usd", "llm_enrich_day_usd", "llm_enrich_model",
        "llm_enrich_pictures", "llm_enrich_timeout_s", "llm_label_concurrency",
        "llm_label_cost_usd",
        "llm_label_max_tokens", "llm_label_model", "llm_label_refresh_usd", "llm_labels",
        "llm_picture_hosts",
        "max_body_bytes", "max_import_bytes", "ray_address", "rebuild_growth", "redis_url",
        "trace_ttl_s", "user_ttl_s",
    }
)  # fmt: skip
_MODEL_SETTINGS = ("llm_", "profile_ttl_s", "slate_cache_ttl_s")  # prefixes of their names


class ProgressListener(Protocol):
    """Is called as an evaluation goes on."""

    def began(self, trial: "Trial") -> None:
        """A trial starts; first its system is trained."""
        ...

    def fitted(self, share: float) -> None:
        """The share of the training that is done, 0 … 1."""
        ...

    def answered(self, cases: int) -> None:
        """So many more cases are answered."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """A system on a split. `settings` are those of the protocol, `parameters` what a study varies.

    Without `measured`, only the cost of the answers is recorded, not their quality.
    """

    study: str
    protocol: str
    system: str
    split: Split
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    varied: str = ""  # the parameters as part of the system's name: `share=0.1`
    cutoffs: tuple[int, ...] = (10, 20)
    measured: bool = True

    @property
    def full_name(self) -> str:
        """The name of the system with all its parameters."""
        if not self.varied:
            return self.system
        return f"{self.system}{',' if ':' in self.system else ':'}{self.varied}"

    @property
    def cases(self) -> Sequence[Case]:
        return self.split[1]


@dataclass(frozen=True, slots=True)
class _First:
    """The first trial on a split, with which all others on it are compared."""

    split: Split  # a reference, because the id of the object is the key
    name: str
    measured: SystemMetrics


class Evaluation:
    """Runs trials on one data set. A run whose row is in `results` is not run again.

    A row with answers in which a model failed is run again. With `ask_again`, every system that
    uses a model is run again, so that a recording is complete. Each system is compared with the
    first system of its split, also where one of the two was run earlier: answers are stored beside
    the results. `with_lists` also measures what needs the vectors of the catalogue.
    """

    def __init__(
        self,
        data: Dataset,
        context: EvalContext,
        results: Results,
        watcher: ProgressListener,
        *,
        seed: int = 0,
        ask_again: bool = False,
        with_lists: bool = True,
    ) -> None:
        self.measured: dict[str, SystemMetrics] = {}  # of this run, by the key of the row
        self._with_lists = with_lists
        self._data = Data.of(data)
        self._context = replace(
            context,
            seed=seed,
            on_answer=self._add_usage,
            progress=lambda _, share: watcher.fitted(share),
        )
        self._results = results
        self._watcher = watcher
        self._seed = seed
        self._usage: dict[str, ModelUsage] = {}
        self._degraded = 0
        self._ask_again = ask_again
        self._answer_store = AnswerStore(results.path.parent / "answers")
        self._first: dict[int, _First] = {}
        self._background: tuple[Training, CatalogStatistics] | None = None

    async def run(self, trials: Iterable[Trial]) -> AsyncIterator[ResultRow]:
        """The rows in the order of the trials, each as soon as it is ready.

        Raises UnknownSystem, MissingLibrary, and DataError for an invalid file of results.
        """
        known = {row.key: row for row in self._results.rows() if not row.degraded}
        for trial in trials:
            self._watcher.began(trial)
            run = self._run_of(trial)
            ask_again = self._ask_again and self._uses_model(trial)
            before = None if ask_again else known.get(run.key)
            row = None if before is None else await self._compared_row(trial, before)
            if row is None:
                row = await self._new_row(trial, run)
            else:
                self._watcher.answered(len(trial.cases))
            if row is not before:
                self._results.append(row)
            yield row

    def _uses_model(self, trial: Trial) -> bool:
        """Whether the system calls a model."""
        models = self._context.models
        with_model = _SERVICE_SYSTEMS - {"embedded"}
        return _name(trial) in with_model and models is not None and models.configured

    def _run_of(self, trial: Trial) -> Run:
        uses_model = self._uses_model(trial)
        settings = self._settings(uses_model) if _name(trial) in _SERVICE_SYSTEMS else {}
        settings |= {**trial.settings, "cases": len(trial.cases)}
        return Run(
            study=trial.study,
            data=self._data,
            protocol=trial.protocol,
            seed=self._seed,
            system=trial.system,
            settings=dict(sorted(settings.items())),
            parameters=dict(trial.parameters),
            prompts=fingerprints() if uses_model else {},
        )

    def _settings(self, uses_model: bool) -> dict[str, Scalar]:
        """The settings of the service that can change an answer or its cost."""
        dumped = self._context.settings.model_dump(mode="json", exclude=set(_IRRELEVANT_SETTINGS))
        settings = {
            name: value for name, value in dumped.items() if not name.startswith(_MODEL_SETTINGS)
        }
        models = self._context.models
        if uses_model and models is not None:
            settings |= {
                name: value for name, value in dumped.items() if name.startswith(_MODEL_SETTINGS)
            }
            settings["llm_model"] = dumped["llm_model"] or models.of["recall"].model.name
            settings["llm_prices"] = json.dumps(dumped["llm_prices"], sort_keys=True)
            # What follows a question mark may be a key.
            settings["llm_base_url"] = (dumped["llm_base_url"] or "").partition("?")[0]
        return settings

    async def _new_row(self, trial: Trial, run: Run) -> ResultRow:
        training, cases = trial.split
        self._usage, self._degraded = {}, 0
        [system] = systems([trial.full_name], self._context)
        try:
            begun = time.perf_counter()
            await system.fit(training)
            fitted = time.perf_counter()
            answers = await self._answers(system, [case.query for case in cases], trial)
            ended = time.perf_counter()
        finally:
            await system.aclose()
        took = round(fitted - begun, 3), round(ended - fitted, 3)
        if not trial.measured:
            return ResultRow(
                run=run,
                cases=len(cases),
                metrics={},
                usage=self._usage,
                degraded=self._degraded,
                fit_s=took[0],
                rank_s=took[1],
                ended=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        self._answer_store.put(run.key, answers)
        measured = self.measured[run.key] = await self._measured(trial, answers)
        first = self._first_of(trial, measured)
        return ResultRow.of(
            run,
            measured,
            usage=self._usage,
            degraded=self._degraded,
            against=None if first.measured is measured else {first.name: first.measured},
            fit_s=took[0],
            rank_s=took[1],
        )

    async def _compared_row(self, trial: Trial, row: ResultRow) -> ResultRow | None:
        """A row of an earlier run with the comparison of this run.

        None where the stored answers are missing.
        """
        if not trial.measured:
            return row
        answers = self._answer_store.get(row.key, len(trial.cases))
        if answers is None:
            return None
        measured = self.measured[row.key] = await self._measured(trial, answers)
        first = self._first_of(trial, measured)
        against = (
            {}
            if first.measured is measured
            else {first.name: measured.against(first.measured, seed=self._seed)}
        )
        return row if against == row.against else msgspec.structs.replace(row, against=against)

    def _first_of(self, trial: Trial, measured: SystemMetrics) -> _First:
        first = _First(trial.split, trial.full_name, measured)
        return self._first.setdefault(id(trial.split), first)

    async def _measured(self, trial: Trial, answers: Sequence[Sequence[str]]) -> SystemMetrics:
        training, cases = trial.split
        statistics = await self._statistics_of(training)
        return SystemMetrics.of(cases, answers, statistics, trial.cutoffs, _limit(trial))

    async def _answers(
        self, system: System, queries: Sequence[Query], trial: Trial
    ) -> list[list[str]]:
        limit = _limit(trial)
        answers: list[list[str]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            answers += await system.rank(some, limit)
            self._watcher.answered(len(some))
        return answers

    def _add_usage(self, _: str, __: Query, answer: Recommendation) -> None:
        self._degraded += answer.degraded
        for stage, usage in answer.usage.stages.items():
            if usage.calls:
                self._usage[stage] = self._usage.get(stage, ModelUsage()).plus(usage)

    async def _statistics_of(self, training: Training) -> CatalogStatistics:
        """The statistics of the catalogue, with default vectors: the same for every system."""
        if self._background is None or self._background[0] is not training:
            vectors = await self._vectors_of(training.items) if self._with_lists else None
            topics = topics_of(training.items)
            distinct = topics if len(set(topics)) > 1 else None
            statistics = CatalogStatistics.of(
                training.items, training.users, vectors=vectors, topics=distinct
            )
            self._background = training, statistics
        return self._background[1]

    async def _vectors_of(self, items: Sequence[Item]) -> Int8Matrix:
        store = await self._context.trees.of(items, DEFAULT_EMBEDDER)
        tree = await store.load()
        rows = [tree.row(item.id) for item in items]
        return tree.rows.vectors[np.array([-1 if row is None else row for row in rows])]


def _limit(trial: Trial) -> int:
    """How many items are requested: enough for the metrics, and all candidates up to a limit."""
    sizes = (len(case.query.candidates or ()) for case in trial.cases)
    return max(*trial.cutoffs, *(size for size in sizes if size <= _LARGEST_RANKED), 1)


def _name(trial: Trial) -> str:
    return trial.system.partition(":")[0]
