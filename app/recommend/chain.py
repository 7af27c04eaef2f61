"""The chain with a model: profile, tree search, recall and a last look, on one budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from app.budget import BudgetExceeded
from app.llm.account import Account
from app.llm.ask import ask
from app.llm.errors import InvalidReply, ModelUnavailable
from app.llm.slates import ReplyMode, Scored
from app.ranking import (
    Interest,
    ModelRanker,
    Need,
    Question,
    calibrated,
    reciprocal_rank,
)
from app.ranking.fusion import FloatArray, Judged
from app.recommend import profile
from app.recommend.candidates import Candidates, Pool
from app.recommend.effort import Branches, Effort
from app.recommend.lines import LINE_CHARS, branch_line, need_lines
from app.recommend.profile import History, Topics
from app.recommend.request import Filter
from prompts import Perspective, load
from tree.embedders import Embedder
from tree.node import Node
from tree.rows import IntArray
from tree.search import beam, cut, rows_below
from tree.snapshot import SemanticTree
from tree.store.documents import Documents

_FIRST_WIDTH = 64
_LEAVES_PER_BRANCH = 3  # at least, in the first slate: a small catalogue needs no wide one
_FINER = 4
_LEAD = 1  # items that a branch may bring before the next one brings its first
_WANTED_BRANCHES = 24
_WANTED_ITEMS = 32
_RECENT = 6  # titles repeated in every prompt: the last few do as well as fifty (LLMRank)

Listener = Callable[[str, dict[str, object]], None]


@dataclass(slots=True)
class Reading:
    """A request as the chain sees it, on one version of the tree."""

    tree: SemanticTree
    need: Need
    history: History
    allowed: npt.NDArray[np.bool_]
    passes: Filter | None
    effort: Effort
    perspective: Perspective
    language: str
    seed: int
    account: Account
    tell: Listener
    mode: ReplyMode = ReplyMode.JSON_SCHEMA
    topics: Topics | None = None
    offered: list[dict[str, object]] = field(default_factory=list)
    candidates: int = 0


class Chain:
    """One request's way through the tree with a model. Used once."""

    def __init__(
        self,
        reading: Reading,
        pool: Pool,
        documents: Documents,
        embedder: Embedder,
        *,
        branches: Branches,
        model_weight: float,
        anchors: int,
        profile_ttl_s: int,
    ) -> None:
        self._reading = reading
        self._pool = pool
        self._documents = documents
        self._embedder = embedder
        self._branches = branches
        self._shares = [model_weight, 1 - model_weight]
        self._anchors = anchors
        self._profile_ttl_s = profile_ttl_s
        self._ranker = ModelRanker(reading.account, reading.mode)

    async def run(self, wanted: int) -> Candidates:
        """The best `wanted` candidates, by the model and the embedded ranker together.

        Where the model fails the embedded ranker stands in, stage by stage, and the account says
        so. Raises ModelRejected, StoreUnavailable.
        """
        reading = self._reading
        branches: list[Node] = []
        if reading.effort.levels and not reading.tree.root.is_leaf:
            branches = await self._walk()
        else:
            reading.need = narrowed(reading.need)
        return await self._recall(branches, wanted)

    # -- profile and search

    async def _walk(self) -> list[Node]:
        """The branches worth looking into, best first."""
        reading = self._reading
        options = self._open(cut(reading.tree, _first_width(reading.tree)))
        key = self._profile_key()
        kept = await self._documents.get("profile", key)
        marks: FloatArray | None = None
        if kept is not None:
            self._adopt(msgspec.json.decode(kept, type=Topics))
        elif not reading.history.is_empty:
            marks = await self._meet(options, key)
        reading.need = narrowed(reading.need)
        self._tell_profile()
        levels = reading.effort.levels_of(reading.tree)
        for level in range(1, levels + 1):
            if marks is None:
                marks = await self._judge_branches(options, level)
            options = self._chosen(options, marks)
            marks = None
            held = sum(option.count for option in options)
            if held <= reading.effort.shelf or all(option.is_leaf for option in options):
                break
            if level < levels:
                options = self._below(options)
        return options

    async def _meet(self, options: Sequence[Node], key: str) -> FloatArray | None:
        """A reader who is new to us: topics and, where the form allows, the first level at once."""
        reading = self._reading
        line = reading.account.line("profile")
        mode = reading.mode.for_text
        timeout_s = reading.account.timeout_s
        style = {"perspective": reading.perspective, "language": reading.language}
        together = mode is reading.mode and mode is not ReplyMode.TEXT
        reading.account.begin_round("profile")
        first: Scored | None = None
        order = np.arange(len(options))
        try:
            if together:
                turn = profile.opening_turn(
                    reading.history,
                    [self._branch(option) for option in options],
                    mode,
                    wanted=_WANTED_BRANCHES,
                    max_chars=LINE_CHARS,
                    timeout_s=timeout_s,
                    **style,  # type: ignore[arg-type]
                )
                topics, first = await ask(
                    line,
                    turn,
                    lambda reply: profile.read_opening(len(options), reply),
                    again=lambda: turn,
                )
            else:
                alone = profile.turn_of(
                    reading.history,
                    mode,
                    timeout_s=timeout_s,
                    **style,  # type: ignore[arg-type]
                )
                topics = await ask(
                    line, alone, lambda reply: profile.read(mode, reply), again=lambda: alone
                )
        except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
            reading.account.fall_back("profile", error)
            return None
        data = msgspec.json.encode(topics)
        await self._documents.put("profile", key, data, self._profile_ttl_s)
        self._adopt(topics)
        if first is None:
            return None
        reading.account.spent["profile"].flaws.update(first.flaws)
        self._trace_level(options, first.values)
        return calibrated([Judged(order, first.values)], len(options), order[:0])

    def _adopt(self, topics: Topics) -> None:
        self._reading.topics = topics
        self._reading.need = profile.regrouped(self._reading.need, topics, self._embedder)

    def _profile_key(self) -> str:
        reading = self._reading
        model = reading.account.models["profile"].model.name
        return profile.cache_key(reading.history, model, reading.perspective, reading.language)

    async def _judge_branches(self, options: Sequence[Node], level: int) -> FloatArray:
        reading = self._reading
        near = self._pool.ranker.near_nodes(reading.tree, reading.need, options)
        if self._branches == "embedded":
            return near
        static = level == 1  # the same for all readers, so that providers may cache its prefix
        question = Question(
            load("search", reading.perspective),
            [self._branch(option) for option in options],
            near,
            self._need_text(),
            self._columns(),
            _WANTED_BRANCHES,
            reading.tree.version if static else reading.seed + level,
            anchors=self._anchors,
        )
        marks = await self._ranker.score("search", question)
        self._trace_level(options, marks)
        return marks

    def _chosen(self, options: Sequence[Node], marks: FloatArray) -> list[Node]:
        """The branches that stay, best first: by the model, or half by the embedded ranker."""
        reading = self._reading
        order = beam(marks, len(options))
        width = reading.effort.kept
        if self._branches == "union":
            near = self._pool.ranker.near_nodes(reading.tree, reading.need, options)
            both = zip(beam(marks, width), beam(near, width), strict=True)
            order = list(dict.fromkeys(at for pair in both for at in pair))
        return [options[at] for at in order[:width]]

    def _below(self, chosen: Sequence[Node]) -> list[Node]:
        """The next slate: what the chosen branches fall into, several times finer.

        Leaves among them compete once more. Where that is more than a slate holds, the embedded
        ranker names the contestants: a cheap score is as good at leaving out as a model's.
        """
        reading, width = self._reading, self._reading.effort.width
        finer = self._open(cut(reading.tree, _FINER * width, chosen))
        if len(finer) <= width:
            return finer
        near = self._pool.ranker.near_nodes(reading.tree, reading.need, finer)
        return [finer[at] for at in beam(near, width)]

    def _open(self, nodes: Sequence[Node]) -> list[Node]:
        """Those under which something is allowed. Looked up only where much is not."""
        reading = self._reading
        if int(reading.allowed.sum()) > len(reading.tree) * 0.9:
            return list(nodes)
        return [
            node
            for node in nodes
            if reading.allowed[rows_below(list(reading.tree.leaves(node.id)))].any()
        ]

    # -- recall and the last look

    async def _recall(self, branches: Sequence[Node], wanted: int) -> Candidates:
        reading, effort, ranker = self._reading, self._reading.effort, self._pool.ranker
        best = await self._pool.best(
            reading.tree, reading.need, reading.allowed, max(wanted, effort.nearest), reading.passes
        )
        rows = await self._with_found(best.rows[: effort.nearest], branches)
        lines = await self._pool.lines(reading.tree, rows.tolist())
        rows = np.array([row for row in rows.tolist() if row in lines], np.int32)
        reading.candidates = len(rows)
        reading.tell("candidates", {"count": len(rows), "branches": len(branches)})
        if not len(rows):
            return best
        near = ranker.scores(reading.tree, reading.need, rows)
        judged = await self._judge_items(
            "recall", rows, near, lines, self._columns(), effort.glances
        )
        fused = reciprocal_rank([judged.max(axis=1), near], self._shares)
        order = np.argsort(-fused, kind="stable")
        if effort.final and len(rows) > effort.final and reading.account.spent["recall"].calls:
            picked = self._finalists(judged, fused)
            last = await self._judge_items(
                "rerank", rows[picked], fused[picked], lines, (), effort.looks
            )
            looks = effort.looks + effort.glances
            first = judged.max(axis=1)[picked]
            both = (last[:, 0] * effort.looks + first * effort.glances) / looks
            again = reciprocal_rank([both, near[picked]], self._shares)
            fused[picked] = 1 + again
            order = np.argsort(-fused, kind="stable")
        return filled_up(Candidates(best.ranking, rows[order], fused[order]), best, wanted)

    async def _with_found(self, nearest: IntArray, branches: Sequence[Node]) -> IntArray:
        """The nearest rows and the best ones of every branch in turn, without repetition."""
        reading, wanted = self._reading, self._reading.effort.found
        if not branches or not wanted:
            return nearest
        known = set(nearest.tolist())
        queues = []
        for branch in branches:
            inside = rows_below(list(reading.tree.leaves(branch.id)))
            inside = inside[reading.allowed[inside]]
            scores = self._pool.ranker.scores(reading.tree, reading.need, inside)
            order = np.argsort(-scores, kind="stable")[: wanted + len(known)]
            queues.append([row for row in inside[order].tolist() if row not in known])
        turns = sorted(
            (at + _LEAD * rank, rank, row)
            for rank, queue in enumerate(queues)
            for at, row in enumerate(queue)
        )
        rows = [row for _, _, row in turns[: wanted * 4]]
        if reading.passes is not None:
            records = await self._pool.records(reading.tree, rows)
            rows = [row for row in rows if row in records and reading.passes.holds(records[row])]
        return np.array([*nearest.tolist(), *rows[:wanted]], np.int32)

    async def _judge_items(
        self,
        stage: Literal["recall", "rerank"],
        rows: IntArray,
        near: FloatArray,
        lines: dict[int, str],
        columns: Sequence[str],
        looks: int = 1,
    ) -> FloatArray:
        reading = self._reading
        wide = np.repeat(near[:, None], max(1, len(columns)), axis=1)
        question = Question(
            load(stage, reading.perspective),
            [lines[row] for row in rows.tolist()],
            wide.astype(np.float32),
            self._need_text(),
            columns,
            _WANTED_ITEMS,
            reading.seed,
            LINE_CHARS,
            self._anchors,
        )
        return await self._ranker.score(stage, question, looks)

    def _finalists(self, judged: FloatArray, fused: FloatArray) -> npt.NDArray[np.int64]:
        """Mostly the best; a quarter is kept for each interest's own favourites."""
        marks = np.column_stack([fused, judged * (fused.max() / max(float(judged.max()), 1e-6))])
        return np.array(beam(marks, self._reading.effort.final), np.int64)

    # -- what the prompts say

    def _need_text(self) -> str:
        reading = self._reading
        interests = [(interest.name, interest.weight) for interest in reading.need.interests]
        avoid = [*reading.need.dislikes, *(reading.topics.avoid if reading.topics else ())]
        return need_lines(
            interests, reading.history.choices[:_RECENT], reading.history.wishes, avoid
        )

    def _columns(self) -> Sequence[str]:
        names = [interest.name for interest in self._reading.need.interests]
        return names if len(names) > 1 else ()

    def _branch(self, node: Node) -> str:
        return branch_line(self._reading.tree.path(node.id))

    # -- what is told

    def _tell_profile(self) -> None:
        self._reading.tell(
            "profile",
            {
                "interests": [
                    {"name": interest.name, "weight": round(interest.weight, 4)}
                    for interest in self._reading.need.interests
                ],
                "by": "embedded" if self._reading.topics is None else "model",
            },
        )

    def _trace_level(self, options: Sequence[Node], marks: FloatArray) -> None:
        worth = np.nan_to_num(marks, nan=-np.inf).max(axis=1)
        for at in np.argsort(-worth, kind="stable")[: self._reading.effort.kept].tolist():
            told: dict[str, object] = {
                "node": options[at].id,
                "label": options[at].label,
                "items": options[at].count,
                "score": round(float(worth[at]), 4) if np.isfinite(worth[at]) else None,
            }
            self._reading.offered.append(told)
            self._reading.tell("node", told)


