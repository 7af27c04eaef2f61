"""Profile and search with a model: which branches of the tree are worth looking into."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

import msgspec
import numpy as np

from app.budget import BudgetExceeded
from app.llm import InvalidReply, ModelRejected, ModelUnavailable, ReplyMode, ask
from app.ranking import ModelRanker, Need, Question, calibrated
from app.ranking.fusion import FloatArray, Judged
from app.recommend import profile
from app.recommend.candidates import Pool
from app.recommend.effort import Branches
from app.recommend.need import Words
from app.recommend.profile import Topics
from app.recommend.reading import Reading
from prompts import load
from tree.errors import EmbedderUnavailable, StoreUnavailable
from tree.node import Node
from tree.search import beam, cut, rows_below
from tree.snapshot import SemanticTree
from tree.store.documents import Documents

_FIRST_WIDTH = 64
_LEAVES_PER_BRANCH = 3  # at least, in the first slate: a small catalogue needs no wide one
_FINER = 4  # times as many contestants as a slate holds, before the embedded ranker thins them out
_MOSTLY_ALLOWED = 0.9
_TIE = np.float32(1e-3)  # of similarity, against a mark of 0 … 1
_WANTED = 24  # branches worth a score

Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Words]]
"""The vectors of some texts in the space of the tree. Raises EmbedderUnavailable."""


class Walk:
    """One request's way down the tree. Used once.

    All branches of a level compete in one slate, or in several side by side on one scale, as in
    LATTICE (arXiv 2510.13217); the first slate is a cut through the upper levels, the same for
    all readers of a version, so that providers may cache its prefix.
    """

    def __init__(
        self,
        reading: Reading,
        pool: Pool,
        documents: Documents,
        embed: Embed,
        *,
        branches: Branches,
        anchors: int,
        profile_ttl_s: int,
    ) -> None:
        self._reading = reading
        self._pool = pool
        self._documents = documents
        self._embed = embed
        self._branches = branches
        self._anchors = anchors
        self._profile_ttl_s = profile_ttl_s
        self._allowed: dict[int, int] = {}  # items under a branch, where many are not allowed
        self._ranker = ModelRanker(reading.account, reading.mode)

    async def run(self) -> list[Node]:
        """The branches worth looking into, best first."""
        reading = self._reading
        options = self._open(cut(reading.tree, _first_width(reading.tree)))
        with reading.clock.stage("profile"):
            marks = await self._profile(options)
        with reading.clock.stage("search"):
            return await self._search(options, marks)

    async def _profile(self, options: Sequence[Node]) -> FloatArray | None:
        """Learn the topics; the marks of the first level where they came along."""
        reading = self._reading
        marks: FloatArray | None = None
        if not reading.history.is_empty:
            key = self._profile_key()
            kept = await self._documents.get("profile", key)
            if kept is not None:
                await self._adopt(msgspec.json.decode(kept, type=Topics))
            else:
                marks = await self._meet(options, key)
        reading.need = narrowed(reading.need)
        reading.tell_profile()
        if marks is not None:
            self._trace_level(options, marks)
        return marks

    async def _search(self, options: list[Node], marks: FloatArray | None) -> list[Node]:
        reading = self._reading
        levels = reading.effort.levels_of(reading.tree)
        for level in range(1, levels + 1):
            if marks is None:
                marks = await self._judge_branches(options, level)
            options = self._chosen(options, marks)
            marks = None
            held = sum(self._allowed.get(option.id, option.count) for option in options)
            if held <= reading.effort.shelf or all(option.is_leaf for option in options):
                break
            if level < levels:
                options = self._below(options)
        return options

    async def _meet(self, options: Sequence[Node], key: str) -> FloatArray | None:
        """A reader who is new to us: topics and, where the form allows, the first level at once."""
        reading = self._reading
        mode = reading.mode.for_text
        reading.account.begin_round("profile")
        try:
            if mode is not reading.mode or mode is ReplyMode.TEXT:
                topics, marks = await self._topics(mode), None
            else:
                topics, marks = await self._opening(options, mode)
        except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
            reading.account.fall_back("profile", error)
            return None
        except ModelRejected as error:
            # An endpoint for decisions may write no text; the slates will tell of a wrong key.
            if reading.mode not in (ReplyMode.DECISIONS, ReplyMode.PREDICATES):
                raise
            reading.account.fall_back("profile", error)
            return None
        with suppress(StoreUnavailable):  # the next request asks again
            data = msgspec.json.encode(topics)
            await self._documents.put("profile", key, data, self._profile_ttl_s)
        await self._adopt(topics)
        return marks

    async def _topics(self, mode: ReplyMode) -> Topics:
        reading = self._reading
        turn = profile.turn_of(
            reading.history,
            mode,
            perspective=reading.perspective,
            language=reading.language,
            timeout_s=reading.account.timeout_s,
        )
        line = reading.account.line("profile")
        again = replace(turn, seed=turn.seed + 1)  # the same again would be the same answer
        return await ask(line, turn, lambda reply: profile.read(mode, reply), again=lambda: again)

    async def _opening(self, options: Sequence[Node], mode: ReplyMode) -> tuple[Topics, FloatArray]:
        """The topics, and float32[options, topics]: the first level judged by them."""
        reading = self._reading
        turn = profile.opening_turn(
            reading.history,
            [self._pool.branch(reading.tree, option) for option in options],
            mode,
            perspective=reading.perspective,
            language=reading.language,
            wanted=_WANTED,
            timeout_s=reading.account.timeout_s,
        )
        topics, first = await ask(
            reading.account.line("profile"),
            turn,
            lambda reply: profile.read_opening(len(options), reply),
            again=lambda: replace(turn, seed=turn.seed + 1),
        )
        reading.account.spent["profile"].flaws.update(first.flaws)
        every = np.arange(len(options))
        return topics, calibrated([Judged(every, first.values)], len(options), every[:0])

    async def _adopt(self, topics: Topics) -> None:
        reading = self._reading
        reading.topics = topics
        words: Words = {}
        try:
            async with asyncio.timeout(max(0.0, reading.account.budget.seconds_left)):
                words = await self._embed(profile.silent(reading.need, topics))
        except (
            EmbedderUnavailable,
            TimeoutError,
        ):  # topics that stand on the reader's own choices are enough
            reading.account.degrade("embedder_unavailable")
        reading.need = profile.regrouped(reading.need, topics, words)

    def _profile_key(self) -> str:
        reading = self._reading
        model = (reading.account.endpoint, reading.account.models["profile"].model.name)
        return profile.cache_key(
            reading.history, model, reading.mode, reading.perspective, reading.language
        )

    async def _judge_branches(self, options: Sequence[Node], level: int) -> FloatArray:
        reading = self._reading
        near = self._pool.ranker.near_nodes(reading.tree, reading.need, options)
        if self._branches == "embedded":
            return near
        static = level == 1  # the same for all readers, so that providers may cache its prefix
        question = Question(
            load("search", reading.perspective),
            [self._pool.branch(reading.tree, option) for option in options],
            near,
            reading.need_text(),
            reading.columns(),
            _WANTED,
            reading.tree.version if static else reading.seed + level,
            anchors=self._anchors,
        )
        marks = await self._ranker.score("search", question)
        self._trace_level(options, marks)
        return marks

    def _chosen(self, options: Sequence[Node], marks: FloatArray) -> list[Node]:
        """The branches that stay, best first: by the model, or half by the embedded ranker.

        Branches that a model leaves unsaid are all alike to it: similarity decides among them.
        """
        reading = self._reading
        near = self._pool.ranker.near_nodes(reading.tree, reading.need, options)
        width = reading.effort.kept
        order = beam(marks + _TIE * near.max(axis=1, keepdims=True), width)
        if self._branches == "union":
            both = zip(order, beam(near, width), strict=True)
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
        """Those under which something is allowed. Counted only where much is not."""
        reading = self._reading
        if int(reading.allowed.sum()) > len(reading.tree) * _MOSTLY_ALLOWED:
            return list(nodes)
        for node in nodes:
            below = rows_below(list(reading.tree.leaves(node.id)))
            self._allowed[node.id] = int(reading.allowed[below].sum())
        return [node for node in nodes if self._allowed[node.id]]

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
    return min(_FIRST_WIDTH, max(_FIRST_WIDTH // 2, int(leaves / _LEAVES_PER_BRANCH)))


def narrowed(need: Need, most: int = profile.MAX_TOPICS) -> Need:
    """The need with at most `most` interests; the weakest are folded into the last that stays.

    What the reader said is never folded away: it outweighs the past.
    """
    if len(need.interests) <= most:
        return need
    order = sorted(
        range(len(need.interests)),
        key=lambda at: (need.interests[at].said != "wish", -need.interests[at].weight),
    )
    place = np.zeros(len(order), np.int64)
    place[order] = np.minimum(np.arange(len(order)), most - 1)
    kept = [need.interests[at] for at in order[:most]]
    rest = sum(need.interests[at].weight for at in order[most - 1 :])
    kept[-1] = replace(kept[-1], weight=rest)
    return replace(need, interests=tuple(kept), owner=place[need.owner])
