"""Who is asked, what trained systems may see of each reader, and lengths of history."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from app.evaluation.case import Case, Training
from app.evaluation.dataset import DataError, Dataset, Reader

Split = tuple[Training, list[Case]]

# Name, fewest and most events.
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
    """The name of the bucket for a history of so many events."""
    return next(name for name, _, most in BUCKETS if most is None or length <= most)


def sample(things: Sequence[_Thing], count: int | None, seed: int) -> list[_Thing]:
    """The first `count` after a seeded shuffle; all, shuffled, for None."""
    shuffled = list(things)
    Random(seed).shuffle(shuffled)
    return shuffled[:count]


def before(reader: Reader, end: int) -> Reader:
    """A reader as they were after their first `end` events: nothing tells of a later one.

    Of what was shown only that is kept which a kept event followed.
    """
    history = reader.history[:end]
    kept = frozenset(history)
    return replace(
        reader,
        history=history,
        times=reader.times[:end],
        candidates=(),
        impressions=tuple(
            each for each in reader.impressions if each.seen_before < end and each.chosen <= kept
        ),
    )


def training_before(data: Dataset, ends: Mapping[str, int]) -> Training:
    """All items, and of the readers in `ends` only so many events, of the others all."""
    readers = [
        before(reader, ends[reader.id]) if reader.id in ends else reader for reader in data.readers
    ]
    return Training(data.items, [reader for reader in readers if reader.history])


def training_share(training: Training, share: float, seed: int = 0) -> Training:
    """A share of the readers, above 0 and up to 1, in their order; a smaller one lies in a larger.

    Raises ValueError for any other share.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share is above 0 and at most 1, not {share}")
    count = math.ceil(share * len(training.readers))
    kept = sorted(sample(range(len(training.readers)), count, seed))
    return Training(training.items, [training.readers[position] for position in kept])


def some(cases: list[Case], data: Dataset, lacking: str) -> list[Case]:
    """The cases. Raises DataError where there are none."""
    if not cases:
        raise DataError(f"{data.name}: nobody can be asked: {lacking}.")
    return cases
