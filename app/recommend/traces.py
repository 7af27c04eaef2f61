"""The trace of a recommendation: how the answer was found."""

import msgspec

from app.attribution import NONE, Answered
from app.llm import RequestLedger
from app.recommend.candidates import Candidates
from app.recommend.context import ModelContext, RequestContext
from app.recommend.response import Recommendation, StageUsage, Usage

_LEAVES = 20
_INTERESTS, _NAME_CHARS = 20, 200  # a wish of 4,000 characters is an interest, too


def trace_of(
    context: RequestContext,
    catalog: str,
    found: Candidates | None,
    answered: Recommendation | None,
    outcome: str,
) -> bytes:
    """A trace as JSON; a request without an answer has one too, with its usage.

    Of the need it has the strongest interests and the beginnings of their names.
    """
    request = context.request
    asking = context if isinstance(context, ModelContext) else None
    trace: dict[str, object] = {
        "recommendation_id": context.id,
        "catalog": catalog,
        "tree_version": context.tree.version,
        "user_id": request.user_id,
        "scenario": request.scenario,
        "variant": context.variant,
        "task": request.task,
        "outcome": outcome,
        "strategy": _strategy_of(context),
        "weights": context.weights,
        "effort": _effort_of(context),
        "interests": [
            {"name": _cut(interest.name), "weight": interest.weight, "said": interest.origin}
            for interest in context.record.need.interests[:_INTERESTS]
        ],
        "usage": usage_of(asking.ledger if asking else None).model_dump(),
        "timing_ms": context.clock.timing(),
    }
    if found is not None:
        ranking = found.ranking
        trace["search"] = {
            "scan": not ranking.leaves,
            "nodes_offered": ranking.scored_nodes,
            "levels": ranking.levels,
            "leaves_reached": len(ranking.leaves),
            "best_leaves": [leaf.id for leaf in ranking.leaves[:_LEAVES]],
            "items_scored": ranking.scored_items,
        }
    if answered is not None:
        trace["items"] = [{"item_id": item.item_id, "score": item.score} for item in answered.items]
        if answered.next_cursor is not None:
            trace["page"] = context.record.page
    if context.standing is not None:
        trace["standing"] = context.standing
    if asking is not None:
        trace |= {
            "model_weight": round(asking.model_weight, 4),
            "reply_mode": asking.mode,
            "perspective": asking.perspective,
            "degraded_reason": answered.degraded_reason if answered else asking.ledger.degraded,
            "expected": list(asking.record.expected),
            "nodes": asking.record.nodes,
            "candidates": asking.record.candidates,
            "calls": asking.ledger.calls,
            "prompts": {
                name: asking.prompt(name).fingerprint
                for name in ("expect_wish", "expect_next", "search", "recall")
            },
        }
    return msgspec.json.encode(trace)


def kept_of(context: RequestContext, answered: Recommendation) -> Answered:
    """What is kept of an answer for events that name it."""
    return Answered(
        list_id=context.id,
        user_id=context.request.user_id,
        variant=context.variant,
        strategy=_strategy_of(context),
        effort=_effort_of(context) or NONE,
        scenario=context.request.scenario,
        degraded=answered.degraded,
        tree_version=answered.tree_version,
        items=[item.item_id for item in answered.items],
        is_shown=context.is_traced,  # lists of runs have no trace, and are shown later if at all
    )


def _strategy_of(context: RequestContext) -> str:
    """The strategy that really ran, for this page or for the first one."""
    if context.page is not None and context.page.strategy is not None:
        return context.page.strategy
    return context.request.strategy if isinstance(context, ModelContext) else "embedded"


def _effort_of(context: RequestContext) -> str | None:
    """The effort of a model that was asked, for this page or for the first one."""
    if isinstance(context, ModelContext):
        return context.effort.name or context.request.effort
    return context.page.effort if context.page is not None else None


def _cut(text: str) -> str:
    return text if len(text) <= _NAME_CHARS else text[: _NAME_CHARS - 1] + "…"


def usage_of(ledger: RequestLedger | None) -> Usage:
    """The calls, tokens and cost of a request, stage by stage; all zero without a ledger."""
    if ledger is None:
        return Usage()
    return Usage.of(
        {
            stage: StageUsage(
                calls=spent.calls,
                rounds=spent.rounds,
                input_tokens=spent.input_tokens,
                output_tokens=spent.output_tokens,
                cached_tokens=spent.cached_tokens,
                cost_usd=round(spent.cost_usd, 8),
                fallbacks=spent.fallbacks,
                invalid_replies=dict(spent.flaws),
            )
            for stage, spent in ledger.totals.items()
        }
    )
