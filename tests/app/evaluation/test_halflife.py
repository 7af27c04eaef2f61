"""The study of half-lives chooses what suits the data, on other users than it measures."""

from collections.abc import Sequence
from pathlib import Path

from app.cli.evaluate_halflife import advice
from app.evaluation.dataset import Dataset, DatasetUser, Skipped
from app.evaluation.halflife import HalfLifeStudy
from app.evaluation.report import Results
from app.evaluation.studies import StudyInput
from app.evaluation.systems import EvalContext
from app.evaluation.trials import Evaluation, Trial
from app.settings import Settings
from tree.item import Item

DAY_S = 86_400


class Unwatched:
    """See ProgressListener."""

    def began(self, trial: Trial) -> None: ...

    def fitted(self, share: float) -> None: ...

    def answered(self, cases: int) -> None: ...


def users(items: Sequence[Item]) -> list[DatasetUser]:
    """Each day, twelve users end with the item of that day; eight of them had nothing else."""
    ids, found = [item.id for item in items], []
    for day in range(10):
        for number in range(12):
            place = 9 * day + number
            had = ids[place : place + 12 : 3] if number >= 8 else []
            times = [at * DAY_S for at in (*range(len(had)), 400 + day + number / 100)]
            found.append(DatasetUser(f"{day}/{number}", (*had, ids[-1 - day]), tuple(times)))
    return found


async def test_counts_fade_where_that_is_better(demo_items, tmp_path: Path):
    data = Dataset("days", demo_items, users(demo_items), Skipped(), {})
    study = HalfLifeStudy(StudyInput(data, None), Settings(), (0, 1))
    results = Results(tmp_path / "results.jsonl")
    context = EvalContext(Settings())
    evaluation = Evaluation(data, context, results, Unwatched(), with_lists=False)
    halves = []
    async for row in evaluation.run(study.trials()):
        study.add(row)
        halves.append(str(row.run.settings["half"]))
    assert halves == sorted(halves)
    assert study.chosen is not None
    assert study.chosen.half_life_days == 1
    assert study.is_better
    assert '{"half_life_days": 1' in "\n".join(advice(study))


def test_nothing_is_advised_where_nothing_was_chosen(demo_items):
    study = HalfLifeStudy(StudyInput(Dataset("none", demo_items, (), Skipped(), {})), Settings())
    assert advice(study) == [
        "Counts that do not fade, with the weights as they are, were the best."
    ]
