"""What weak models do to the answers, with the standing that an examination gives them."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from app.curate.building import ListSource, build
from app.embedders import EmbedderCache
from app.evaluation.metrics.bootstrap import Mean, compare
from app.jobs import JobReport
from app.llm import STAGES, Models, ReplyMode, ScriptedChat, StageModel
from app.options import EffortName
from app.recommend import RecommendConfig, Recommender, RecommendRequest
from app.recommend.prompt_lines import branch_line, item_line
from app.recommend.standing.standing import Standing
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from app.storage.feedback import User, Visit
from app.storage.memory_feedback import MemoryFeedback
from prompts import one_line
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.scripted_models import HABITS, ScriptedModel
from tree.node import TreeSettings
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore

CATALOGUES = ("amazon_industrial", "amazon_games", "mind")
EFFORTS: tuple[EffortName, ...] = ("economy", "balanced")

_USERS = 300
_EXAMINED_USERS = 60  # others than those that are measured
_DAYS = 5  # examinations of each model, each of other slates
_AT_ONCE = 8
_TOP = 20
_LINE_CHARS = 400


@dataclass(frozen=True, slots=True)
class Kind:
    """A model: its name in the table, its habit, and how often it knows what is right."""

    name: str
    habit: str
    knows: float = 0.0

    def model(self) -> ScriptedModel:
        [habit] = [one for one in HABITS if one == self.habit]
        return ScriptedModel(habit, self.knows)


KINDS = (
    Kind("at random", "random"),
    Kind("the first places", "first"),
    Kind("the same numbers", "constant"),
    Kind("one score for all", "same"),
    Kind("the worst first", "reversed"),
    *(Kind(f"right {share:.0%} of the time", "random", share) for share in (0.1, 0.3, 0.6, 0.9)),
)


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, and the item that should be found."""

    asked: dict[str, object]
    target: str


@dataclass(slots=True)
class Bench:
    """One catalogue with its cases, the histories and the wishes."""

    name: str
    tree: SemanticTree
    store: MemoryTreeStore
    feedback: MemoryFeedback
    cases: dict[str, list[Case]]
    lines: dict[str, str]

    @classmethod
    async def opened(cls, name: str) -> "Bench":
        items = data.real_items(name)
        tree = await build(ListSource(items), TreeSettings(), JobReport.unwatched())
        store = MemoryTreeStore(space=tree.space, settings=tree.settings)
        await store.stage(items)
        await store.replace(tree, base=0)
        users = data.histories(name, 10**6)
        feedback = MemoryFeedback()
        for number, history in enumerate(users[:_EXAMINED_USERS]):
            visits = tuple(Visit(item, at) for at, item in enumerate(history))
            await feedback.put_user(f"user {number}", User(visits))
        cases = {"histories": _histories(tree, users[_EXAMINED_USERS:]), "wishes": _wishes(name)}
        lines = {item.id: one_line(item_line(item), _LINE_CHARS) for item in items}
        return cls(name, tree, store, feedback, cases, lines)

    def right(self, target: str) -> frozenset[str]:
        """The lines of an item, and of the branches above it."""
        leaf = self.tree.leaf_of(target)
        nodes = self.tree.path(leaf.id) if leaf else []
        branches = (branch_line(self.tree.path(node.id)) for node in nodes)
        return frozenset((self.lines[target], *(one_line(one, _LINE_CHARS) for one in branches)))

    def recommender(self, model: ScriptedModel | None, *, examines: bool) -> Recommender:
        documents = _Untraced()
        models = None
        if model is not None:
            stages = dict.fromkeys(STAGES, StageModel(ScriptedChat(model)))
            models = Models(stages, documents, ReplyMode.JSON_SCHEMA)
        return Recommender(
            self.name, self.store, documents, EmbedderCache(), RecommendConfig.of(Settings()),
            models, None, self.feedback if examines else None, examines=examines,
        )  # fmt: skip

    async def standing(self, recommender: Recommender, model: ScriptedModel, day: int) -> Standing:
        """The result of an examination in which the model may know the answers."""
        histories = await self.feedback.histories(_EXAMINED_USERS)
        assert recommender.standings is not None
        examiner = recommender.standings.examiner
        for slate in await examiner.slates(self.tree, histories, day):
            right = frozenset(self.lines[self.tree.rows.id(row)] for row in slate.right)
            offered = (self.lines[self.tree.rows.id(row)] for row in slate.rows.tolist())
            model.answers[frozenset(offered)] = right
        found = await examiner.examine(self.tree, histories, day)
        assert found is not None, f"{self.name} is too small for an examination"
        return found

    async def gains(
        self, recommender: Recommender, model: ScriptedModel | None, what: str, **asked: object
    ) -> dict[str, Mean]:
        """R@20 and NDCG@20 over the cases."""
        places: list[int] = []

        async def place(case: Case) -> int:
            if model is not None:
                model.right.set(self.right(case.target))
            body = {**case.asked, "limit": _TOP, "timeout_ms": 600_000, "explain": "none", **asked}
            answer = await recommender.recommend(RecommendRequest.model_validate(body))
            ids = [item.item_id for item in answer.items]
            return ids.index(case.target) if case.target in ids else _TOP

        cases = self.cases[what]
        for start in range(0, len(cases), _AT_ONCE):
            some = cases[start : start + _AT_ONCE]
            places += await asyncio.gather(*(asyncio.create_task(place(one)) for one in some))
        at = np.array(places)
        found = (at < _TOP).astype(np.float64)
        return {"R@20": Mean.of(found), "NDCG@20": Mean.of(found / np.log2(at + 2))}


