"""`Case`: one query of an evaluation with its targets. `System`: what answers queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.evaluation.dataset import DatasetUser
from tree.item import Item


@dataclass(frozen=True, slots=True)
class Query:
    """What a system gets to know about one user. It never contains a target.

    Items of the history and `excluded` items may not be answered. Where a protocol has
    `candidates`, the answer must be among them; they are chosen without knowledge of the targets.
    """

    user: str
    history: tuple[str, ...]  # oldest first
    profile: str = ""
    candidates: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()
    wish: str = ""  # what the user asks for in words
    at: float | None = None  # when, in seconds since the epoch, where the data say it


@dataclass(frozen=True, slots=True)
class Case:
    """A query, and the items that the user chose next."""

    query: Query
    targets: frozenset[str]
    bucket: str = ""  # groups the results: a history length or a domain


@dataclass(frozen=True, slots=True)
class Training:
    """What systems may learn from. It contains no target of any case."""

    items: Sequence[Item]
    users: Sequence[DatasetUser]


class System(Protocol):
    """A recommender under evaluation. `fit` is called once, before the first `rank`."""

    name: str

    async def fit(self, training: Training) -> None:
        """Learn from the training data. Zero-shot systems use the items only."""
        ...

    async def rank(self, queries: Sequence[Query], limit: int) -> list[list[str]]:
        """For each query, the ids of at most `limit` items, best first."""
        ...

    async def aclose(self) -> None:
        """Release processes and connections."""
        ...
