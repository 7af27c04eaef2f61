"""The last stage: candidates that may be shown become an answer."""

from app.llm import Degraded
from app.recommend.answer_fields import fields_of
from app.recommend.candidates import CandidatePool, Candidates
from app.recommend.config import AnswerConfig
from app.recommend.context import ModelContext, RequestContext
from app.recommend.reasons import reasons
from app.recommend.rerank import spread
from app.recommend.response import Recommendation, RecommendedItem
from app.recommend.strategies import Outcome
from app.recommend.traces import usage_of
from tree.item import Item
from tree.snapshot import SemanticTree


async def answer(
    context: RequestContext, pool: CandidatePool, config: AnswerConfig, catalog: str, found: Outcome
) -> Recommendation:
    """The first candidates that may be shown, with their fields, paths and reasons."""
    request, tree, clock = context.request, context.tree, context.clock
    candidates = found.candidates
    with clock.stage("rerank"):
        every = range(len(candidates.rows))
        order = list(every) if found.is_final else spread(context, candidates)
    with clock.stage("recall"):
        rows = candidates.rows[order].tolist()
        live = await pool.live(tree, rows, request.limit, request.filter)
        chosen = [(order[at], item) for at, item in live]
        shown = [int(candidates.rows[at]) for at, _ in chosen]
        why = await reasons(
            tree, found.need, shown, request.explain, pool.store, config.inverse_temperature
        )
    fields, warnings = fields_of([item for _, item in chosen], request.fields)
    ledger = context.ledger if isinstance(context, ModelContext) else None
    degraded: Degraded | None = context.degraded or (ledger.degraded if ledger else None)
    return Recommendation(
        recommendation_id=context.id,
        catalog=catalog,
        tree_version=tree.version,
        items=[
            recommended(tree, candidates, at, item, rank, values, reason)
            for rank, ((at, item), values, reason) in enumerate(
                zip(chosen, fields, why, strict=True), 1
            )
        ],
        degraded=degraded is not None,
        degraded_reason=degraded,
        absent_items=list(context.resolved.absent),
        warnings=[*context.warnings, *warnings],
        usage=usage_of(ledger),
        timing_ms=clock.timing(),
    )


def recommended(
    tree: SemanticTree,
    found: Candidates,
    at: int,
    item: Item,
    rank: int,
    fields: dict[str, object],
    reason: str | None,
) -> RecommendedItem:
    """One item of an answer: the candidate at a position."""
    leaf = int(tree.rows.leaf[found.rows[at]])
    return RecommendedItem(
        item_id=item.id,
        rank=rank,
        score=round(float(found.scores[at]), 4),
        fields=fields,
        path=[node.label for node in tree.path(leaf)],
        reason=reason,
    )