class _Untraced(MemoryDocuments):
    """Documents without traces, which would fill the memory, and profiles, which others share."""

    async def put(self, kind: Any, document_id: str, content: bytes, ttl_s: float | None) -> None:
        if kind not in ("trace", "profile"):
            await super().put(kind, document_id, content, ttl_s)


def _histories(tree: SemanticTree, users: Sequence[Sequence[str]]) -> list[Case]:
    found = []
    for history in users:
        *before, target = history
        if target in tree and target not in before:
            found.append(Case({"history": [{"item_id": item} for item in before]}, target))
    return found[:_USERS]


def _wishes(name: str) -> list[Case]:
    with (data.FOLDER / "wishes.jsonl").open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["data"] == name]
    return [Case({"instruction": row["wish"]}, row["item_id"]) for row in rows]


async def _measured(name: str) -> list[Figure]:
    bench = await Bench.opened(name)
    vectors = bench.recommender(None, examines=False)
    plain = {what: await bench.gains(vectors, None, what) for what in bench.cases}
    figures: list[Figure] = []
    for kind in KINDS:
        model = kind.model()
        examined, trusted = (bench.recommender(model, examines=one) for one in (True, False))
        days = [await bench.standing(examined, model, day) for day in range(_DAYS)]
        label = f"{name}, {kind.name}"
        asked = float(np.mean([day.is_asked for day in days]))
        accuracy, factor = (
            float(np.mean([getattr(day, part) for day in days])) for part in ("accuracy", "factor")
        )
        tokens = max(day.tokens for day in days)
        figures += [
            Figure(f"{label}: pairs in order (chance .5)", accuracy),
            Figure(f"{label}: share of {_DAYS} days on which it is asked", asked),
            Figure(f"{label}: factor of its weight, mean of these days", factor),
            Figure(f"{label}: tokens of an examination", tokens, "", "≤", 20_000),
        ]
        for effort, what in product(EFFORTS, bench.cases):
            assert examined.standings is not None
            await examined.standings.keep(days[0])
            with_standing = await bench.gains(examined, model, what, effort=effort)
            figures += _against(f"{label}, {effort}, {what}", with_standing, plain[what], 0.0)
        for what in bench.cases:
            without = await bench.gains(trusted, model, what, effort=EFFORTS[0])
            named = f"{label}, {EFFORTS[0]}, {what}, unexamined"
            figures += _against(named, without, plain[what])
    return figures


def _against(
    label: str, ours: dict[str, Mean], plain: dict[str, Mean], target: float | None = None
) -> list[Figure]:
    """The figure is the upper end of the interval: below 0, vectors alone are better."""
    compared = compare(ours, plain, seed=0)
    return [
        Figure(
            f"{label}: {metric} {ours[metric].value:.3f}, {one.difference.value:+.3f} "
            f"[{one.difference.low:+.3f}, {one.difference.high:+.3f}]",
            round(one.difference.high, 4), "", "≥", target,
        )
        for metric, one in compared.items()
    ]  # fmt: skip


def real() -> Iterator[Figure]:
    """All figures on the real catalogues that are there."""
    for name in CATALOGUES:
        if (data.FOLDER / name / "items.jsonl.gz").exists():
            yield from asyncio.run(_measured(name))
