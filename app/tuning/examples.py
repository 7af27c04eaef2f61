"""`Examples`: what a catalogue's histories teach, and what is kept aside to examine the pupil."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from tree.rows import IntArray
from tree.snapshot import SemanticTree

Rows = npt.NDArray[np.int32]

_HELD_USERS = 0.15
_HELD_ITEMS = 0.15
_MOST_CASES = 2_000  # of each kind and half: the interval of a share of .1 is ± .013
_PER_USER = 4  # cases, so that no user decides alone
_LEAST_TRAINING = 50  # histories
_LEAST_CASES = 30  # of each kind and half
_MOST_ITEMS = 100_000  # those that most users had: 100 MB as float32


class TooFewHistories(Exception):
    """The histories do not suffice to learn from, and to find out whether that helped."""


@dataclass(frozen=True, slots=True)
class HeldOutCase:
    """What a held-out user had, oldest first, and the item that came next."""

    user: int
    history: Rows
    target: int


@dataclass(frozen=True, slots=True)
class Half:
    """Held-out cases of some users: `cold` targets are in no training history."""

    known: list[HeldOutCase]
    cold: list[HeldOutCase]


@dataclass(frozen=True, slots=True)
class Examples:
    """Histories to learn from, and two halves of held-out users.

    The strength of what is learned is chosen on the first half and confirmed on the second.
    """

    training: list[Rows]
    items: int
    choosing: Half
    confirming: Half

    @property
    def users(self) -> int:
        """How many held-out users have a case."""
        halves = self.choosing, self.confirming
        return len({case.user for half in halves for case in (*half.known, *half.cold)})


def positions(
    tree: SemanticTree, histories: Sequence[Sequence[str]]
) -> tuple[IntArray, list[IntArray]]:
    """The rows to learn about, ascending, and histories as positions in them.

    All rows of a tree that is not too large, otherwise those of the items that most users had.
    """
    counts = Counter(chain.from_iterable(histories))
    ids = [item_id for item_id, _ in counts.most_common(_MOST_ITEMS)]
    row_of = {
        item_id: row for item_id, row in zip(ids, tree.rows_of(ids), strict=True) if row is not None
    }
    if len(tree) <= _MOST_ITEMS:
        every = list(tree.item_ids())
        row_of = dict(zip(every, map(int, tree.rows_of(every)), strict=True))  # type: ignore[arg-type]
    rows = np.array(sorted(row_of.values()), np.int32)
    position = dict(zip(rows.tolist(), range(len(rows)), strict=True))
    return rows, [
        np.array([position[row_of[one]] for one in history if one in row_of], np.int32)
        for history in histories
    ]


def split(histories: Sequence[Rows], items: int, *, seed: int = 0) -> Examples:
    """Split histories of a catalogue of `items` rows. Raises TooFewHistories.

    A seventh of the users and of the items are held out. Training histories hold neither.
    """
    rng = np.random.default_rng(seed)
    usable = [history for history in histories if len(history) > 1]
    is_cold = np.zeros(items, bool)
    had = np.unique(np.concatenate(usable)) if usable else np.zeros(0, np.int32)
    is_cold[rng.permutation(had)[: round(_HELD_ITEMS * len(had))]] = True
    order = rng.permutation(len(usable))
    held = round(_HELD_USERS * len(usable))
    rest = [usable[at][~is_cold[usable[at]]] for at in order[held:].tolist()]
    training = [history for history in rest if len(history) > 1]
    halves = [_half(usable, order[start:held:2], is_cold, rng) for start in range(2)]
    fewest = min(len(cases) for half in halves for cases in (half.known, half.cold))
    if len(training) < _LEAST_TRAINING or fewest < _LEAST_CASES:
        raise TooFewHistories(
            f"{len(usable):,} users have two items or more: too few to learn from, and to tell by "
            f"others whether that helps ({fewest:,} cases of one kind, {_LEAST_CASES} are needed)"
        )
    return Examples(training, items, *halves)


def _half(
    histories: Sequence[Rows],
    users: npt.NDArray[np.int64],
    is_cold: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> Half:
    found: tuple[list[HeldOutCase], list[HeldOutCase]] = ([], [])
    for user in users.tolist():
        history = histories[user]
        for cold, cases in enumerate(found):
            at = np.flatnonzero(is_cold[history[1:]] == bool(cold)) + 1
            some = rng.permutation(at)[:_PER_USER] if len(at) > _PER_USER else at
            room = _MOST_CASES - len(cases)
            cases += [
                HeldOutCase(user, history[:one], int(history[one])) for one in some.tolist()[:room]
            ]
    return Half(*found)
