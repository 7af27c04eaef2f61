"""`Case`: one question of an evaluation, and `System`: who answers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.evaluation.dataset import Reader
from tree.item import Item


@dataclass(frozen=True, slots=True)
class Question:
    """What a system is asked. It never holds what the reader did next.

    Items of the history are never recommended. `candidates` bound the answer where a protocol has
    them: they are fixed before anyone looks at a target. `excluded` items are not to be answered.
    """

    reader: str
    history: tuple[str, ...]  # oldest first
    profile: str = ""
    candidates: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Case:
    """A question, and what the reader did next."""

    question: Question
    targets: frozenset[str]
    bucket: str = ""  # by which the results are told apart: a length of history, a domain


@dataclass(frozen=True, slots=True)
class Training:
    """What trained systems may learn from: nothing of it is a target of any case."""

    items: Sequence[Item]
    readers: Sequence[Reader]


class System(Protocol):
    """Someone who recommends. `fit` is called once, before the first question."""

    name: str

    async def fit(self, training: Training) -> None:
        """Learn. Zero-shot systems look at the items only."""
        ...

    async def rank(self, questions: Sequence[Question], limit: int) -> list[list[str]]:
        """For every question the ids of at most `limit` items, best first."""
        ...

    async def aclose(self) -> None:
        """Let go of processes and connections."""
        ...
