import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from app.evaluation import stand_in, studies
from app.evaluation.choices import Protocol
from app.evaluation.dataset import Dataset, Reader, Skipped
from app.evaluation.growth import resized
from app.evaluation.report import Results, Row
from app.evaluation.studies import Asked
from app.evaluation.systems import Surroundings, Trees, UnknownSystem
from app.evaluation.trials import Evaluation, Trial
from app.llm import STAGES, Models, ReplyMode, StageModel
from app.llm.recording import Recorded, Recorder, RecordingError, Replayed
from app.settings import Settings
from tree.item import Item
from tree.store.documents import MemoryDocuments

TREES = Trees()
SIMPLE = ["popular", "random", "semantic"]


@pytest.fixture(scope="session")
def shop(demo_items: list[Item]) -> Dataset:
    """The bundled catalogue, and made-up readers who stay within a category of each domain."""
    draw = random.Random(5)
    shelves: dict[tuple[str, ...], list[str]] = {}
    for item in demo_items:
        shelves.setdefault((item.domain, *item.categories[:2]), []).append(item.id)
    own = {
        domain: [shelf for (name, *_), shelf in shelves.items() if name == domain]
        for domain in ("books", "films")
    }
    readers = []
    for number in range(40):
        parts = [("films", 5), ("books", 4)] if number % 2 else [("films", 5 + number // 4)]
        history = tuple(
            item
            for domain, count in parts
            for item in draw.sample(draw.choice([s for s in own[domain] if len(s) >= count]), count)
        )
        readers.append(Reader(f"r{number}", history, tuple(map(float, range(len(history))))))
    return Dataset("shop", demo_items, readers, Skipped(), {"items.jsonl": "a", "h.jsonl": "b"})


class Watching:
    """Remembers what it was told; gives up at a trial."""

    def __init__(self, stop_at: str = "") -> None:
        self.trials: list[str] = []
        self.cases = 0
        self._stop_at = stop_at

    def began(self, trial: Trial) -> None:
        if trial.asked == self._stop_at:
            raise KeyboardInterrupt
        self.trials.append(trial.asked)

    def fitted(self, share: float) -> None:
        assert 0 <= share <= 1

    def answered(self, cases: int) -> None:
        self.cases += cases


def around(models: Models | None = None) -> Surroundings:
    return Surroundings(Settings(), models, trees=TREES)


async def rows_of(
    shop: Dataset, folder: Path, trials: Sequence[Trial], watching: Watching | None = None,
    models: Models | None = None,
) -> list[Row]:  # fmt: skip
    results = Results(folder / "results.jsonl")
    watching = watching or Watching()
    evaluation = Evaluation(shop, around(models), results, watching)
    return [row async for row in evaluation.run(trials)]


def figures(row: Row) -> dict[str, object]:
    """All of a row but what the clock says."""
    said = msgspec.to_builtins(row)
    return {name: said[name] for name in said if name not in ("fit_s", "rank_s", "ended")}


async def test_systems_are_compared_on_the_same_readers(shop: Dataset, tmp_path: Path) -> None:
    trials = studies.compare(Asked(shop), Protocol.LEAVE_LAST_OUT, ["embedded", "random"])
    watching = Watching()
    embedded, chance = await rows_of(shop, tmp_path, trials, watching)
    assert watching.trials == ["embedded", "random"]
    assert watching.cases == 80
    assert embedded.cases == chance.cases == 40
    assert embedded.metrics["recall@20"].value > chance.metrics["recall@20"].value
    assert set(embedded.buckets) == {"2–4", "5–9", "10–49"}
    assert chance.against["embedded"]["ndcg@20"].difference.value < 0
    assert not embedded.flaws
    assert embedded.run.settings["sharpness"] == Settings().sharpness
    assert "sharpness" not in chance.run.settings
    assert Results(tmp_path / "results.jsonl").rows() == [embedded, chance]


async def test_an_interrupted_run_goes_on(shop: Dataset, tmp_path: Path) -> None:
    trials = studies.compare(
        Asked(shop), Protocol.LEAVE_LAST_OUT, ["popular", "random", "semantic"]
    )
    with pytest.raises(KeyboardInterrupt):
        await rows_of(shop, tmp_path, trials, Watching("semantic"))
    kept = (tmp_path / "results.jsonl").read_bytes()
    rows = await rows_of(shop, tmp_path, trials)
    after = (tmp_path / "results.jsonl").read_bytes()
    assert after.startswith(kept)
    assert kept.count(b"\n") == 2
    assert after.count(b"\n") == 3
    assert [row.run.system for row in rows] == SIMPLE
    again = replace(Asked(shop), readers=20)
    await rows_of(shop, tmp_path, studies.compare(again, Protocol.LEAVE_LAST_OUT, ["popular"]))
    assert len(Results(tmp_path / "results.jsonl").rows()) == 4, "fewer readers are another run"


async def test_a_replay_is_equal_to_its_recording_and_asks_nobody(
    shop: Dataset, tmp_path: Path
) -> None:
    trials = studies.compare(
        replace(Asked(shop), readers=6), Protocol.LEAVE_LAST_OUT, ["beam", "paper"]
    )
    file = tmp_path / "said.jsonl"

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
        replace(Asked(shop, seed=1), readers=6), Protocol.LEAVE_LAST_OUT, ["beam"]
    )
    with pytest.raises(RecordingError, match="does not hold a question"):
        await rows_of(shop, tmp_path / "three", other, models=replay)


async def test_tokens_are_counted_by_stage_and_size(shop: Dataset, tmp_path: Path) -> None:
    trials = list(studies.tokens(replace(Asked(shop), readers=2), [150, 400]))
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


async def test_what_a_study_varies_is_told_to_the_system(shop: Dataset, tmp_path: Path) -> None:
    asked = Asked(shop)
    trials = studies.topics(asked, ["embedded"], (0.0, 0.7))
    plain, mixed = await rows_of(shop, tmp_path, trials)
    assert [row.run.parameters for row in (plain, mixed)] == [
        {"diversity": 0.0},
        {"diversity": 0.7},
    ]
    assert mixed.metrics["ilad@20"].value > plain.metrics["ilad@20"].value
    assert {"targets", "histories", "answers"} == set(plain.topics)
    assert [t.asked for t in studies.k(asked, ["paper", "embedded"], (1, 5))] == [
        "embedded", "paper:k=1", "paper:k=5",
    ]  # fmt: skip
    assert [t.asked for t in studies.training(asked, ["als:factors=8"], ["embedded"], (0.1,))] == [
        "embedded", "als:factors=8,share=0.1",
    ]  # fmt: skip
    assert len(studies.prompts(asked, ["beam"])) == 4


@pytest.mark.parametrize("protocol", set(Protocol) - {Protocol.IMPRESSIONS, Protocol.CANDIDATES})
async def test_every_protocol_can_be_run(shop: Dataset, tmp_path: Path, protocol: Protocol) -> None:
    leaves = await TREES.leaves(shop.items)
    trials = studies.compare(Asked(shop, leaves=leaves), protocol, ["embedded"])
    [row] = await rows_of(shop, tmp_path, trials)
    assert row.cases
    assert not row.flaws


async def test_an_unknown_system_is_named_with_those_there_are(
    shop: Dataset, tmp_path: Path
) -> None:
    trials = studies.compare(Asked(shop), Protocol.LEAVE_LAST_OUT, ["oracle"])
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
