"""The paper's own chain: one conversation with a model, one call after the other."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.budget import BudgetExceeded
from app.llm import InvalidReply, Message, ModelUnavailable, Reply, ask
from app.llm.ledger import Stage
from app.llm.slates import Slate, read, turn_of
from app.ranking.fusion import FloatArray
from app.recommend.candidates import CandidatePool, Candidates, filled_up
from app.recommend.context import ModelContext
from app.recommend.profile import Profile, announced
from app.recommend.prompt_lines import item_line, need_lines
from app.recommend.topics import read_topics, topics_turn
from prompts import LINE_CHARS, load
from tree.node import Node
from tree.rows import IntArray

SUB_NODES = 10  # of a node that the search goes on with
LEAF_ITEMS = 50  # that the paper shows of a leaf


class PaperChain:
    """Algorithm 1 of UniLLMRec over our tree: one conversation, one call after the other.

    The pseudo-code's queue is read as §2.3.2 describes it (depth first, the best branch before the
    others): the search stays within the first branch until it has enough items, `k` from every
    leaf, and the model then orders them. If a call fails, the embedded ranker answers it. It has
    its own prompts (`prompts/paper_*.md`), which do not change with those of the other strategies.
    """

    def __init__(self, context: ModelContext, pool: CandidatePool) -> None:
        self._context = context
        self._pool = pool
        self._conversation: list[Message] = []
        self._person = ""

    async def run(self, wanted: int) -> Candidates:
        """The best `wanted` candidates, in the order of the model; the paper's n."""
        context = self._context
        best = await self._pool.best(context.tree, context.need, context.allowed, wanted)
        with context.clock.stage("profile"):
            await self._profile()
        announced(context, Profile(context.need))
        with context.clock.stage("search"):
            recalled = await self._recalled(wanted)
        context.notify_candidates(len(recalled))
        if not recalled:
            return best
        with context.clock.stage("rerank"):
            rows = await self._reranked(np.array(recalled[:wanted], np.int32))
        return filled_up(rows, best, wanted)

    async def _recalled(self, wanted: int) -> list[int]:
        """Rows in the order in which the search finds them."""
        context = self._context
        recalled: list[int] = []
        pending = [context.tree.root]
        while pending and len(recalled) < wanted and context.ledger.budget.calls_left:
            node = pending.pop()
            if node.is_leaf:
                recalled += await self._from_leaf(node)
            else:
                pending += reversed(await self._sub_nodes(node))
        return recalled

    async def _profile(self) -> None:
        context = self._context
        mode = context.mode.for_text
        interests = [(interest.name, interest.weight) for interest in context.need.interests]
        if not context.history.is_empty:
            turn = topics_turn(
                context.history,
                mode,
                load("paper_profile", context.perspective),
                language=context.language,
                timeout_s=context.ledger.timeout_s,
            )
            context.ledger.begin_round("profile")
            try:
                call = context.ledger.call_context("profile")
                topics, answer = await ask(
                    call, turn, lambda reply: (read_topics(mode, reply), reply.text)
                )
                interests = [(topic.topic, topic.weight / 100) for topic in topics.topics]
                self._conversation += [*turn.messages, Message("assistant", answer)]
            except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
                context.ledger.fall_back("profile", error)
        self._person = need_lines(interests, context.history.choices, context.history.wishes, ())

    async def _sub_nodes(self, node: Node) -> list[Node]:
        children = self._context.tree.children(node)
        similarity = self._pool.ranker.node_similarity(
            self._context.tree, self._context.need, children
        )
        lines = [self._pool.branch(self._context.tree, child) for child in children]
        order = await self._order("search", lines, similarity.max(axis=1), SUB_NODES)
        return [children[at] for at in order]

    async def _from_leaf(self, leaf: Node) -> list[int]:
        context = self._context
        rows = leaf.rows[context.allowed[leaf.rows]][:LEAF_ITEMS]
        records = await self._pool.records(context.tree, rows.tolist())
        offered = [row for row in rows.tolist() if row in records]
        if not offered:
            return []
        by_vectors = self._pool.ranker.scores(
            context.tree, context.need, np.array(offered, np.int32)
        )
        shown = [item_line(records[row]) for row in offered]
        order = await self._order("recall", shown, by_vectors, context.items_per_leaf)
        return [offered[at] for at in order]

    async def _reranked(self, rows: IntArray) -> IntArray:
        records = await self._pool.records(self._context.tree, rows.tolist())
        kept = np.array([row for row in rows.tolist() if row in records], np.int32)
        if not len(kept):
            return kept
        lines = [item_line(records[row]) for row in kept.tolist()]
        by_vectors = self._pool.ranker.scores(self._context.tree, self._context.need, kept)
        order = await self._order("rerank", lines, by_vectors, len(kept))
        rest = [at for at in range(len(kept)) if at not in set(order)]
        return kept[[*order, *rest]]

    async def _order(
        self, stage: Stage, lines: Sequence[str], by_vectors: FloatArray, wanted: int
    ) -> list[int]:
        """Positions of the best options, at most `wanted`: one more turn of the conversation.

        Of options with the same line only the first is asked about.
        """
        context = self._context
        first = sorted({line: at for at, line in reversed([*enumerate(lines)])}.values())
        lines, by_vectors = [lines[at] for at in first], by_vectors[first]
        mode = context.mode.for_text
        prompt = load(f"paper_{stage}", context.perspective)
        slate = Slate(prompt, lines, self._person, (), min(wanted, len(lines)), LINE_CHARS)
        asked = turn_of(slate, mode, timeout_s=context.ledger.timeout_s, seed=context.seed)
        turn = replace(asked, messages=(*self._conversation, *asked.messages))
        answer = ""

        def read_and_keep(reply: Reply) -> FloatArray:
            nonlocal answer
            answer = reply.text
            scored = read(slate, mode, reply)
            context.ledger.totals[stage].flaws.update(scored.flaws)
            return scored.values[:, 0]

        context.ledger.begin_round(stage)
        try:
            scores = await ask(context.ledger.call_context(stage), turn, read_and_keep)
        except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
            context.ledger.fall_back(stage, error)
            return [first[at] for at in np.argsort(-by_vectors, kind="stable")[:wanted]]
        self._conversation += [*asked.messages, Message("assistant", answer)]
        marked = np.flatnonzero(~np.isnan(scores))
        best = marked[np.argsort(-scores[marked], kind="stable")][:wanted]
        return [first[at] for at in best]
