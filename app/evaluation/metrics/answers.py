"""`Answers`: what a system answered, as arrays, and `Background`: the data it is seen against."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from app.evaluation.case import Case
from app.evaluation.dataset import Reader
from tree.item import Item

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Truths: TypeAlias = npt.NDArray[np.bool_]

_NONE: tuple[Hashable, ...] = (None, "", ())


@dataclass(frozen=True, slots=True)
class Background:
    """The catalogue, and how often its items were read in the training data."""

    index: Mapping[str, int]  # the row of every item
    readers_of: Ints  # how many training readers had each item
    readers: int
    vectors: npt.NDArray[np.float32] | None = None  # unit length, or zero where there is none
    topics: Ints | None = None  # the number of each item's topic; -1 where it has none
    topic_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        items: Sequence[Item],
        training: Sequence[Reader],
        *,
        vectors: npt.ArrayLike | None = None,
        topics: Sequence[Hashable] | None = None,
    ) -> "Background":
        """From training readers only. `vectors` and `topics` stand in the order of `items`.

        An item whose topic is None or empty has none; a catalogue of fewer than two topics has
        none at all, since every answer would be like every history.
        """
        index = {item.id: row for row, item in enumerate(items)}
        rows = _rows(index, chain.from_iterable(reader.history for reader in training))
        counts = np.bincount(rows[rows >= 0], minlength=len(index))
        numbers: dict[Hashable, int] = {}
        numbered = [
            -1 if topic in _NONE else numbers.setdefault(topic, len(numbers))
            for topic in topics or ()
        ]
        return cls(
            index=index,
            readers_of=counts.astype(np.int64),
            readers=len(training),
            vectors=None if vectors is None else _unit(np.asarray(vectors, np.float32)),
            topics=np.array(numbered, np.int64) if len(numbers) > 1 else None,
            topic_names=tuple(
                " › ".join(map(str, topic)) if isinstance(topic, tuple) else str(topic)
                for topic in numbers
            ),
        )


def topics_of(items: Iterable[Item], depth: int = 2) -> list[tuple[str, ...]]:
    """The topic of every item: its category path, cut to `depth`; empty where it has none.

    Depth 2 is MIND's subcategory, the leaf of the paper's tree (§3.1.4).
    """
    return [tuple(item.categories[:depth]) for item in items]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of one system to all cases; every array has one row per case.

    A rank that names an item unknown, not allowed, or named before holds nothing: it is -1. So an
    answer is never better for a mistake, and the mistakes are counted.
    """

    items: Ints  # cases × ranks
    hits: Truths  # cases × ranks: whether that item is a target
    targets: Ints  # how many targets there are
    reachable: Ints  # how many of them the question allows to be answered
    pool: Ints  # how many items it allows
    histories: Ints  # pairs of (case, item), one row each
    wanted: Ints  # pairs of (case, target)
    position: Floats  # of the first target among the candidates, 0..1; nan without candidates
    bounded: Truths  # whether the question has candidates
    readers: Ints  # whose question it is: numbers from 0, in the order of the cases
    bucket: tuple[str, ...]
    flaws: Mapping[str, int]  # answers that hold nothing, by reason

    @classmethod
    def of(
        cls, cases: Sequence[Case], answers: Sequence[Sequence[str]], index: Mapping[str, int]
    ) -> "Answers":
        """One answer per case, best first. O(ids in questions and answers)."""
        if len(cases) != len(answers):
            raise ValueError(f"{len(answers)} answers to {len(cases)} questions")
        size = max(len(index), 1)
        questions = [case.question for case in cases]
        histories = _pairs(index, [question.history for question in questions])
        closed = _pairs(index, [question.excluded for question in questions])
        wanted = _pairs(index, [case.targets for case in cases])
        given = _pairs(index, [question.candidates or () for question in questions])
        bounded = np.array([question.candidates is not None for question in questions], np.bool_)

        closed = _keys(np.concatenate([histories, closed]), size)
        allowed = _keys(given, size)
        allowed = allowed[~_among(allowed, closed)]
        pool = np.where(bounded, _per_case(allowed // size, len(cases)), 0)
        pool += np.where(bounded, 0, len(index) - _per_case(closed // size, len(cases)))
        targets = _keys(wanted, size)
        open_ = ~_among(targets, closed)
        open_ &= ~bounded[targets // size] | _among(targets, allowed)

        items, flaws = _answered(index, answers, closed, allowed, bounded)
        keys = np.arange(len(cases))[:, None] * size + items
        return cls(
            items=items,
            hits=_among(keys, targets) & (items >= 0),
            targets=np.array([len(case.targets) for case in cases], np.int64),
            reachable=_per_case(targets[open_] // size, len(cases)),
            pool=pool.astype(np.int64),
            histories=histories,
            wanted=wanted,
            position=np.array([_position(case) for case in cases], np.float64),
            bounded=bounded,
            readers=_numbered([question.reader for question in questions]),
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


def listed(items: Ints) -> Ints:
    """Pairs of (case, item) of a matrix of items, without the ranks that hold nothing."""
    rows, ranks = np.nonzero(items >= 0)
    return np.column_stack([rows, items[rows, ranks]]).astype(np.int64)


def _answered(
    index: Mapping[str, int],
    answers: Sequence[Sequence[str]],
    closed: Ints,
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
    refused = ~unknown & (_among(keys, closed) | (bounded[case] & ~_among(keys, allowed)))
    first = np.zeros(len(rows), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    repeated = ~unknown & ~refused & ~first
    items = np.full((len(answers), max(lengths.max(initial=0), 1)), -1, np.int64)
    items[case, rank] = np.where(unknown | refused | repeated, -1, rows)
    flaws = {"unknown": unknown, "not allowed": refused, "repeated": repeated}
    return items, {reason: int(found.sum()) for reason, found in flaws.items() if found.any()}


def _numbered(readers: Sequence[str]) -> Ints:
    numbers = {reader: number for number, reader in enumerate(dict.fromkeys(readers))}
    return np.array([numbers[reader] for reader in readers], np.int64)


def _rows(index: Mapping[str, int], ids: Iterable[str]) -> Ints:
    return np.fromiter(map(index.get, ids, repeat(-1)), np.int64)


def _pairs(index: Mapping[str, int], ids: Sequence[Iterable[str]]) -> Ints:
    """(case, item) of all that are in the catalogue."""
    groups = [tuple(group) for group in ids]
    rows = _rows(index, chain.from_iterable(groups))
    case = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return np.column_stack([case, rows])[rows >= 0].astype(np.int64)


def _keys(pairs: Ints, size: int) -> Ints:
    """One sorted number for every different pair; several times as fast as numpy.unique."""
    keys = np.sort(pairs[:, 0] * size + pairs[:, 1])
    return keys[np.diff(keys, prepend=-1) > 0]


def _among(keys: Ints, members: Ints) -> Truths:
    """Which keys are in the sorted `members`."""
    if not len(members):
        return np.zeros(keys.shape, np.bool_)
    found = members[np.minimum(np.searchsorted(members, keys), len(members) - 1)]
    return np.asarray(found == keys, np.bool_)


def _per_case(case: Ints, cases: int) -> Ints:
    return np.bincount(case, minlength=cases).astype(np.int64)


def _position(case: Case) -> float:
    candidates = case.question.candidates
    if not candidates:
        return np.nan
    for place, item in enumerate(candidates):
        if item in case.targets:
            return place / max(len(candidates) - 1, 1)
    return np.nan


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)
