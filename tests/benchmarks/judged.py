"""The chain on a real catalogue with the scripted judge in place of a model."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from app.llm import STAGES, Models, Reply, ReplyMode, ScriptedChat, StageModel, TokenUsage, Turn
from app.llm.tokens import estimated_tokens
from app.recommend import Recommendation, Recommender, RecommendRequest
from app.recommend.lines import branch_line, item_line
from app.settings import Settings
from prompts import one_line
from tests.benchmarks.judge import Judge, Positions, Shelves, noisy, share
from tree.embedders import EmbedderCache
from tree.item import Item
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.store.documents import MemoryDocuments
from tree.store.memory import MemoryTreeStore
from tree.vectors import FloatArray

TOP = 20
_OPTION = re.compile(r"^(\d+)\. (.*)$")
_INTEREST = re.compile(r"^\d+\. (.*) \(\d+ %\)$", re.MULTILINE)
_WANTED = re.compile(r"at most (\d+) picks")
_LINE_CHARS = 400
_HISTORY_CHARS = 100

Script: TypeAlias = Callable[[Turn], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Flaws:
    """How a judge errs: see `judge.noisy`. Latency in seconds: fixed, and per token read."""

    noise: float = 0.1
    bias: float = 0.1
    position: float = 0.0
    latency_s: float = 0.0
    latency_per_token_s: float = 0.0


@dataclass(slots=True)
class _Reader:
    """Whom the judge judges for; `groups` is the interest of each title of the history."""

    name: str
    relevance: FloatArray
    columns: FloatArray
    groups: dict[str, int]
    prompts: list[Turn] = field(default_factory=list)


@dataclass(slots=True)
class JudgedModel:
    """Answers the chain's prompts as the judge would: it reads the numbered lines that are there.

    Every task has a reader of its own, so readers may be served side by side. `without` are items
    that are not to be had: nothing to the judge, though a line of theirs may be offered.
    """

    judge: Judge
    tree: SemanticTree
    items: Sequence[Item]
    flaws: Flaws
    without: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    _current: ContextVar[_Reader] = field(default_factory=lambda: ContextVar("reader"))
    _titles: dict[str, str] = field(init=False)
    _lines: dict[str, list[int]] = field(default_factory=dict)
    _branches: dict[str, list[Node]] = field(default_factory=dict)
    _shelves: Shelves = field(init=False)

    def __post_init__(self) -> None:
        self._shelves = Shelves(self.judge, self.tree)
        self._titles = {item.id: item.title for item in self.items}
        for at, item in enumerate(self.items):
            self._lines.setdefault(_shown(item_line(item)), []).append(at)
        for node in self.tree.walk():
            if node.parent is not None:
                line = _shown(branch_line(self.tree.path(node.id)))
                self._branches.setdefault(line, []).append(node)

    def meet(self, name: str, history: Sequence[str], groups: Sequence[int]) -> None:
        """The next reader of this task."""
        titles = {
            one_line(self._titles[item], _HISTORY_CHARS): group
            for item, group in zip(history, groups, strict=True)
            if item in self._titles
        }
        relevance = self._allowed(self.judge.relevance(history))
        columns = self._allowed(self.judge.interests(history, groups))
        self._current.set(_Reader(name, relevance, columns, titles))

    @property
    def relevance(self) -> FloatArray:
        """The judge's relevance of every item for this task's reader."""
        return self._current.get().relevance

    @property
    def prompts(self) -> list[Turn]:
        """What was asked for this task's reader since they came in."""
        return self._current.get().prompts

    def _allowed(self, relevance: FloatArray) -> FloatArray:
        if not len(self.without):
            return relevance
        left = relevance.copy()
        left[self.without] = -np.inf
        return left

    async def __call__(self, turn: Turn) -> Reply:
        """A reply to whatever slate or profile is asked for."""
        reader = self._current.get()
        reader.prompts.append(turn)
        slate = str(len(reader.prompts))
        asked = [message.content for message in turn.messages]
        system, user = asked[-2:]
        tokens = estimated_tokens(*asked)
        if self.flaws.latency_s:
            await asyncio.sleep(self.flaws.latency_s + tokens * self.flaws.latency_per_token_s)
        said: dict[str, object] = {}
        groups = _groups_told(user, reader.columns.shape[1])
        if '"topics"' in system:
            groups, said = self._topics(reader, user)
        if '"picks"' in system:
            said["picks"] = self._picks(reader, slate, groups, system, user)
        text = json.dumps(said)
        return Reply(text, usage=TokenUsage(tokens, estimated_tokens(text)))

    def _topics(self, reader: _Reader, user: str) -> tuple[list[int], dict[str, object]]:
        """The reader's interests in the order in which they are told, and the telling."""
        chosen = _options(
            user.split("Chosen by the person")[1].split("What the person", maxsplit=1)[0]
        )
        topics: dict[int, list[int]] = {}
        for number, title in chosen.items():
            topics.setdefault(reader.groups.get(title, 0), []).append(number)
        told = [
            {"topic": f"line {group}", "weight": 100 // len(topics), "choices": numbers}
            for group, numbers in sorted(topics.items())
        ]
        return sorted(topics), {"topics": told, "avoid": []}

    def _picks(
        self, reader: _Reader, slate: str, groups: Sequence[int], system: str, user: str
    ) -> list[dict[str, int]]:
        section = user.split("\n\n", maxsplit=1)[0]
        lines = _options(section)
        apart = '"for"' in system
        columns = reader.columns[:, groups] if apart else reader.relevance[:, None]
        if section.startswith("Branches"):
            marks = self._marks_of_branches(list(lines.values()), columns)
        else:
            known = np.nan_to_num(columns, neginf=0.0)
            marks = np.stack([known[self._lines[line]].max(axis=0) for line in lines.values()])
        wanted = int(_WANTED.search(system)[1])  # type: ignore[index]
        best = noisy(
            marks.max(axis=1), list(lines.values()), reader=reader.name, slate=slate,
            noise=self.flaws.noise, bias=self.flaws.bias, position=self.flaws.position,
        )  # fmt: skip
        order = [at for at in np.argsort(-best, kind="stable")[:wanted] if best[at] >= 0.1]
        numbers = list(lines)
        return [
            {
                "n": numbers[at],
                "score": round(100 * float(best[at])),
                **({"for": int(marks[at].argmax()) + 1} if apart else {}),
            }
            for at in order
        ]

    def _marks_of_branches(self, lines: Sequence[str], columns: FloatArray) -> FloatArray:
        """Lines that several branches share cannot be told apart: the best of them counts."""
        marks = {
            line: self._shelves.relevance(self._branches[line], columns).max(axis=0)
            for line in set(lines)
        }
        return np.stack([marks[line] for line in lines])


@dataclass(slots=True)
class Bench:
    """One catalogue, its judge and the service's recommender on it."""

    name: str
    items: Sequence[Item]
    tree: SemanticTree
    model: JudgedModel
    recommender: Recommender

    @classmethod
    async def opened(
        cls, name: str, items: Sequence[Item], tree: SemanticTree, judge: Judge,
        flaws: Flaws = Flaws(), settings: Settings | None = None,
        *, without: Positions | None = None, around: Callable[[Script], Script] | None = None,
    ) -> "Bench":  # fmt: skip
        """`around` wraps the model's script: to count, or to spoil what it says."""
        store = MemoryTreeStore(space=tree.space, settings=tree.settings)
        await store.stage(items)
        await store.replace(tree, base=0)
        documents = MemoryDocuments()
        model = JudgedModel(judge, tree, items, flaws)
        if without is not None:
            model.without = without
        script = around(model) if around else model
        models = Models(
            dict.fromkeys(STAGES, StageModel(ScriptedChat(script))),
            documents,
            ReplyMode.JSON_SCHEMA,
        )
        recommender = Recommender(
            name, store, documents, EmbedderCache(),
            settings or Settings(popularity_weight=0), models,
        )  # fmt: skip
        return cls(name, items, tree, model, recommender)

    async def ask(
        self, history: Sequence[str], groups: Sequence[int] | None = None, **request: object
    ) -> tuple[Recommendation, float]:
        """An answer with a warm profile, and which share it has of the judge's own top 20."""
        asked = self.met(history, groups, **request)
        answer = await self.recommender.recommend(asked)
        if answer.usage.stages["profile"].calls and asked.strategy == "beam":
            self.model.prompts.clear()
            answer = await self.recommender.recommend(asked)  # the profile is warm now
        found = [self.model.judge.position[item.item_id] for item in answer.items]
        return answer, share(found, self.model.relevance)

    def met(
        self, history: Sequence[str], groups: Sequence[int] | None = None, **request: object
    ) -> RecommendRequest:
        """A reader's request, once the judge has met them."""
        self.model.meet("\0".join(history), history, groups or self.by_branch(history))
        return RecommendRequest.model_validate(
            {
                "history": [{"item_id": item} for item in history],
                "limit": TOP,
                "diversity": 0.0,
                "timeout_ms": 600_000,
                **request,
            }
        )

    def by_branch(self, history: Sequence[str]) -> list[int]:
        """The interest of every history item: its branch below the root."""
        tops: dict[int, int] = {}
        return [
            tops.setdefault(self._top(item), len(tops)) if len(tops) < 5 else 0 for item in history
        ]

    def _top(self, item: str) -> int:
        leaf = self.tree.leaf_of(item)
        return self.tree.path(leaf.id)[0].id if leaf else -1


def _options(text: str) -> dict[int, str]:
    found = (_OPTION.match(line) for line in text.splitlines())
    return {int(match[1]): match[2] for match in found if match}


def _groups_told(user: str, groups: int) -> list[int]:
    """The judge's interest behind every interest that a prompt lists, in its order.

    The judge knows those by the names it gave; where others did, some of its own stand for them.
    """
    told = _INTEREST.findall(user.rpartition("The person looks for:")[2])
    own = [re.fullmatch(r"line (\d+)", name) for name in told]
    if told and all(own):
        return [int(match[1]) for match in own if match]
    return list(range(min(groups, max(1, len(told)))))


def _shown(line: str) -> str:
    return one_line(line, _LINE_CHARS)
