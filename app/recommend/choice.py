"""The last gate: the first candidates that may be shown, each thing and each group once."""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from app.recommend.candidates import SPARE, CandidatePool, Candidates
from app.recommend.columns import Mask
from app.recommend.filters import Filter, Scalar, field_of, values_of
from app.recommend.near_duplicates import NearDuplicates
from tree.item import Item, normalise
from tree.snapshot import SemanticTree

MOST_FOLDED = 50  # ids that an item of an answer lists
_MOST_READ = 5_000  # candidates
_MORE = 4  # times as many candidates in every further round
_LARGEST_BATCH = 500  # records
_APART, _BEFORE = -1, -2  # places of things that are not in the answer

_GroupKey = tuple[type, Scalar]


@dataclass(frozen=True, slots=True)
class ChoiceRules:
    """What an answer may hold: at most `limit` items, all of which pass the filter.

    With `fold`, only the first of near-duplicates; with `group_by`, only the first of the
    items that have a value of this field in common.
    """

    limit: int
    passes: Filter | None = None
    fold: bool = True
    group_by: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """An item of an answer: its position among the candidates; ids of its near-duplicates."""

    at: int
    item: Item
    folded: list[str] = field(default_factory=list)


class Chooser:
    """Chooses the items of one answer among candidates that come best first.

    `folded` are the near-duplicates of the item `apart_from`, which never are in the answer.
    Neither are those of the items on the pages `before`, or other items of their `groups`.
    """

    def __init__(
        self,
        pool: CandidatePool,
        tree: SemanticTree,
        rules: ChoiceRules,
        apart_from: Item | None = None,
        before: Iterable[Item] = (),
        groups: Iterable[Scalar] = (),
    ) -> None:
        self.chosen: list[Chosen] = []
        self.folded: list[str] = []
        self.groups: dict[_GroupKey, Scalar] = {_group_key(one): one for one in groups}
        self.read = 0  # candidates
        self._pool = pool
        self._tree = tree
        self._rules = rules
        self._things = NearDuplicates(rules.group_by)
        self._now = time.time()
        if apart_from is not None:
            self._things.add(apart_from, _APART)
        for item in before:
            self._things.add(item, _BEFORE)

    @property
    def is_done(self) -> bool:
        """Whether the answer is full, or too many candidates have been read."""
        return len(self.chosen) >= self._rules.limit or self.read >= _MOST_READ

    @property
    def wanted(self) -> int:
        """How many further candidates to read."""
        return min(max(self._rules.limit, _MORE * self.read), _MOST_READ - self.read)

    async def take(self, candidates: Candidates, order: Sequence[int]) -> None:
        """Choose among the candidates at some positions, in this order, until the answer is full.

        Their records are read in batches, as few as are needed.
        """
        start, factor = 0, 1
        while start < len(order) and not self.is_done:
            missing = self._rules.limit - len(self.chosen)
            batch = order[start : start + min(factor * (missing + SPARE), _LARGEST_BATCH)]
            rows = candidates.rows[batch].tolist()
            records = await self._pool.records(self._tree, rows)
            for at, row in zip(batch, rows, strict=True):
                if row in records and len(self.chosen) < self._rules.limit:
                    self._take(at, records[row])
            self.read += len(batch)
            start, factor = start + len(batch), 2 * factor

    def _take(self, at: int, item: Item) -> None:
        rules = self._rules
        if not item.is_shown(self._now) or not (rules.passes is None or rules.passes.holds(item)):
            return
        if rules.fold and (place := self._things.fold(item)) is not None:
            folded = self.folded if place == _APART else self._folded_at(place)
            if len(folded) < MOST_FOLDED:
                folded.append(item.id)
            return
        groups = self._groups_of(item)
        if groups.keys() & self.groups.keys():
            return
        self.groups |= groups
        if rules.fold:
            self._things.add(item, len(self.chosen))
        self.chosen.append(Chosen(at, item))

    def _folded_at(self, place: int) -> list[str]:
        return [] if place == _BEFORE else self.chosen[place].folded

    def _groups_of(self, item: Item) -> dict[_GroupKey, Scalar]:
        if self._rules.group_by is None:
            return {}
        found = values_of(field_of(item, self._rules.group_by))
        return {_group_key(one): one for one in found if one != ""}


def _group_key(value: Scalar) -> _GroupKey:
    """The value as filters compare it: texts without case, and `true` is not 1."""
    if isinstance(value, str):
        return str, normalise(value)
    return (bool if isinstance(value, bool) else float), value


# The best of the rows that are left, at most as many as wanted.
MoreCandidates = Callable[[Mask, int], Awaitable[Candidates]]


async def choose(
    chooser: Chooser,
    candidates: Candidates,
    order: Sequence[int],
    allowed: Mask,
    more: MoreCandidates,
) -> Candidates:
    """Fill an answer from the candidates, and from `more` of the allowed rows while it is not full.

    Returns all candidates: the positions of the chosen items are in these.
    """
    await chooser.take(candidates, order)
    left = allowed
    while not chooser.is_done:
        left = left.copy()
        left[candidates.rows] = False
        found = await more(left, chooser.wanted) if left.any() else None
        if found is None or not len(found.rows):
            break
        start = len(candidates.rows)
        candidates = continued(candidates, found)
        await chooser.take(candidates, range(start, len(candidates.rows)))
    return candidates


def continued(candidates: Candidates, more: Candidates) -> Candidates:
    """The candidates and more of them, with scores that go on falling."""
    scores = more.scores
    if len(candidates.scores):
        scores = np.minimum(scores, candidates.scores[-1])
    return replace(
        candidates,
        rows=np.concatenate([candidates.rows, more.rows]),
        scores=np.concatenate([candidates.scores, scores]),
    )
