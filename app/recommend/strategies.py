"""The strategies: named compositions of the stages over one request context."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from app.options import StrategyName
from app.ranking import Need
from app.recommend.candidates import CandidatePool, Candidates
from app.recommend.config import RecommendConfig
from app.recommend.context import ModelContext, RequestContext
from app.recommend.effort import CallLimits, Effort
from app.recommend.flat import rank_everything
from app.recommend.paper import PaperChain
from app.recommend.profile import Profile, ProfileStage
from app.recommend.query_encoder import QueryEncoder
from app.recommend.recall import recall
from app.recommend.rerank import rerank
from app.recommend.retrievers import (
    BranchRetriever,
    Retriever,
    TrendingRetriever,
    VectorRetriever,
)
from app.recommend.search import TreeSearch
from tree.node import Node
from tree.worker import together

_BESIDE_HISTORY = 0.5
_WALK = Effort(CallLimits(calls=12, tokens=24_000), expects=True)
_BASELINE = Effort(CallLimits(calls=200, tokens=2_000_000))


@dataclass(frozen=True, slots=True)
class ChainParts:
    """What the stages of one catalogue share."""

    catalog_id: str
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
    """A strategy that asks a model, and its effort where it is not the request's.

    `run` raises ModelRejected, AnswerDegraded, UnsupportedReplyMode, StoreUnavailable.
    """

    run: Callable[[ModelContext, ChainParts], Awaitable[Outcome]]
    effort: Effort | None = None
    is_examined: bool = False  # whether it asks a model only as far as its standing allows


async def embedded(context: RequestContext, parts: ChainParts) -> Outcome:
    """No model: one search by vectors. Without a model every strategy is this one."""
    with context.clock.stage("search"):
        return Outcome(context.need, await _by_vectors(context, parts, context.need))


async def beam(context: ModelContext, parts: ChainParts) -> Outcome:
    """Profile → recall → re-rank: a model ranks the best of what vectors find in the tree."""
    return await _ranked(context, parts, await _profile(context, parts), [])


async def walk(context: ModelContext, parts: ChainParts) -> Outcome:
    """Profile → search → recall → re-rank: a model also chooses branches, down the tree.

    For comparison: it finds no more than `beam` does, for two to three times the tokens.
    """
    profile = await _profile(context, parts)
    branches: list[Node] = []
    if not context.tree.root.is_leaf:
        with context.clock.stage("search"):
            branches = await TreeSearch(context, parts.pool, parts.config.search).run(profile)
    return await _ranked(context, parts, profile, branches)


async def _profile(context: ModelContext, parts: ChainParts) -> Profile:
    with context.clock.stage("profile"):
        stage = ProfileStage(parts.catalog_id, parts.pool, parts.encoder, parts.config.profile)
        return await stage.run(context)


async def _ranked(
    context: ModelContext, parts: ChainParts, profile: Profile, branches: Sequence[Node]
) -> Outcome:
    """Candidates from vectors and branches, ranked by the model."""
    pool, clock = parts.pool, context.clock
    with clock.stage("recall"):
        sources, best = await _sources(context, pool, profile, branches)
        recalled = await recall(context, pool, parts.config.slates, profile, sources)
    with clock.stage("rerank"):
        candidates = rerank(context, recalled, best)
    return Outcome(profile.need, candidates)


async def _sources(
    context: ModelContext, pool: CandidatePool, profile: Profile, branches: Sequence[Node]
) -> tuple[list[Retriever], Candidates]:
    """Where the candidates come from, and the embedded ranker's answer.

    What a model expects weighs as much as its judgement, so that a weak one fills no slate, and
    half of that beside a history.
    """
    needs, weights = [profile.need], [1.0]
    if profile.expected is not None:
        needs.append(profile.expected)
        only_words = all(interest.origin == "wish" for interest in profile.need.interests)
        share = context.model_weight * (1.0 if only_words else _BESIDE_HISTORY)
        weights = [1 - share, share]
    wanted = max(context.wanted, 2 * context.effort.candidates)
    found = await together(pool.best(context.tree, need, context.allowed, wanted) for need in needs)
    sources: list[Retriever] = [
        VectorRetriever(one, weight) for one, weight in zip(found, weights, strict=True)
    ]
    events = profile.need.event_scores
    if profile.need.tilt.rising and events is not None:
        sources.append(TrendingRetriever(events))
    if branches:
        sources.append(BranchRetriever(pool, needs[-1], branches, weights[-1]))
    return sources, found[0]


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
    "walk": ModelStrategy(walk, _WALK, is_examined=True),
    "paper": ModelStrategy(paper, _BASELINE),
    "flat": ModelStrategy(flat, _BASELINE),
}