def _first_width(tree: SemanticTree) -> int:
    """Branches of the first slate."""
    leaves = len(tree) / tree.settings.leaf_capacity
    return min(_FIRST_WIDTH, max(len(tree.root.children), int(leaves / _LEAVES_PER_BRANCH)))


def narrowed(need: Need, most: int = profile.MAX_TOPICS) -> Need:
    """The need with at most `most` interests; the weakest are folded into the last that stays."""
    if len(need.interests) <= most:
        return need
    kept = list(need.interests[:most])
    rest = sum(interest.weight for interest in need.interests[most - 1 :])
    kept[-1] = Interest(kept[-1].name, rest, kept[-1].said)
    return replace(
        need, interests=tuple(kept), owner=np.minimum(need.owner, most - 1).astype(np.int64)
    )


def filled_up(found: Candidates, best: Candidates, wanted: int) -> Candidates:
    """As many as wanted: what the model saw, then the rest of the embedded ranker's best."""
    missing = wanted - len(found.rows)
    if missing <= 0:
        return found
    rest = [row for row in best.rows.tolist() if row not in set(found.rows.tolist())][:missing]
    tail = np.linspace(float(found.scores.min()), 0, len(rest) + 2, dtype=np.float32)[1:-1]
    return Candidates(
        found.ranking,
        np.concatenate([found.rows, np.array(rest, np.int32)]),
        np.concatenate([found.scores, tail]),
    )
