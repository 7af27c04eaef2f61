"""The chain on a real catalogue, with the scripted judge instead of a model."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from app.embedders import EmbedderCache
from app.llm import STAGES, Models, Reply, ReplyMode, ScriptedChat, StageModel, TokenUsage, Turn
from app.llm.tokens import estimated_tokens
from app.recommend import Recommendation, RecommendConfig, Recommender, RecommendRequest
from app.recommend.prompt_lines import branch_line, item_line
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from prompts import one_line
from tests.benchmarks.judge import ItemsBelow, Judge, Positions, noisy, share
from tree.item import Item
from tree.node import Node
from tree.snapshot import SemanticTree
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
    """Errors of a judge, see `judge.noisy`, and its latency: fixed, and per input token."""

    noise: float = 0.1
    bias: float = 0.1
    position: float = 0.0
    latency_s: float = 0.0
    latency_per_token_s: float = 0.0


@dataclass(slots=True)
class _JudgedUser:
    """The user of a task. `groups` gives the interest of each title of the history."""

    name: str
    relevance: FloatArray
    columns: FloatArray
    groups: dict[str, int]
    prompts: list[Turn] = field(default_factory=list)


@dataclass(slots=True)
class JudgeModel:
    """A model that answers the prompts of the chain from the judge's relevance.

    Each asyncio task has its own user, so users may be served concurrently. Items in `without` are
    never relevant.
    """

    judge: Judge
    tree: SemanticTree
    items: Sequence[Item]
    flaws: Flaws
    without: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    _current: ContextVar[_JudgedUser] = field(default_factory=lambda: ContextVar("user"))
    _titles: dict[str, str] = field(init=False)
    _lines: dict[str, list[int]] = field(default_factory=dict)
    _branches: dict[str, list[Node]] = field(default_factory=dict)
    _items_below: ItemsBelow = field(init=False)

    def __post_init__(self) -> None:
        self._items_below = ItemsBelow(self.judge, self.tree)
        self._titles = {item.id: item.title for item in self.items}
        for at, item in enumerate(self.items):
            self._lines.setdefault(_shown(item_line(item)), []).append(at)
        for node in self.tree.walk():
            if node.parent is not None:
                line = _shown(branch_line(self.tree.path(node.id)))
                self._branches.setdefault(line, []).append(node)

    def set_user(self, name: str, history: Sequence[str], groups: Sequence[int]) -> None:
        """Set the user of this task."""
        titles = {
            one_line(self._titles[item], _HISTORY_CHARS): group
            for item, group in zip(history, groups, strict=True)
            if item in self._titles
        }
        relevance = self._allowed(self.judge.relevance(history))
        columns = self._allowed(self.judge.interests(history, groups))
        self._current.set(_JudgedUser(name, relevance, columns, titles))

    @property
    def relevance(self) -> FloatArray:
        """The relevance of each item for the user of this task."""
        return self._current.get().relevance

    @property
    def prompts(self) -> list[Turn]:
        """The prompts for the user of this task."""
        return self._current.get().prompts

    def _allowed(self, relevance: FloatArray) -> FloatArray:
        if not len(self.without):
            return relevance
        left = relevance.copy()
        left[self.without] = -np.inf
        return left

    async def __call__(self, turn: Turn) -> Reply:
        """A reply to a prompt for a slate, a profile, or both."""
        user = self._current.get()
        user.prompts.append(turn)
        slate = str(len(user.prompts))
        asked = [message.content for message in turn.messages]
        system, user_part = asked[-2:]
        tokens = estimated_tokens(*asked)
        if self.flaws.latency_s:
            await asyncio.sleep(self.flaws.latency_s + tokens * self.flaws.latency_per_token_s)
        reply: dict[str, object] = {}
        groups = _listed_groups(user_part, user.columns.shape[1])
        if '"titles"' in system:  # it judges, and knows of nothing beyond the history
            reply["titles"] = list(_options(user_part).values())
        if '"picks"' in system:
            reply["picks"] = self._picks(user, slate, groups, system, user_part)
        text = json.dumps(reply)
        return Reply(text, usage=TokenUsage(tokens, estimated_tokens(text)))

    def _picks(
        self, user: _JudgedUser, slate: str, groups: Sequence[int], system: str, user_part: str
    ) -> list[dict[str, int]]:
        section = user_part.split("\n\n", maxsplit=1)[0]
        lines = _options(section)
        by_interest = '"for"' in system
        columns = user.columns[:, groups] if by_interest else user.relevance[:, None]
        if section.startswith("Branches"):
            scores = self._branch_scores(list(lines.values()), columns)
        else:
            known = np.nan_to_num(columns, neginf=0.0)
            scores = np.stack([known[self._lines[line]].max(axis=0) for line in lines.values()])
        wanted = int(_WANTED.search(system)[1])  # type: ignore[index]
        best = noisy(
            scores.max(axis=1), list(lines.values()), user=user.name, slate=slate,
            noise=self.flaws.noise, bias=self.flaws.bias, position=self.flaws.position,
        )  # fmt: skip
        order = [at for at in np.argsort(-best, kind="stable")[:wanted] if best[at] >= 0.1]
        numbers = list(lines)
        return [
            {
                "n": numbers[at],
                "score": round(100 * float(best[at])),
                **({"for": int(scores[at].argmax()) + 1} if by_interest else {}),
            }
            for at in order
        ]

    def _branch_scores(self, lines: Sequence[str], columns: FloatArray) -> FloatArray:
        """Scores of branch lines; where several branches have the same line, the best counts."""
        scores = {
            line: self._items_below.relevance(self._branches[line], columns).max(axis=0)
            for line in set(lines)
        }
        return np.stack([scores[line] for line in lines])


@dataclass(slots=True)
class Bench:
    """One catalogue, its judge, and a recommender of the service."""

    name: str
    items: Sequence[Item]
    tree: SemanticTree
    model: JudgeModel
    recommender: Recommender

    @classmethod
    async def opened(
        cls, name: str, items: Sequence[Item], tree: SemanticTree, judge: Judge,
        flaws: Flaws = Flaws(), settings: Settings | None = None,
        *, without: Positions | None = None, wrap: Callable[[Script], Script] | None = None,
    ) -> "Bench":  # fmt: skip
        """`wrap` may wrap the model, to count calls or to add faults."""
        store = MemoryTreeStore(space=tree.space, settings=tree.settings)
        await store.stage(items)
        await store.replace(tree, base=0)
        documents = MemoryDocuments()
        model = JudgeModel(judge, tree, items, flaws)
        if without is not None:
            model.without = without
        script = wrap(model) if wrap else model
        models = Models(
            dict.fromkeys(STAGES, StageModel(ScriptedChat(script))),
            documents,
            ReplyMode.JSON_SCHEMA,
        )
        recommender = Recommender(
            name, store, documents, EmbedderCache(),
            RecommendConfig.of(settings or Settings(popularity_weight=0)), models,
        )  # fmt: skip
        return cls(name, items, tree, model, recommender)

    async def ask(
        self, history: Sequence[str], groups: Sequence[int] | None = None, **request: Any
    ) -> tuple[Recommendation, float]:
        """An answer with a cached profile, and its share of the judge's top 20."""
        asked = self.request_for(history, groups, **request)
        answer = await self.recommender.recommend(asked)
        if answer.usage.stages["profile"].calls and asked.strategy == "beam":
            self.model.prompts.clear()
            answer = await self.recommender.recommend(asked)  # the profile is cached now
        found = [self.model.judge.position[item.item_id] for item in answer.items]
        return answer, share(found, self.model.relevance)

    def request_for(
        self, history: Sequence[str], groups: Sequence[int] | None = None, **request: Any
    ) -> RecommendRequest:
        """The request of a user, who becomes the user of this task."""
        self.model.set_user("\0".join(history), history, groups or self.by_branch(history))
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
        """The interest of each history item: its branch below the root."""
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


def _listed_groups(user_part: str, groups: int) -> list[int]:
    """The judge's interests for those that a prompt lists, in its order.

    The judge knows the names of its own replies; for other names it takes its first interests.
    """
    names = _INTEREST.findall(user_part.rpartition("The person looks for:")[2])
    own = [re.fullmatch(r"line (\d+)", name) for name in names]
    if names and all(own):
        return [int(match[1]) for match in own if match]
    return list(range(min(groups, max(1, len(names)))))


def _shown(line: str) -> str:
    return one_line(line, _LINE_CHARS)
