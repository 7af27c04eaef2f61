"""`Trial`: a system and the questions that it is asked; `Evaluation` makes a row of each."""

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from app.evaluation.case import Case, Question, System, Training
from app.evaluation.dataset import Dataset
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

# What the answers of the service depend on, besides its code and its prompts.
_SETTINGS = frozenset(
    {
        "beam_breadth", "beam_leaves", "diversity", "exact_scan_items", "history_decay",
        "history_items", "popularity_weight", "sharpness", "wish_weight",
    }
)  # fmt: skip
_MODEL_SETTINGS = frozenset(
    {
        "llm_anchors", "llm_branches", "llm_model", "llm_profile_model", "llm_recall_model",
        "llm_reply_mode", "llm_rerank_model", "llm_search_model", "llm_weight",
    }
)  # fmt: skip


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
    """Who is asked what. `settings` are those of the protocol, `parameters` what a study varies."""

    study: str
    protocol: str
    system: str
    split: Split
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    varied: str = ""  # the same as the system is told it: `share=0.1`
    cutoffs: tuple[int, ...] = (10, 20)

    @property
    def asked(self) -> str:
        """The system's name with all of its parameters."""
        if not self.varied:
            return self.system
        return f"{self.system}{',' if ':' in self.system else ':'}{self.varied}"

    @property
    def cases(self) -> Sequence[Case]:
        return self.split[1]


class Evaluation:
    """Runs trials on one data set. What `results` hold already is not run again."""

    def __init__(
        self,
        data: Dataset,
        around: Surroundings,
        results: Results,
        watcher: Watcher,
        *,
        seed: int = 0,
    ) -> None:
        self._data = Data.of(data)
        self._around = replace(
            around, heard=self._hear, progress=lambda _, share: watcher.fitted(share)
        )
        self._results = results
        self._watcher = watcher
        self._seed = seed
        self._usage: dict[str, Spent] = {}
        self._degraded = 0
        self._first: dict[int, tuple[str, Measured]] = {}  # by whom the others are compared
        self._background: tuple[Training, Background] | None = None

    async def run(self, trials: Iterable[Trial]) -> AsyncIterator[Row]:
        """The rows in the order of the trials, each as soon as it is there.

        Raises UnknownSystem and MissingLibrary, DataError for a file of results that is none.
        """
        known = {row.key: row for row in self._results.rows()}
        for trial in trials:
            self._watcher.began(trial)
            run = self._run_of(trial)
            row = known.get(run.key)
            if row is None:
                row = await self._row(trial, run)
                self._results.append(row)
            else:
                self._watcher.answered(len(trial.cases))
            yield row

    def _run_of(self, trial: Trial) -> Run:
        name = trial.system.partition(":")[0]
        ours = name in _OURS
        models = self._around.models
        asks = ours and name != "embedded" and models is not None and models.configured
        names = (_SETTINGS if ours else frozenset()) | (_MODEL_SETTINGS if asks else frozenset())
        dumped = self._around.settings.model_dump(mode="json", include=set(names))
        return Run(
            study=trial.study,
            data=self._data,
            protocol=trial.protocol,
            seed=self._seed,
            system=trial.system,
            settings=dict(sorted({**dumped, **trial.settings, "cases": len(trial.cases)}.items())),
            parameters=dict(trial.parameters),
            prompts=fingerprints() if asks else {},
        )

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
        background = await self._seen_against(training)
        measured = Measured.of(cases, answers, background, trial.cutoffs)
        first, rival = self._first.setdefault(id(cases), (trial.asked, measured))
        return Row.of(
            run,
            measured,
            usage=self._usage,
            degraded=self._degraded,
            against={first: rival} if rival is not measured else None,
            fit_s=round(fitted - begun, 3),
            rank_s=round(ended - fitted, 3),
        )

    async def _answers(
        self, system: System, questions: Sequence[Question], trial: Trial
    ) -> list[list[str]]:
        answers: list[list[str]] = []
        for start in range(0, len(questions), _ASKED_AT_ONCE):
            some = questions[start : start + _ASKED_AT_ONCE]
            answers += await system.rank(some, max(trial.cutoffs))
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


def _sum(so_far: Spent, usage: object) -> Spent:
    return Spent(
        **{name: getattr(so_far, name) + getattr(usage, name) for name in Spent.__struct_fields__}
    )
