"""`Answers`: a system's answers as arrays. `CatalogStatistics`: what they are measured against."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from app.evaluation.case import Case
from app.evaluation.dataset import DatasetUser
from tree.item import Item

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Truths: TypeAlias = npt.NDArray[np.bool_]

_NONE: tuple[Hashable, ...] = (None, "", ())


@dataclass(frozen=True, slots=True)
class CatalogStatistics:
    """The items of a catalogue: how often each is in the training data, vectors and topics."""

    index: Mapping[str, int]  # the row of each item
    users_with: Ints  # how many training users had each item
    users: int
    vectors: npt.NDArray[np.float32] | None = None  # of unit length, or zero
    topics: Ints | None = None  # the number of each item's topic; -1 where it has none
    topic_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        items: Sequence[Item],
        training: Sequence[DatasetUser],
        *,
        vectors: npt.ArrayLike | None = None,
        topics: Sequence[Hashable] | None = None,
    ) -> "CatalogStatistics":
        """Statistics of the training users. `vectors` and `topics` have the order of `items`.

        An item whose topic is None or empty has no topic. A catalogue with fewer than two topics
        has none at all, because every answer would equal every history.
        """
        index = {item.id: row for row, item in enumerate(items)}
        rows = _rows(index, chain.from_iterable(user.history for user in training))
        counts = np.bincount(rows[rows >= 0], minlength=len(index))
        numbers: dict[Hashable, int] = {}
        numbered = [
            -1 if topic in _NONE else numbers.setdefault(topic, len(numbers))
            for topic in topics or ()
        ]
        return cls(
            index=index,
            users_with=counts.astype(np.int64),
            users=len(training),
            vectors=None if vectors is None else _unit(np.asarray(vectors, np.float32)),
            topics=np.array(numbered, np.int64) if len(numbers) > 1 else None,
            topic_names=tuple(
                " › ".join(map(str, topic)) if isinstance(topic, tuple) else str(topic)
                for topic in numbers
            ),
        )


def topics_of(items: Iterable[Item], depth: int = 2) -> list[tuple[str, ...]]:
    """The topic of each item: its category path, cut to `depth`; empty where it has none.

    Depth 2 is MIND's subcategory, the leaf of the paper's tree (§3.1.4).
    """
    return [tuple(item.categories[:depth]) for item in items]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of one system to all cases; each array has one row per case.

    The item of a rank is -1 where the answer names an item that is unknown, not allowed or named
    before. So a mistake never improves an answer. `flaws` counts the mistakes.
    """

    items: Ints  # cases × ranks
    hits: Truths  # cases × ranks: whether the item is a target
    targets: Ints  # number of targets
    reachable: Ints  # number of targets that the query allows
    pool: Ints  # number of items that the query allows
    history_pairs: Ints  # pairs of (case, item), one row each
    target_pairs: Ints  # pairs of (case, target)
    target_position: (
        Floats  # of the first target among the candidates, 0..1; nan without candidates
    )
    bounded: Truths  # whether the query has candidates
    users: Ints  # number of the user, from 0, in the order of the cases
    bucket: tuple[str, ...]
    flaws: Mapping[str, int]  # number of ranks without a valid item, by reason

    @classmethod
    def of(
        cls, cases: Sequence[Case], answers: Sequence[Sequence[str]], index: Mapping[str, int]
    ) -> "Answers":
        """One answer per case, best first. O(ids in queries and answers)."""
        if len(cases) != len(answers):
            raise ValueError(f"{len(answers)} answers to {len(cases)} queries")
        size = max(len(index), 1)
        queries = [case.query for case in cases]
        history_pairs = _pairs(index, [query.history for query in queries])
        excluded = _pairs(index, [query.excluded for query in queries])
        target_pairs = _pairs(index, [case.targets for case in cases])
        given = _pairs(index, [query.candidates or () for query in queries])
        bounded = np.array([query.candidates is not None for query in queries], np.bool_)

        excluded = _keys(np.concatenate([history_pairs, excluded]), size)
        allowed = _keys(given, size)
        allowed = allowed[~_is_in(allowed, excluded)]
        pool = np.where(bounded, _per_case(allowed // size, len(cases)), 0)
        pool += np.where(bounded, 0, len(index) - _per_case(excluded // size, len(cases)))
        targets = _keys(target_pairs, size)
        allowed_targets = ~_is_in(targets, excluded)
        allowed_targets &= ~bounded[targets // size] | _is_in(targets, allowed)

        items, flaws = _answered(index, answers, excluded, allowed, bounded)
        keys = np.arange(len(cases))[:, None] * size + items
        return cls(
            items=items,
            hits=_is_in(keys, targets) & (items >= 0),
            targets=np.array([len(case.targets) for case in cases], np.int64),
            reachable=_per_case(targets[allowed_targets] // size, len(cases)),
            pool=pool.astype(np.int64),
            history_pairs=history_pairs,
            target_pairs=target_pairs,
            target_position=np.array([_position(case) for case in cases], np.float64),
            bounded=bounded,
            users=_numbered([query.user for query in queries]),
            bucket=tuple(case.bucket for case in cases),
            flaws=flaws,
        )

    def __len__(self) -> int:
        return len(self.items)

    def top(self, k: int) -> Ints:
        """The items of the first `k` ranks."""
        return self.items[:, :k]


def incidence(pairs: Ints, weights: npt.NDArray[np.float32], shape: tuple[int, int]) -> "csr_array":
    """A sparse matrix from pairs of (row, column); equal pairs add up."""
    from scipy.sparse import csr_array

    return csr_array((weights, (pairs[:, 0], pairs[:, 1])), shape=shape)


def item_pairs(items: Ints) -> Ints:
    """Pairs of (case, item) from a matrix of items, without the ranks that are -1."""
    rows, ranks = np.nonzero(items >= 0)
    return np.column_stack([rows, items[rows, ranks]]).astype(np.int64)


def _answered(
    index: Mapping[str, int],
    answers: Sequence[Sequence[str]],
    excluded: Ints,
    allowed: Ints,
    bounded: Truths,
) -> tuple[Ints, dict[str, int]]:
    size = max(len(index), 1)
    lengths = np.array([len(answer) for answer in answers], np.int64)
    case = np.repeat(np.arange(len(answers)), lengths)
    rank = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = _rows(index, chain.from_iterable(answers))
    keys = case * size + rows
    unknown = rows < 0
    not_allowed = ~unknown & (_is_in(keys, excluded) | (bounded[case] & ~_is_in(keys, allowed)))
    first = np.zeros(len(rows), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    repeated = ~unknown & ~not_allowed & ~first
    items = np.full((len(answers), max(lengths.max(initial=0), 1)), -1, np.int64)
    items[case, rank] = np.where(unknown | not_allowed | repeated, -1, rows)
    flaws = {"unknown": unknown, "not allowed": not_allowed, "repeated": repeated}
    return items, {reason: int(found.sum()) for reason, found in flaws.items() if found.any()}


def _numbered(users: Sequence[str]) -> Ints:
    numbers = {user: number for number, user in enumerate(dict.fromkeys(users))}
    return np.array([numbers[user] for user in users], np.int64)


def _rows(index: Mapping[str, int], ids: Iterable[str]) -> Ints:
    return np.fromiter(map(index.get, ids, repeat(-1)), np.int64)


def _pairs(index: Mapping[str, int], ids: Sequence[Iterable[str]]) -> Ints:
    """Pairs of (case, item) for all ids that are in the catalogue."""
    groups = [tuple(group) for group in ids]
    rows = _rows(index, chain.from_iterable(groups))
    case = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return np.column_stack([case, rows])[rows >= 0].astype(np.int64)


def _keys(pairs: Ints, size: int) -> Ints:
    """One sorted number per distinct pair; several times as fast as numpy.unique."""
    keys = np.sort(pairs[:, 0] * size + pairs[:, 1])
    return keys[np.diff(keys, prepend=-1) > 0]


def _is_in(keys: Ints, members: Ints) -> Truths:
    """Which keys are in the sorted `members`."""
    if not len(members):
        return np.zeros(keys.shape, np.bool_)
    found = members[np.minimum(np.searchsorted(members, keys), len(members) - 1)]
    return np.asarray(found == keys, np.bool_)


def _per_case(case: Ints, cases: int) -> Ints:
    return np.bincount(case, minlength=cases).astype(np.int64)


def _position(case: Case) -> float:
    candidates = case.query.candidates
    if not candidates:
        return np.nan
    for place, item in enumerate(candidates):
        if item in case.targets:
            return place / max(len(candidates) - 1, 1)
    return np.nan


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)
