"""The strategies that we are measured against: the paper's own, and a flat ranking by a model."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.budget import BudgetExceeded
from app.llm import InvalidReply, Message, ModelUnavailable, Reply, ask
from app.llm.account import Stage
from app.llm.slates import Slate, read, turn_of
from app.ranking import ModelRanker, Question
from app.ranking.fusion import FloatArray
from app.recommend import profile
from app.recommend.candidates import Candidates, Pool
from app.recommend.chain import filled_up
from app.recommend.lines import LINE_CHARS, item_line, need_lines
from app.recommend.reading import ITEMS_PER_LEAF, Reading
from prompts import load
from tree.item import Item
from tree.node import Node
from tree.rows import IntArray

SUB_NODES = 10  # of a node that the search goes on with
LEAF_ITEMS = 50  # that the paper shows of a leaf
FLAT_ITEMS = 4_096  # beyond, a random sample: a prompt for every item of a shop is no service
_FLAT_FINAL = 64


class PaperChain:
    """Algorithm 1 of UniLLMRec over our tree: one conversation, one call after the other.

    The pseudo-code's queue is read as the text has it (§2.3.2: depth first, the best branch
    before the others): the search stays within the first branch until it has enough items, `k`
    from every leaf, and the model then orders them. A call that fails is answered by the
    embedded ranker.
    """

    def __init__(self, reading: Reading, pool: Pool, items_per_leaf: int = ITEMS_PER_LEAF) -> None:
        self._reading = reading
        self._pool = pool
        self._items_per_leaf = items_per_leaf
        self._said: list[Message] = []
        self._need = ""

    async def run(self, wanted: int) -> Candidates:
        """See Chain.run. `wanted` is the paper's n."""
        reading = self._reading
        best = await self._pool.best(
            reading.tree, reading.need, reading.allowed, wanted, reading.passes
        )
        with reading.clock.stage("profile"):
            await self._profile()
        reading.tell_profile()
        with reading.clock.stage("search"):
            recalled = await self._recalled(wanted)
        reading.tell_candidates(len(recalled))
        if not recalled:
            return best
        with reading.clock.stage("rerank"):
            rows = await self._reranked(np.array(recalled[:wanted], np.int32))
        return filled_up(rows, best, wanted)

    async def _recalled(self, wanted: int) -> list[int]:
        """Rows in the order in which the search came by them."""
        reading = self._reading
        recalled: list[int] = []
        pending = [reading.tree.root]
        while pending and len(recalled) < wanted and reading.account.budget.calls_left:
            node = pending.pop()
            if node.is_leaf:
                recalled += await self._from_leaf(node)
            else:
                pending += reversed(await self._sub_nodes(node))
        return recalled

    async def _profile(self) -> None:
        reading = self._reading
        mode = reading.mode.for_text
        interests = [(interest.name, interest.weight) for interest in reading.need.interests]
        if not reading.history.is_empty:
            turn = profile.turn_of(
                reading.history,
                mode,
                perspective=reading.perspective,
                language=reading.language,
                timeout_s=reading.account.timeout_s,
            )
            reading.account.begin_round("profile")
            try:
                line = reading.account.line("profile")
                topics, said = await ask(
                    line, turn, lambda reply: (profile.read(mode, reply), reply.text)
                )
                interests = [(topic.topic, topic.weight / 100) for topic in topics.topics]
                self._said += [*turn.messages, Message("assistant", said)]
            except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
                reading.account.fall_back("profile", error)
        self._need = need_lines(interests, reading.history.choices, reading.history.wishes, ())

    async def _sub_nodes(self, node: Node) -> list[Node]:
        children = self._reading.tree.children(node)
        near = self._pool.ranker.near_nodes(self._reading.tree, self._reading.need, children)
        lines = [self._pool.branch(self._reading.tree, child) for child in children]
        order = await self._order("search", lines, near.max(axis=1), SUB_NODES)
        return [children[at] for at in order]

    async def _from_leaf(self, leaf: Node) -> list[int]:
        reading = self._reading
        rows = leaf.rows[reading.allowed[leaf.rows]][:LEAF_ITEMS]
        records = await self._pool.records(reading.tree, rows.tolist())
        offered = [row for row in rows.tolist() if self._may_be_shown(records.get(row))]
        if not offered:
            return []
        near = self._pool.ranker.scores(reading.tree, reading.need, np.array(offered, np.int32))
        shown = [item_line(records[row]) for row in offered]
        order = await self._order("recall", shown, near, self._items_per_leaf)
        return [offered[at] for at in order]

    async def _reranked(self, rows: IntArray) -> IntArray:
        records = await self._pool.records(self._reading.tree, rows.tolist())
        kept = np.array([row for row in rows.tolist() if row in records], np.int32)
        if not len(kept):
            return kept
        lines = [item_line(records[row]) for row in kept.tolist()]
        near = self._pool.ranker.scores(self._reading.tree, self._reading.need, kept)
        order = await self._order("rerank", lines, near, len(kept))
        rest = [at for at in range(len(kept)) if at not in set(order)]
        return kept[[*order, *rest]]

    def _may_be_shown(self, item: Item | None) -> bool:
        passes = self._reading.passes
        return item is not None and (passes is None or passes.holds(item))

    async def _order(
        self, stage: Stage, lines: Sequence[str], near: FloatArray, wanted: int
    ) -> list[int]:
        """Positions of the best options, at most `wanted`: one more turn of the conversation."""
        reading = self._reading
        mode = reading.mode.for_text
        prompt = load(stage, reading.perspective)
        slate = Slate(prompt, lines, self._need, (), min(wanted, len(lines)), LINE_CHARS)
        asked = turn_of(slate, mode, timeout_s=reading.account.timeout_s, seed=reading.seed)
        turn = replace(asked, messages=(*self._said, *asked.messages))
        answer = ""

        def read_and_keep(reply: Reply) -> FloatArray:
            nonlocal answer
            answer = reply.text
            scored = read(slate, mode, reply)
            reading.account.spent[stage].flaws.update(scored.flaws)
            return scored.values[:, 0]

        reading.account.begin_round(stage)
        try:
            marks = await ask(reading.account.line(stage), turn, read_and_keep)
        except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
            reading.account.fall_back(stage, error)
            return np.argsort(-near, kind="stable")[:wanted].tolist()
        self._said += [*asked.messages, Message("assistant", answer)]
        marked = np.flatnonzero(~np.isnan(marks))
        return marked[np.argsort(-marks[marked], kind="stable")][:wanted].tolist()


