"""The last stage: candidates that may be shown become an answer."""

import numpy as np

from app.llm import Degraded
from app.recommend.answer_fields import fields_of
from app.recommend.candidates import CandidatePool, Candidates
from app.recommend.choice import ChoiceRules, Chooser, Chosen, choose
from app.recommend.columns import Mask
from app.recommend.config import AnswerConfig
from app.recommend.context import ModelContext, RequestContext
from app.recommend.fields import Fields
from app.recommend.groups import Groups
from app.recommend.pages import MOST_SHOWN, Page
from app.recommend.reasons import reasons
from app.recommend.rerank import spread
from app.recommend.response import Recommendation, RecommendedItem
from app.recommend.strategies import Outcome
from app.recommend.traces import usage_of
from tree.snapshot import SemanticTree


async def answer(
    context: RequestContext,
    pool: CandidatePool,
    fields: Fields,
    config: AnswerConfig,
    catalog: str,
    found: Outcome,
) -> Recommendation:
    """The first candidates that may be shown, with their fields, paths and reasons."""
    request, tree, clock = context.request, context.tree, context.clock
    rules = ChoiceRules(request.limit, request.filter, request.fold, request.group_by)
    shown = context.page.shown if context.page else ()
    before = await pool.store.items(list(shown)) if shown else {}
    grouped = context.page.groups if context.page else ()
    chooser = Chooser(pool, tree, rules, before=before.values(), groups=grouped)
    groups = Groups(fields, tree, request.group_by)
    candidates = found.candidates
    with clock.stage("rerank"):
        every = range(len(candidates.rows))
        order = list(every) if found.is_final else spread(context, candidates)

    async def more(left: Mask, wanted: int) -> Candidates:
        others = await groups.others(left, chooser.groups.values())
        return await pool.best(tree, found.need, others, wanted)

    with clock.stage("recall"):
        candidates = await choose(chooser, candidates, order, context.allowed, more)
        chosen = chooser.chosen
        why = await reasons(
            tree,
            found.need,
            [int(candidates.rows[one.at]) for one in chosen],
            [one.item for one in chosen],
            request.explain,
            pool.store,
            config.inverse_temperature,
        )
        unknown = [] if chooser.groups else await groups.unknown()
    page = Page.after(context.page, tree, chooser, candidates, order)
    context.record.page = page
    has_more = (
        context.is_traced
        and len(chosen) == request.limit
        and len(page.shown) < MOST_SHOWN
        and np.count_nonzero(context.allowed) > len(chosen)
    )
    contents, cut = fields_of([one.item for one in chosen], request.fields)
    ledger = context.ledger if isinstance(context, ModelContext) else None
    degraded: Degraded | None = context.degraded or (ledger.degraded if ledger else None)
    return Recommendation(
        recommendation_id=context.id,
        catalog=catalog,
        tree_version=tree.version,
        variant=context.variant,
        items=[
            recommended(tree, candidates, one, rank, content, reason)
            for rank, (one, content, reason) in enumerate(
                zip(chosen, contents, why, strict=True), 1
            )
        ],
        next_cursor=context.id if has_more else None,
        degraded=degraded is not None,
        degraded_reason=degraded,
        absent_items=list(context.resolved.absent),
        warnings=[*context.warnings, *unknown, *cut],
        usage=usage_of(ledger),
        timing_ms=clock.timing(),
    )


def recommended(
    tree: SemanticTree,
    candidates: Candidates,
    chosen: Chosen,
    rank: int,
    fields: dict[str, object],
    reason: str | None,
) -> RecommendedItem:
    """One item of an answer."""
    leaf = int(tree.rows.leaf[candidates.rows[chosen.at]])
    return RecommendedItem(
        item_id=chosen.item.id,
        rank=rank,
        score=round(float(candidates.scores[chosen.at]), 4),
        fields=fields,
        path=[node.label for node in tree.path(leaf)],
        reason=reason,
        folded=chosen.folded,
    )
