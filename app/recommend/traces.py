"""How an answer came about: what the trace of a recommendation tells."""

from collections.abc import Mapping

import msgspec

from app.llm import Account
from app.ranking import Need
from app.recommend.answer import Recommendation, StageUsage, Usage
from app.recommend.candidates import Candidates
from app.recommend.reading import Reading
from prompts import load

_LEAVES = 20


def trace_of(
    about: Mapping[str, object],
    need: Need,
    found: Candidates | None,
    answer: Recommendation | None,
    reading: Reading | None,
    timing_ms: Mapping[str, float],
) -> bytes:
    """A trace as JSON; a request that came to no answer has one too, with what it spent."""
    trace: dict[str, object] = {
        **about,
        "interests": [
            {"name": interest.name, "weight": interest.weight, "said": interest.said}
            for interest in need.interests
        ],
        "usage": usage_of(reading.account if reading else None).model_dump(),
        "timing_ms": timing_ms,
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
    if answer is not None:
        trace["items"] = [{"item_id": item.item_id, "score": item.score} for item in answer.items]
    if reading is not None:
        trace |= {
            "reply_mode": reading.mode,
            "perspective": reading.perspective,
            "degraded_reason": answer.degraded_reason if answer else reading.account.degraded,
            "nodes": reading.offered,
            "candidates": reading.candidates,
            "calls": reading.account.calls,
            "prompts": {
                name: load(name, reading.perspective).fingerprint
                for name in ("profile", "opening", "search", "recall", "rerank")
            },
        }
    return msgspec.json.encode(trace)


def usage_of(account: Account | None) -> Usage:
    """What a request has asked of models, stage by stage; nothing without an account."""
    if account is None:
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
            for stage, spent in account.spent.items()
        }
    )