async def flat(reading: Reading, pool: Pool, wanted: int) -> Candidates:
    """The whole catalogue in slates, then the best in one: LLM-Ranker style.

    Of more than 4,096 allowed items a random sample is asked about, the same for the same seed.
    """
    best = await pool.best(reading.tree, reading.need, reading.allowed, wanted, reading.passes)
    rows = np.flatnonzero(reading.allowed).tolist()
    if len(rows) > FLAT_ITEMS:
        rows = random.Random(reading.seed).sample(rows, FLAT_ITEMS)
    records = await pool.records(reading.tree, rows)
    passes = reading.passes
    kept = [row for row in rows if row in records and (not passes or passes.holds(records[row]))]
    if not kept:
        return best
    offered = np.array(kept, np.int32)
    reading.tell_profile()
    reading.tell_candidates(len(offered))
    ranker = ModelRanker(reading.account, reading.mode)
    with reading.clock.stage("recall"):
        marks = await ranker.score("recall", _question(reading, pool, offered, records, "recall"))
    order = np.argsort(-marks.max(axis=1), kind="stable")
    last, rest = offered[order[:_FLAT_FINAL]], offered[order[_FLAT_FINAL:]]
    with reading.clock.stage("rerank"):
        again = await ranker.score("rerank", _question(reading, pool, last, records, "rerank"))
    final = last[np.argsort(-again[:, 0], kind="stable")]
    return filled_up(np.concatenate([final, rest])[:wanted], best, wanted)


def _question(
    reading: Reading, pool: Pool, rows: IntArray, records: dict[int, Item], stage: Stage
) -> Question:
    interests = [(interest.name, interest.weight) for interest in reading.need.interests]
    return Question(
        load(stage, reading.perspective),
        [item_line(records[row]) for row in rows.tolist()],
        pool.ranker.scores(reading.tree, reading.need, rows)[:, None],
        need_lines(interests, reading.history.choices, reading.history.wishes, ()),
        (),
        32,
        reading.seed,
        LINE_CHARS,
    )
