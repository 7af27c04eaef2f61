"""What is learned of histories, and when it is used."""

import numpy as np
import pytest

from app.rank_weights import RankWeights
from app.tuning import (
    AdapterLearner,
    ItemRanks,
    RankOptions,
    TooFewHistories,
    TrainingEvents,
    Tuning,
    chosen,
    split,
)
from tests.app.tuning.worlds import (
    ITEMS,
    histories_by_chance,
    histories_by_taste,
    units,
    vectors_of_tastes,
    wordless_tree,
)

WEIGHTS = RankWeights(
    history_decay=0.8, exact_words=0, popularity_weight=0.025, cooccurrence_weight=30
)


@pytest.fixture(scope="module")
def world():
    return vectors_of_tastes()


async def tuned_by(histories, vectors) -> Tuning:
    examples = split(histories, ITEMS)
    learner = AdapterLearner(units(vectors), examples.training, steps=60, rate=0.02)
    assert sum(learner.learn()) == learner.steps
    rows = np.arange(ITEMS, dtype=np.int32)
    events = TrainingEvents(examples.training, ITEMS, 15)
    ranks = ItemRanks(await wordless_tree(), rows, RankOptions(WEIGHTS), events)
    return chosen(learner.matrix, vectors, examples, ranks)


def test_held_out_users_and_items_are_in_no_training_history(world):
    tastes, _ = world
    examples = split(histories_by_taste(tastes), ITEMS)
    trained = set(np.concatenate(examples.training).tolist())
    halves = examples.choosing, examples.confirming
    assert all(case.target not in trained for half in halves for case in half.cold)
    assert not {case.user for case in (*halves[0].known, *halves[0].cold)} & {
        case.user for case in (*halves[1].known, *halves[1].cold)
    }
    assert all(len(case.history) for half in halves for case in (*half.known, *half.cold))


async def test_what_users_have_together_comes_close_also_new_items(world):
    tastes, vectors = world
    tuning = await tuned_by(histories_by_taste(tastes), vectors)
    assert tuning.refusal is None
    assert tuning.adapter is not None
    found = tuning.vectors
    assert found
    assert found.known.recall.after > 1.5 * found.known.recall.before
    assert found.new.recall.after > 1.5 * found.new.recall.before
    assert found.new.ndcg.low > 0
    changed = units(tuning.adapter.applied(vectors, ["an item"] * ITEMS))
    same = tastes[:, None] == tastes
    before, after = (some @ some.T for some in (units(vectors), changed))
    assert after[same].mean() - after[~same].mean() > 2 * (
        before[same].mean() - before[~same].mean()
    )


async def test_an_adapter_that_learns_from_chance_is_refused(world):
    _, vectors = world
    tuning = await tuned_by(histories_by_chance(), vectors)
    assert tuning.adapter is None
    assert tuning.refusal


def test_few_histories_are_refused(world):
    tastes, _ = world
    with pytest.raises(TooFewHistories, match="20 users"):
        split(histories_by_taste(tastes, users=20), ITEMS)
    with pytest.raises(TooFewHistories):
        split([], ITEMS)


def test_the_same_histories_teach_the_same(world):
    tastes, vectors = world
    histories = histories_by_taste(tastes, users=100)
    learners = [AdapterLearner(units(vectors), histories) for _ in range(2)]
    for learner in learners:
        next(learner.learn())
    assert np.array_equal(learners[0].matrix, learners[1].matrix)
