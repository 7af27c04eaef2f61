"""The strategies: named compositions of the stages over one request context."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from app.options import StrategyName
from app.ranking import Need
from app.recommend.candidates import CandidatePool, Candidates
from app.recommend.config import RecommendConfig
from app.recommend.context import ModelContext, RequestContext
from app.recommend.effort import CallLimits
from app.recommend.flat import rank_everything
from app.recommend.paper import PaperChain
from app.recommend.profile import Profile, ProfileStage, announced, narrowed
from app.recommend.query_encoder import QueryEncoder
from app.recommend.recall import recall
from app.recommend.rerank import rerank
from app.recommend.retrievers import BranchRetriever, Retriever, VectorRetriever
from app.recommend.search import TreeSearch
from tree.node import Node

_BASELINE_LIMITS = CallLimits(calls=200, tokens=2_000_000)


@dataclass(frozen=True, slots=True)
class ChainParts:
    """What the stages of one catalogue share."""

    pool: CandidatePool
    encoder: QueryEncoder
    config: RecommendConfig


@dataclass(frozen=True, slots=True)
class Outcome:
    """The candidates of a strategy, and the need that they answer.

    `is_final` when they are in the order of the answer, so that diversity changes nothing.
    """

    need: Need
    candidates: Candidates
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class ModelStrategy:
    """A strategy that asks a model, and its limits where they are not those of the effort.

    `run` raises ModelRejected, AnswerDegraded, UnsupportedReplyMode, StoreUnavailable.
    """

    run: Callable[[ModelContext, ChainParts], Awaitable[Outcome]]
    limits: CallLimits | None = None
    is_examined: bool = False  # whether it asks a model only as far as its standing allows


async def embedded(context: RequestContext, parts: ChainParts) -> Outcome:
    """No model: one search by vectors. Without a model every strategy is this one."""
    with context.clock.stage("search"):
        return Outcome(context.need, await _by_vectors(context, parts, context.need))


async def beam(context: ModelContext, parts: ChainParts) -> Outcome:
    """Profile → search → recall → re-rank, each by a model and by vectors together."""
    pool, config, clock = parts.pool, parts.config, context.clock
    branches: list[Node] = []
    if context.effort.levels and not context.tree.root.is_leaf:
        search = TreeSearch(context, pool, config.search)
        first = search.first_branches()
        stage = ProfileStage(pool, parts.encoder, config.profile.model_profile_ttl_s)
        with clock.stage("profile"):
            profile, scores = await stage.run(context, first)
        with clock.stage("search"):
            branches = await search.run(profile, first, scores)
    else:
        profile = announced(context, Profile(narrowed(context.need)))
    with clock.stage("recall"):
        wanted = max(context.wanted, context.effort.vector_candidates)
        best = await pool.best(context.tree, profile.need, context.allowed, wanted)
        retrievers: list[Retriever] = [VectorRetriever(best), BranchRetriever(pool, branches)]
        recalled = await recall(context, pool, config.slates, profile, retrievers)
    with clock.stage("rerank"):
        candidates = await rerank(context, config.slates, profile, recalled, best)
    return Outcome(profile.need, candidates)


async def paper(context: ModelContext, parts: ChainParts) -> Outcome:
    """Algorithm 1 as published, for comparison."""
    candidates = await PaperChain(context, parts.pool).run(context.request.limit)
    return Outcome(context.need, candidates, is_final=True)


async def flat(context: ModelContext, parts: ChainParts) -> Outcome:
    """The catalogue in prompts, for comparison."""
    candidates = await rank_everything(context, parts.pool, context.wanted)
    return Outcome(context.need, candidates)


async def by_vectors_instead(context: ModelContext, parts: ChainParts) -> Outcome:
    """The embedded ranker's answer, with the results of a strategy before it failed."""
    need = context.record.need
    return Outcome(need, await _by_vectors(context, parts, need))


async def _by_vectors(context: RequestContext, parts: ChainParts, need: Need) -> Candidates:
    return await parts.pool.best(context.tree, need, context.allowed, context.wanted)


MODEL_STRATEGIES: Mapping[StrategyName, ModelStrategy] = {
    "beam": ModelStrategy(beam, is_examined=True),
    "paper": ModelStrategy(paper, _BASELINE_LIMITS),
    "flat": ModelStrategy(flat, _BASELINE_LIMITS),
}
