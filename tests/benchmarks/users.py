"""Users of a catalogue with a scripted judge, served one after the other."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.llm import Turn
from app.recommend import Recommendation
from app.settings import Settings
from tests.benchmarks import data
from tests.benchmarks.judge import Judge, Positions
from tests.benchmarks.judged_chain import Bench, Flaws, Script
from tests.benchmarks.quality import tree_of
from tree.item import Item
from tree.node import Node
from tree.snapshot import SemanticTree

_LEAST_EVENTS = 4
_FEW_BRANCHES = 6


@dataclass(frozen=True, slots=True)
class BenchUser:
    """A history, oldest first, and the interest of each item where it is known."""

    history: list[str]
    groups: list[int] | None = None
    branches: tuple[int, ...] = ()  # nodes, one per interest


@dataclass(frozen=True, slots=True)
class BenchAnswer:
    """The answer for one user, its share of the judge's top 20, and the prompts."""

    answer: Recommendation
    share: float
    prompts: list[Turn]


@dataclass(frozen=True, slots=True)
class Means:
    """The mean cost and quality of answers."""

    input_tokens: float
    tokens: float  # input and output
    calls: float
    rounds: float
    share: float

    @classmethod
    def of(cls, asked: Sequence[BenchAnswer]) -> "Means":
        usages = [one.answer.usage for one in asked]
        return cls(
            float(np.mean([usage.input_tokens for usage in usages])),
            float(np.mean([usage.input_tokens + usage.output_tokens for usage in usages])),
            float(np.mean([usage.calls for usage in usages])),
            float(np.mean([usage.rounds for usage in usages])),
            float(np.mean([one.share for one in asked])),
        )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A catalogue with its tree, a judge of all its items, and users."""

    name: str
    items: Sequence[Item]
    tree: SemanticTree
    judge: Judge
    users: list[BenchUser]

    @classmethod
    def real(cls, name: str, count: int, *, first: int | None = None) -> "Catalogue":
        """A real catalogue, or its `first` items only. Users have at least 4 items of it."""
        items = data.real_items(name)[:first]
        known = {item.id for item in items}
        users: list[BenchUser] = []
        for history in data.histories(name, count if first is None else 100 * count):
            kept = [item for item in history[:-1] if item in known]
            if len(kept) >= _LEAST_EVENTS and len(users) < count:
                users.append(BenchUser(kept))
        label = name if first is None else f"{name}, {first:,} items"
        return cls(label, items, tree_of(items), Judge(items), users)

    async def bench(
        self,
        flaws: Flaws | None = None,
        *,
        tree: SemanticTree | None = None,
        without: Sequence[str] = (),
        wrap: Callable[[Script], Script] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Bench:
        """The service on this catalogue; `settings` are those of the service."""
        excluded: Positions = np.array([self.judge.position[item] for item in without], np.int64)
        return await Bench.opened(
            self.name, self.items, tree or self.tree, self.judge, flaws or Flaws(),
            Settings.model_validate({"popularity_weight": 0, **(settings or {})}),
            without=excluded, wrap=wrap,
        )  # fmt: skip


async def ask_all(bench: Bench, users: Sequence[BenchUser], **request: Any) -> list[BenchAnswer]:
    """The answers for all users, one after the other, with cached profiles."""
    found = []
    for user in users:
        answer, share = await bench.ask(user.history, user.groups, **request)
        found.append(BenchAnswer(answer, share, bench.model.prompts))
    return found


def of_three_interests(tree: SemanticTree, count: int, *, each: int = 4) -> list[BenchUser]:
    """Made-up users: `each` neighbouring items of three branches near the root, in turn."""
    draw = random.Random(5)
    tops = tree.children(tree.root)
    if len(tops) < _FEW_BRANCHES:
        tops = [child for top in tops for child in tree.children(top) or [top]]
    tops = [top for top in tops if top.count >= 6 * each]
    users = []
    for _ in range(count):
        branches = draw.sample(tops, 3)
        parts = [_neighbours(tree, branch, each, draw) for branch in branches]
        users.append(
            BenchUser(
                [item for turn in zip(*parts, strict=True) for item in turn],
                [interest for _ in range(each) for interest in range(3)],
                tuple(branch.id for branch in branches),
            )
        )
    return users


def covered(tree: SemanticTree, user: BenchUser, answer: Sequence[str]) -> float:
    """The share of a user's branches that have an item in the answer."""
    leaves = [leaf for leaf in map(tree.leaf_of, answer) if leaf]
    reached = {node.id for leaf in leaves for node in tree.path(leaf.id)}
    return len(reached & set(user.branches)) / len(user.branches)


def of_themes(items: Sequence[Item], count: int) -> list[BenchUser]:
    """Made-up users: 10 items of one or two of the narrowest categories."""
    draw = random.Random(7)
    themes: dict[str, list[str]] = {}
    for item in items:
        themes.setdefault(item.categories[-1], []).append(item.id)
    known = sorted(theme for theme, ids in themes.items() if len(ids) >= 10)
    users = []
    for _ in range(count):
        chosen = draw.sample(known, draw.choice((1, 2)))
        parts = [draw.sample(themes[theme], 10 // len(chosen)) for theme in chosen]
        users.append(BenchUser([item for turn in zip(*parts, strict=True) for item in turn]))
    return users


def _neighbours(tree: SemanticTree, top: Node, count: int, draw: random.Random) -> list[str]:
    """Items of one leaf and, where it has too few, of the next leaves."""
    leaves = list(tree.leaves(top.id))
    start = draw.randrange(len(leaves))
    rows: list[int] = []
    for leaf in leaves[start:] + leaves[:start]:
        rows += draw.sample(leaf.rows.tolist(), min(count - len(rows), len(leaf.rows)))
        if len(rows) == count:
            break
    return [tree.rows.id(row) for row in rows]
