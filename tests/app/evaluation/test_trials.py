import random
import shutil
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.evaluation import stand_in, studies
from app.evaluation.answer_store import AnswerStore
from app.evaluation.choices import Protocol
from app.evaluation.dataset import Dataset, DatasetUser, Skipped
from app.evaluation.growth import resized
from app.evaluation.report import ResultRow, Results
from app.evaluation.studies import EmptyStudyInput, StudyInput
from app.evaluation.systems import EvalContext, Trees, UnknownSystem
from app.evaluation.trials import Evaluation, Trial
from app.llm import STAGES, Models, ModelUnavailable, ReplyMode, StageModel
from app.llm.chat import Reply, ScriptedChat, Turn
from app.llm.recording import Recorded, Recorder, RecordingError, Replayed
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from tree.item import Item

TREES = Trees()
SIMPLE = ["popular", "random", "semantic"]


@pytest.fixture(scope="session")
def shop(demo_items: list[Item]) -> Dataset:
    """The bundled catalogue, and made-up users who stay within a category of each domain."""
    draw = random.Random(5)
    by_category: dict[tuple[str, ...], list[str]] = {}
    for item in demo_items:
        by_category.setdefault((item.domain, *item.categories[:2]), []).append(item.id)
    own = {
        domain: [ids for (name, *_), ids in by_category.items() if name == domain]
        for domain in ("books", "films")
    }
    users = []
    for number in range(40):
        parts = [("films", 5), ("books", 4)] if number % 2 else [("films", 5 + number // 4)]
        history = tuple(
            item
            for domain, count in parts
            for item in draw.sample(draw.choice([s for s in own[domain] if len(s) >= count]), count)
        )
        users.append(DatasetUser(f"r{number}", history, tuple(map(float, range(len(history))))))
    return Dataset("shop", demo_items, users, Skipped(), {"items.jsonl": "a", "h.jsonl": "b"})


class RecordingListener:
    """Records its calls; stops at a given trial."""

    def __init__(self, stop_at: str = "") -> None:
        self.trials: list[str] = []
        self.cases = 0
        self._stop_at = stop_at

    def began(self, trial: Trial) -> None:
        if trial.full_name == self._stop_at:
            raise KeyboardInterrupt
        self.trials.append(trial.full_name)

    def fitted(self, share: float) -> None:
        assert 0 <= share <= 1

    def answered(self, cases: int) -> None:
        self.cases += cases


def context(models: Models | None = None) -> EvalContext:
    return EvalContext(Settings(), models, trees=TREES)


async def rows_of(
    shop: Dataset, folder: Path, trials: Sequence[Trial], listener: RecordingListener | None = None,
    models: Models | None = None, *, seed: int = 0, ask_again: bool = False, **settings: Any,
) -> list[ResultRow]:  # fmt: skip
    results = Results(folder / "results.jsonl")
    listener = listener or RecordingListener()
    own_context = replace(context(models), settings=Settings.model_validate(settings))
    evaluation = Evaluation(shop, own_context, results, listener, seed=seed, ask_again=ask_again)
    return [row async for row in evaluation.run(trials)]


def figures(row: ResultRow) -> dict[str, object]:
    """A row without its times."""
    stored = msgspec.to_builtins(row)
    return {name: stored[name] for name in stored if name not in ("fit_s", "rank_s", "ended")}


async def test_systems_are_compared_on_the_same_users(shop: Dataset, tmp_path: Path) -> None:
    trials = studies.compare(StudyInput(shop), Protocol.LEAVE_LAST_OUT, ["embedded", "random"])
    listener = RecordingListener()
    embedded, chance = await rows_of(shop, tmp_path, trials, listener)
    assert listener.trials == ["embedded", "random"]
    assert listener.cases == 80
    assert embedded.cases == chance.cases == 40
    assert embedded.metrics["recall@20"].value > chance.metrics["recall@20"].value
    assert set(embedded.buckets) == {"2–4", "5–9", "10–49"}
    assert chance.against["embedded"]["ndcg@20"].difference.value < 0
    assert not embedded.flaws
    assert embedded.run.settings["sharpness"] == Settings().sharpness
    assert "sharpness" not in chance.run.settings
    assert Results(tmp_path / "results.jsonl").rows() == [embedded, chance]


async def test_an_interrupted_run_continues(shop: Dataset, tmp_path: Path) -> None:
    trials = studies.compare(
        StudyInput(shop), Protocol.LEAVE_LAST_OUT, ["popular", "random", "semantic"]
    )
    with pytest.raises(KeyboardInterrupt):
        await rows_of(shop, tmp_path, trials, RecordingListener("semantic"))
    before = (tmp_path / "results.jsonl").read_bytes()
    rows = await rows_of(shop, tmp_path, trials)
    after = (tmp_path / "results.jsonl").read_bytes()
    assert after.startswith(before)
    assert before.count(b"\n") == 2
    assert after.count(b"\n") == 3
    assert [row.run.system for row in rows] == SIMPLE
    again = replace(StudyInput(shop), users=20)
    await rows_of(shop, tmp_path, studies.compare(again, Protocol.LEAVE_LAST_OUT, ["popular"]))
    assert len(Results(tmp_path / "results.jsonl").rows()) == 4, "fewer users are another run"


async def test_a_replay_equals_its_recording_and_calls_no_model(
    shop: Dataset, tmp_path: Path
) -> None:
    trials = studies.compare(
        replace(StudyInput(shop), users=6), Protocol.LEAVE_LAST_OUT, ["beam", "paper"]
    )
    file = tmp_path / "recording.jsonl"

    def of(model: Recorded | Replayed) -> Models:
        stages = dict.fromkeys(STAGES, StageModel(model))
        return Models(stages, MemoryDocuments(), ReplyMode.JSON_SCHEMA)

    with Recorder(file) as recorder:
        model = Recorded(stand_in.stand_in(), recorder)
        recorded = await rows_of(shop, tmp_path / "one", trials, models=of(model))
    asked = file.stat().st_size
    replay = of(Replayed(file, stand_in.NAME))
    replayed = await rows_of(shop, tmp_path / "two", trials, models=replay)
    assert list(map(figures, replayed)) == list(map(figures, recorded))
    assert recorded[0].tokens() > 0
    assert recorded[0].run.prompts.keys() >= {"search", "phrases"}
    assert file.stat().st_size == asked
    other = studies.compare(
        replace(StudyInput(shop, seed=1), users=6), Protocol.LEAVE_LAST_OUT, ["beam"]
    )
    with pytest.raises(RecordingError, match="does not hold a question"):
        await rows_of(shop, tmp_path / "three", other, models=replay)


async def test_tokens_are_counted_by_stage_and_size(shop: Dataset, tmp_path: Path) -> None:
    trials = list(studies.tokens(replace(StudyInput(shop), users=2), [150, 400]))
    rows = await rows_of(shop, tmp_path, trials, models=stand_in.models())
    systems = {row.run.system for row in rows}
    assert len(rows) == 2 * len(systems) == 10
    for row in rows:
        assert row.tokens() == pytest.approx(sum(row.tokens(stage) for stage in row.usage))
        assert row.tokens() > 0
        assert not row.degraded
    flat = [row.tokens() for row in rows if row.run.system == "flat"]
    ours = [row.tokens() for row in rows if row.run.system == "beam:effort=economy"]
    assert flat[1] / flat[0] > ours[1] / ours[0]


async def test_varied_parameters_reach_the_system(shop: Dataset, tmp_path: Path) -> None:
    asked = StudyInput(shop)
    trials = studies.topics(asked, ["embedded"], (0.0, 0.7))
    plain, mixed = await rows_of(shop, tmp_path, trials)
    assert [row.run.parameters for row in (plain, mixed)] == [
        {"diversity": 0.0},
        {"diversity": 0.7},
    ]
    assert mixed.metrics["ilad@20"].value > plain.metrics["ilad@20"].value
    assert {"targets", "histories", "answers"} == set(plain.topics)
    assert [t.full_name for t in studies.k(asked, ["paper", "embedded"], (1, 5))] == [
        "embedded", "paper:k=1", "paper:k=5",
    ]  # fmt: skip
    learned = studies.training(asked, ["als:factors=8"], ["embedded"], (0.1,))
    assert [t.full_name for t in learned] == [
        "embedded", "als:factors=8,share=0.1",
    ]  # fmt: skip
    assert len(studies.prompts(asked, ["beam"])) == 4


@pytest.mark.parametrize(
    "protocol",
    sorted(set(Protocol) - {Protocol.IMPRESSIONS, Protocol.CANDIDATES, Protocol.COMPLEMENT}),
)
async def test_every_protocol_can_be_run(shop: Dataset, tmp_path: Path, protocol: Protocol) -> None:
    trials = studies.compare(StudyInput(shop), protocol, ["embedded"])
    [row] = await rows_of(shop, tmp_path, trials)
    assert row.cases
    assert not row.flaws


async def test_an_unknown_system_is_refused_with_the_known_ones(
    shop: Dataset, tmp_path: Path
) -> None:
    trials = studies.compare(StudyInput(shop), Protocol.LEAVE_LAST_OUT, ["oracle"])
    with pytest.raises(UnknownSystem, match=r"no system 'oracle'.*embedded"):
        await rows_of(shop, tmp_path, trials)


@pytest.mark.parametrize("size", [10, 725, 1_500])
def test_catalogues_are_resized(demo_items: list[Item], size: int) -> None:
    items = resized(demo_items, size)
    assert len({item.id for item in items}) == size
    assert items == resized(demo_items, size)
    made = [item for item in items if item.id.startswith("made-up/")]
    assert len(made) == max(0, size - len(demo_items))
    shortest = min(len(item.title.split()) for item in demo_items)
    assert all(item.title and len(item.title.split()) >= shortest - 1 for item in made)


@pytest.mark.parametrize(
    "changed",
    [
        {"cooccurrence_weight": 1.0},
        {"freshness_half_life_days": 1.0},
        {"llm_max_tokens": 5_000},
        {"llm_prices": {"m": {"input": 1, "output": 2}}},
        {"llm_base_url": "http://elsewhere:8000/v1"},
        {"slate_cache_ttl_s": 60},
    ],
)
async def test_settings_that_change_answers_or_costs_make_another_run(
    shop: Dataset, tmp_path: Path, changed: dict[str, Any]
) -> None:
    asked = replace(StudyInput(shop), users=2)
    trials = studies.compare(asked, Protocol.LEAVE_LAST_OUT, ["beam:effort=economy"])
    await rows_of(shop, tmp_path, trials, models=stand_in.models())
    await rows_of(shop, tmp_path, trials, models=stand_in.models(), job_ttl_s=90)
    results = Results(tmp_path / "results.jsonl")
    assert len(results.rows()) == 1, "how long a job can be read does not matter"
    await rows_of(shop, tmp_path, trials, models=stand_in.models(), **changed)
    assert len(results.rows()) == 2
    assert results.rows()[0].run.settings["llm_model"] == stand_in.NAME


async def test_all_candidates_are_ranked(shop: Dataset, tmp_path: Path) -> None:
    draw = random.Random(2)
    ids = [item.id for item in shop.items]
    given = [
        replace(user, candidates=tuple({*draw.sample(ids, 150), user.history[-1]}))
        for user in shop.users
    ]
    slates = replace(shop, users=given)
    trials = studies.compare(StudyInput(slates), Protocol.CANDIDATES, ["random", "embedded"])
    chance, embedded = await rows_of(slates, tmp_path, trials)
    for row in (chance, embedded):
        assert row.metrics["gauc"].cases == row.cases
        assert {name for name in row.metrics if name.startswith("recall")} == {
            "recall@10", "recall@20",
        }  # fmt: skip
        assert not row.flaws
    answers = AnswerStore(tmp_path / "answers").get(embedded.key, embedded.cases)
    assert answers
    assert min(map(len, answers)) >= 140, "but for the history, all of them"
    trials = studies.compare(StudyInput(shop), Protocol.LEAVE_LAST_OUT, ["random"])
    [row] = await rows_of(shop, tmp_path, trials)
    assert "gauc" not in row.metrics


def test_the_paper_protocol_limits_categories(shop: Dataset) -> None:
    path = ("All", "Of one kind")
    alike = [item.model_copy(update={"categories": (*path, item.id)}) for item in shop.items[:90]]
    bare = [item.model_copy(update={"categories": ()}) for item in shop.items[90:200]]
    data = replace(shop, items=[*alike, *bare])
    held = {item.id for item in data.items}
    users = [replace(r, history=tuple(sorted(held)[n : n + 6]), times=()) for n, r in
               enumerate(shop.users)]  # fmt: skip
    data = replace(data, users=users)
    ours = {item.id: str(at % 2) for at, item in enumerate(bare)}
    asked = StudyInput(data, leaves=lambda: ours)
    _, cases = asked.split(Protocol.PAPER)
    left = set(cases[0].query.candidates or ())
    assert len(left & {item.id for item in alike}) == 50, "one subcategory is one leaf"
    assert len(left & ours.keys()) == 100, "of items without categories, the leaves of the tree"
    [trial] = studies.compare(asked, Protocol.PAPER, ["random"])
    assert trial.settings["readers"] == 500


def test_prompts_are_counted_for_the_same_users_at_every_size(shop: Dataset) -> None:
    trials = list(studies.tokens(StudyInput(shop), [400, 150, 900]))
    catalogues = {
        trial.parameters["catalogue_size"]: {item.id for item in trial.split[0].items}
        for trial in trials
    }
    assert catalogues[150] < catalogues[400] < catalogues[900]
    queries = {tuple(case.query for case in trial.cases) for trial in trials}
    assert len(queries) == 1
    [asked] = queries
    assert len(asked) == 20
    assert all(len(query.history) >= 5 for query in asked)
    assert all(catalogues[150] >= set(query.history) for query in asked)


async def test_rows_without_measurement_have_no_metrics(shop: Dataset, tmp_path: Path) -> None:
    trials = list(studies.tokens(replace(StudyInput(shop), users=2), [150]))
    rows = await rows_of(shop, tmp_path, trials, models=stand_in.models())
    assert all(row.usage and not row.metrics and not row.against for row in rows)
    again = await rows_of(shop, tmp_path, trials, models=stand_in.models())
    assert again == rows


async def test_the_seed_of_a_run_is_that_of_its_systems(shop: Dataset, tmp_path: Path) -> None:
    trials = studies.compare(StudyInput(shop), Protocol.LEAVE_LAST_OUT, ["random", "random:seed=7"])
    first = await rows_of(shop, tmp_path, trials)
    second = await rows_of(shop, tmp_path, trials, seed=7)
    store = AnswerStore(tmp_path / "answers")
    stored = [[store.get(row.key, row.cases) for row in rows] for rows in (first, second)]
    assert stored[0][0] != stored[1][0]
    assert stored[0][1] == stored[1][0] == stored[1][1]


@pytest.mark.parametrize("lost", [False, True])
async def test_comparisons_do_not_depend_on_earlier_runs(
    shop: Dataset, tmp_path: Path, lost: bool
) -> None:
    def of(*names: str) -> list[Trial]:
        return studies.compare(StudyInput(shop), Protocol.LEAVE_LAST_OUT, names)

    fresh = await rows_of(shop, tmp_path / "fresh", of(*SIMPLE))
    await rows_of(shop, tmp_path / "resumed", of("random", "popular"))
    if lost:
        shutil.rmtree(tmp_path / "resumed" / "answers")
    resumed = await rows_of(shop, tmp_path / "resumed", of(*SIMPLE))
    assert list(map(figures, resumed)) == list(map(figures, fresh))
    assert [set(row.against) for row in resumed] == [set(), {"popular"}, {"popular"}]
    assert await rows_of(shop, tmp_path / "resumed", of(*SIMPLE)) == resumed


async def test_degraded_runs_are_repeated(shop: Dataset, tmp_path: Path) -> None:
    trials = studies.compare(
        replace(StudyInput(shop), users=3), Protocol.LEAVE_LAST_OUT, ["beam:effort=economy"]
    )
    up = stand_in.stand_in()

    def down(_: Turn) -> Reply:
        raise ModelUnavailable("no luck")

    def of(model: ScriptedChat) -> Models:
        stages = dict.fromkeys(STAGES, StageModel(model))
        return Models(stages, MemoryDocuments(), ReplyMode.JSON_SCHEMA)

    [failed] = await rows_of(shop, tmp_path, trials, models=of(ScriptedChat(down, up.name)))
    [done] = await rows_of(shop, tmp_path, trials, models=of(up))
    assert (failed.degraded, done.degraded) == (3, 0)
    assert failed.key == done.key
    assert Results(tmp_path / "results.jsonl").rows() == [done]


async def test_recorded_runs_are_repeated(shop: Dataset, tmp_path: Path) -> None:
    trials = studies.compare(
        replace(StudyInput(shop), users=3),
        Protocol.LEAVE_LAST_OUT,
        ["popular", "beam:effort=economy"],
    )
    turns: list[Turn] = []

    def counted(turn: Turn) -> Reply | Awaitable[Reply]:
        turns.append(turn)
        return stand_in.stand_in().script(turn)

    stages = dict.fromkeys(STAGES, StageModel(ScriptedChat(counted, stand_in.NAME)))
    models = Models(stages, MemoryDocuments(), ReplyMode.JSON_SCHEMA)
    rows = await rows_of(shop, tmp_path, trials, models=models)
    asked = len(turns)
    assert asked
    assert await rows_of(shop, tmp_path, trials, models=models) == rows
    assert len(turns) == asked
    again = await rows_of(shop, tmp_path, trials, models=models, ask_again=True)
    assert len(turns) == 2 * asked
    assert again[0] == rows[0], "who asks no model is not asked again"


def test_a_varied_parameter_cannot_be_given(shop: Dataset) -> None:
    with pytest.raises(UnknownSystem, match="'topics' varies diversity itself"):
        studies.topics(EmptyStudyInput(), ["embedded:diversity=0.3"])
    with pytest.raises(UnknownSystem, match="'k' varies k itself"):
        studies.k(StudyInput(shop), ["paper:effort=economy,k=3"])
    with pytest.raises(UnknownSystem, match="'training' varies share itself"):
        studies.training(EmptyStudyInput(), ["als:share=0.5"], ["embedded"])
    drafted = studies.compare(EmptyStudyInput(), Protocol.TEMPORAL, SIMPLE)
    assert [trial.full_name for trial in drafted] == SIMPLE
