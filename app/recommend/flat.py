"""A flat ranking: the whole catalogue in prompts, without the tree."""

import random
from collections.abc import Mapping

import numpy as np

from app.llm.ledger import Stage
from app.ranking import Question
from app.recommend.candidates import CandidatePool, Candidates, filled_up
from app.recommend.context import ModelContext
from app.recommend.profile import Profile, announced
from app.recommend.prompt_lines import item_line, need_lines
from prompts import LINE_CHARS
from tree.item import Item
from tree.rows import IntArray

FLAT_ITEMS = 4_096  # of more items a random sample: prompts for all would cost too much
_FINAL = 64


async def rank_everything(context: ModelContext, pool: CandidatePool, wanted: int) -> Candidates:
    """The best candidates of the whole catalogue: in slates, then the best of these in one.

    LLM-Ranker works like this. Of more than 4,096 allowed items a random sample is asked about, the
    same for the same seed.
    """
    best = await pool.best(context.tree, context.need, context.allowed, wanted)
    allowed = np.flatnonzero(context.allowed)
    if len(allowed) > FLAT_ITEMS:
        allowed = allowed[random.Random(context.seed).sample(range(len(allowed)), FLAT_ITEMS)]
    rows = allowed.tolist()
    records = await pool.records(context.tree, rows)
    kept = [row for row in rows if row in records]
    if not kept:
        return best
    offered = np.array(kept, np.int32)
    announced(context, Profile(context.need))
    context.notify_candidates(len(offered))
    ranker = context.model_ranker
    with context.clock.stage("recall"):
        question = _question(context, pool, offered, records, "recall")
        scores = await ranker.score("recall", question)
    order = np.argsort(-scores.max(axis=1), kind="stable")
    last, rest = offered[order[:_FINAL]], offered[order[_FINAL:]]
    with context.clock.stage("rerank"):
        question = _question(context, pool, last, records, "rerank")
        again = await ranker.score("rerank", question)
    final = last[np.argsort(-again[:, 0], kind="stable")]
    return filled_up(np.concatenate([final, rest])[:wanted], best, wanted)


def _question(
    context: ModelContext,
    pool: CandidatePool,
    rows: IntArray,
    records: Mapping[int, Item],
    stage: Stage,
) -> Question:
    interests = [(interest.name, interest.weight) for interest in context.need.interests]
    return Question(
        context.prompt(stage),
        [item_line(records[row]) for row in rows.tolist()],
        pool.ranker.scores(context.tree, context.need, rows)[:, None],
        need_lines(interests, context.history.choices, context.history.wishes, ()),
        (),
        32,
        context.seed,
        LINE_CHARS,
    )
