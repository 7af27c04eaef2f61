"""Samples of users, the training data that precede their targets, and buckets of histories."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from app.evaluation.case import Case, Training
from app.evaluation.dataset import DataError, Dataset, DatasetUser

Split = tuple[Training, list[Case]]

# Name, smallest and largest number of events.
BUCKETS = (
    ("0", 0, 0),
    ("1", 1, 1),
    ("2–4", 2, 4),
    ("5–9", 5, 9),
    ("10–49", 10, 49),
    ("50+", 50, None),
)

_Thing = TypeVar("_Thing")


def bucket_of(length: int) -> str:
    """The name of the bucket for a history of `length` events."""
    return next(name for name, _, most in BUCKETS if most is None or length <= most)


def sample(things: Sequence[_Thing], count: int | None, seed: int) -> list[_Thing]:
    """The first `count` things after a seeded shuffle; all of them for None."""
    shuffled = list(things)
    Random(seed).shuffle(shuffled)
    return shuffled[:count]


def before(user: DatasetUser, end: int) -> DatasetUser:
    """A user with the first `end` events only, without any trace of later ones.

    An impression stays only if all its chosen items are among these events.
    """
    history = user.history[:end]
    known = frozenset(history)
    return replace(
        user,
        history=history,
        times=user.times[:end],
        candidates=(),
        impressions=tuple(
            each for each in user.impressions if each.seen_before < end and each.chosen <= known
        ),
    )


def without(user: DatasetUser, items: frozenset[str]) -> DatasetUser:
    """A user without some items."""
    kept = [at for at, item in enumerate(user.history) if item not in items]
    times = tuple(user.times[at] for at in kept) if user.times else ()
    return DatasetUser(user.id, tuple(user.history[at] for at in kept), times, user.profile)


def training_before(data: Dataset, ends: Mapping[str, int]) -> Training:
    """All items and users; users in `ends` have only so many of their first events."""
    users = [before(user, ends[user.id]) if user.id in ends else user for user in data.users]
    return Training(data.items, [user for user in users if user.history])


def training_share(training: Training, share: float, seed: int = 0) -> Training:
    """A share of the users, above 0 and at most 1, in their order; smaller shares are subsets.

    Raises ValueError for any other share.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share is above 0 and at most 1, not {share}")
    count = math.ceil(share * len(training.users))
    positions = sorted(sample(range(len(training.users)), count, seed))
    return Training(training.items, [training.users[position] for position in positions])


def non_empty(cases: list[Case], data: Dataset, lacking: str) -> list[Case]:
    """The cases. Raises DataError where there are none."""
    if not cases:
        raise DataError(f"{data.name}: no case is left: {lacking}.")
    return cases
