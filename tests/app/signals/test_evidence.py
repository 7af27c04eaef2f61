"""What pairs and counts are worth: little of few users, bounded of many."""

import numpy as np
import pytest

from app.recommend import RecommendConfig
from app.settings import Settings
from app.signals import Signals, evidence
from app.storage.feedback import Event
from app.storage.memory_feedback import MemoryFeedback
from tree.store.memory import MemoryTreeStore

SHRINKAGE = Settings().cooccurrence_shrinkage
WEIGHT = Settings().cooccurrence_weight


def worth(weight: float, count: float = 50, other: float = 50, alike: float = 0) -> float:
    """What a pair adds to a score."""
    pair = np.array([weight]), count, np.array([other]), np.array([alike])
    return WEIGHT * float(evidence.of_pairs(*pair, SHRINKAGE)[0])


def test_what_one_user_says_never_carries_an_unlike_item():
    """Similarities of a good candidate and of any item differ by .2 at least."""
    assert worth(1, count=1, other=1) == 0, "nobody else had it"
    assert max(worth(1, count, other) for count in (1, 3, 30) for other in (2, 5, 50)) < 0.07


@pytest.mark.parametrize("weight", [2, 50, 1_000_000])
def test_accounts_in_any_number_carry_an_unlike_item_only_so_far(weight):
    assert worth(weight, count=weight, other=weight) <= 0.3 < worth(weight, weight, weight, 0.3)


def test_more_users_are_worth_more_and_more_popular_items_less():
    weights = [0.2, 1, 1.2, 3, 9, 30]
    values = [worth(weight, alike=0.4) for weight in weights]
    assert values == sorted(set(values))
    assert worth(0.5, count=500) < worth(0.5) > worth(0.5, other=500)
    assert worth(3, alike=-0.5) == worth(3)


def test_few_users_make_no_item_popular():
    users = np.array([0, 0.25, 1, 3, 30, 3_000], np.float32)
    counted = evidence.of_counts(users)
    assert counted == pytest.approx([0, 0.0192, 0.25, 1.5, 27.27, 2_997], rel=1e-2)


async def test_a_pair_of_many_users_outweighs_that_of_one(demo_tree):
    store = MemoryTreeStore(space=demo_tree.space, settings=demo_tree.settings)
    await store.replace(demo_tree, base=0)
    tree = await store.load()
    one, other = tree.rows.id(0), tree.rows.id(1)
    config = RecommendConfig.of(Settings()).signals
    found = []
    for users in (1, 100):
        feedback = MemoryFeedback()
        for user in range(users):
            events = [Event(f"{user}/{item}", str(user), item, 1) for item in (one, other)]
            await feedback.record(events)
        scores = await Signals(feedback, config).of(tree, [one], Settings().rank_weights)
        assert scores is not None
        found.append(float(scores.scores[0]))
    assert found[0] == 0 < found[1]
