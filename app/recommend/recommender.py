"""`Recommender`: the chain for one catalogue."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import msgspec

from app.attribution import Attributor
from app.budget import SharedBudget
from app.embedders import EmbedderCache, factors_of
from app.event_types import DEFAULT_RULES
from app.llm import Models, ModelUnavailable
from app.llm.errors import UnsupportedReplyMode
from app.llm.slates import SLATE_WIDTH
from app.recommend.answer import answer
from app.recommend.candidates import CandidatePool, Candidates
from app.recommend.config import RecommendConfig
from app.recommend.context import (
    ModelContext,
    PromptConfig,
    RequestContext,
    StageClock,
    StepListener,
    history_of,
    open_ledger,
    with_model,
)
from app.recommend.effort import effort_of
from app.recommend.fields import ColumnMemory, Fields
from app.recommend.opening import ContextOpener
from app.recommend.pages import Page, continued_request
from app.recommend.query_encoder import QueryEncoder
from app.recommend.request import RecommendRequest
from app.recommend.response import Recommendation, SimilarItems
from app.recommend.similar import SimilarFinder, SimilarRequest
from app.recommend.standing.examination import Examiner
from app.recommend.standing.standings import Standings
from app.recommend.standing.warning import weak_model
from app.recommend.strategies import (
    MODEL_STRATEGIES,
    ChainParts,
    ModelStrategy,
    Outcome,
    by_vectors_instead,
    embedded,
)
from app.recommend.traces import kept_of, trace_of
from app.recommend.varied_request import VariedRequest
from app.registry import RegistryEntry
from app.signals import Signals
from app.storage.documents import Documents
from app.storage.feedback import Feedback
from app.storage.memory_feedback import MemoryFeedback
from app.variants import Variants
from tree.errors import CatalogDeleted, StoreUnavailable
from tree.store.keys import name_of
from tree.store.protocol import ReadableStore
from tree.worker import Background, Work, together

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

_TRACES_S = 1.0
_MOST_TRACES = 1_000  # of interrupted requests, at once


class DeadlineExceeded(Exception):
    """The request's `timeout_ms` ran out."""


class Recommender:
    """Answers the requests for one catalogue. It has no state of users.

    Traces are stored under `catalog_id`, so a new catalogue of the same name has no access to those
    of a deleted one.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a catalogue shares with the others
        self,
        catalog_id: str,
        store: ReadableStore,
        documents: Documents,
        embedders: EmbedderCache,
        config: RecommendConfig,
        models: Models | None = None,
        prompt_config: PromptConfig | None = None,
        feedback: Feedback | None = None,
        columns: ColumnMemory | None = None,
        *,
        examines: bool = False,
        attributor: Attributor | None = None,
    ) -> None:
        """With `examines`, the model has the weight that it has earned: see Standings.

        With an `attributor`, answers are counted, and events may name them.
        """
        self._catalog = name_of(catalog_id)
        self._catalog_id = catalog_id
        self._store = store
        self._documents = documents
        self._models = models or Models.none(documents)
        self._prompt_config = prompt_config or PromptConfig(self._catalog)
        self._config = config
        self._variants = Variants()
        self._event_rules = DEFAULT_RULES
        self._pool = CandidatePool(store, config.retrieval)
        self._fields = Fields(store, columns or ColumnMemory())
        self._feedback = feedback = feedback or MemoryFeedback()
        self._signals = Signals(feedback, config.signals)
        encoder = QueryEncoder(embedders, config.profile.embedder_timeout_s)
        self._similar = SimilarFinder(catalog_id, self._pool, self._fields, documents, config)
        self._parts = ChainParts(catalog_id, self._pool, encoder, config)
        self._opener = ContextOpener(
            catalog_id, documents, encoder, self._fields, feedback, self._signals, config
        )
        self._attributor = attributor
        self.standings: Standings | None = None
        if examines and self._models.configured:
            self.standings = self._standings(documents, feedback)
        self._traces = Background("traces")
        self._answers = Background("an answer", quiet=Exception)  # raised to the caller

    def reword(self, config: PromptConfig) -> None:
        """Use other words in the prompts of later requests."""
        self._prompt_config = config

    def configure(self, entry: RegistryEntry) -> None:
        """Answer later requests as the settings of the catalogue say."""
        self.reword(PromptConfig.of(entry))
        self._variants = Variants(entry.settings.variants, entry.settings.experiment)
        self._event_rules = entry.settings.event_rules
        self._signals.fade(self._event_rules.half_life_s)

    async def recommend(
        self,
        request: RecommendRequest,
        notify: StepListener = lambda _, __: None,
        shared_budget: SharedBudget | None = None,
        arrived: float | None = None,
        *,
        is_traced: bool = True,
    ) -> Recommendation:
        """The answer, on one version of the tree; `notify` is called at every step.

        Calls to models count against `shared_budget`, if given, and the request's own limits. The
        time of the request starts when it `arrived`, by `time.monotonic`, or now. An answer that is
        not traced has no cursor.

        Raises DeadlineExceeded, AnswerDegraded, ModelRejected, FilterTooLarge, UnknownVariant,
        CursorExpired, CursorOfAnother, StoreUnavailable.
        """
        spent_s = 0.0 if arrived is None else time.monotonic() - arrived
        clock = StageClock(time.perf_counter() - spent_s)
        work = self._recommend(request, notify, shared_budget, clock, is_traced=is_traced)
        return await self._in_time(request.timeout_ms, spent_s, work)

    async def similar(self, request: SimilarRequest, *, pages: bool = False) -> SimilarItems | None:
        """See SimilarFinder. Raises DeadlineExceeded too."""

        async def find() -> SimilarItems | None:
            return await self._similar.find(await self._store.recent(), request, pages=pages)

        return await self._in_time(request.timeout_ms, 0.0, find())

    async def _in_time(self, timeout_ms: int, spent_s: float, work: Work[_Answer]) -> _Answer:
        try:
            return await self._answers.within(timeout_ms / 1000 - spent_s, work)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no answer within {timeout_ms} ms: raise timeout_ms, or ask for less"
            ) from error

    async def trace(self, recommendation_id: str) -> dict[str, object] | None:
        """The trace of an answer; None if it is not stored or has expired."""
        data = await self._documents.get("trace", f"{self._catalog_id}/{recommendation_id}")
        return None if data is None else msgspec.json.decode(data)

    async def stored_users(self, user_ids: Sequence[str]) -> set[str]:
        """Those users of whom something is stored. Raises StoreUnavailable."""
        return await self._feedback.known(user_ids) if user_ids else set()

    async def aclose(self) -> None:
        """End background work; the stores stay open."""
        await self._answers.aclose()
        if self.standings is not None:
            await self.standings.aclose()
        await self._fields.aclose()
        await self._traces.aclose(_TRACES_S)
        await self._signals.aclose()

    def _standings(self, documents: Documents, feedback: Feedback) -> Standings:
        parts, config = self._parts, self._config
        # Events count what is asked about in an examination: without them.
        none = MemoryFeedback()
        signals = Signals(none, config.signals)
        opener = ContextOpener(
            self._catalog_id, documents, parts.encoder, self._fields, none, signals, config
        )
        words = replace(self._prompt_config, guidance="", objective="")  # it is about the model
        examiner = Examiner(self._store, self._pool, opener, self._models, config, words)
        return Standings(self._catalog_id, documents, self._store, feedback, examiner)

    async def _recommend(
        self,
        request: RecommendRequest,
        notify: StepListener,
        shared_budget: SharedBudget | None,
        clock: StageClock,
        *,
        is_traced: bool,
    ) -> Recommendation:
        tree = await self._store.recent()
        request, page = await continued_request(
            self._documents, self._catalog_id, request, self._variants
        )
        weights = self._config.weights.times(factors_of(tree.space))
        varied = VariedRequest.of(request, weights, self._variants)
        context = await self._opener.open(varied, tree, clock, notify, self._event_rules)
        context = replace(context, is_traced=is_traced)
        notify(
            "start",
            {
                "recommendation_id": context.id,
                "tree_version": tree.version,
                "task": request.task,
                "variant": context.variant,
            },
        )
        if page is not None:
            return await self._next_page(replace(context, page=page), page)
        strategy = MODEL_STRATEGIES.get(context.request.strategy)
        if strategy is None or not self._models.configured or not context.allowed.any():
            return await self._answer(context, await embedded(context, self._parts))
        if strategy.is_examined and self._nothing_to_judge_by(context):
            return await self._answer(context, await embedded(context, self._parts))
        if self.standings is not None and strategy.is_examined:
            context = replace(context, standing=await self.standings.current())
            if context.standing is not None and not context.standing.is_asked:
                weak = replace(context, warnings=[*context.warnings, weak_model(context.standing)])
                return await self._answer(weak, await embedded(weak, self._parts))
        asking = await self._with_model(context, strategy, shared_budget)
        try:
            asking = await self._with_reply_mode(asking)
            return await self._answer(asking, await self._run_strategy(asking, strategy))
        except BaseException as error:  # the trace has the usage also of a failed request
            if len(self._traces) < _MOST_TRACES:
                outcome = type(error).__name__
                self._traces.start(self._keep_trace(asking, None, None, outcome))
            raise

    async def _next_page(self, context: RequestContext, page: Page) -> Recommendation:
        """What the answer before had ranked; no model is asked."""
        with context.clock.stage("search"):
            candidates = await page.candidates(
                self._pool, context.tree, context.need, context.allowed, context.wanted
            )
        return await self._answer(context, Outcome(context.need, candidates))

    def _nothing_to_judge_by(self, context: RequestContext) -> bool:
        """Whether nothing is known of the user or wanted by the owner: a model would guess."""
        asked = context.request.has_words or self._prompt_config.objective
        return context.need.is_empty and not asked

    async def _with_model(
        self, context: RequestContext, strategy: ModelStrategy, shared_budget: SharedBudget | None
    ) -> ModelContext:
        request = context.request
        effort = strategy.effort or effort_of(request.effort, has_words=request.has_words)
        ledger = open_ledger(
            request,
            self._models,
            effort=effort,
            seconds_spent=context.clock.timing()["total"] / 1000,
            shared_budget=shared_budget,
        )
        history = await history_of(request, context.tree, context.resolved, self._store)
        earned = 1.0 if context.standing is None else context.standing.factor
        weight = earned * context.weights.llm_weight
        return with_model(context, self._prompt_config, history, effort, ledger, weight)

    async def _with_reply_mode(self, context: ModelContext) -> ModelContext:
        """The context with the form in which the model replies."""
        budget = context.ledger.budget
        try:
            mode = await self._models.reply_mode(budget.seconds_left)
        except ModelUnavailable as error:
            context.ledger.fall_back("search", error)
            budget.calls_left = 0  # a model that does not answer a probe is not asked again
            return context
        budget.calls_left *= SLATE_WIDTH // mode.width  # narrow slates: more of them
        return context.in_mode(mode)

    async def _run_strategy(self, context: ModelContext, strategy: ModelStrategy) -> Outcome:
        try:
            return await strategy.run(context, self._parts)
        except UnsupportedReplyMode as error:
            if not self._models.probes:
                raise
            await self._models.forget_mode()
            context.ledger.fall_back("search", error)
            return await by_vectors_instead(context, self._parts)

    async def _answer(self, context: RequestContext, outcome: Outcome) -> Recommendation:
        answered = await answer(
            context, self._pool, self._fields, self._config.answer, self._catalog, outcome
        )
        await together(
            [
                self._keep_trace(context, outcome.candidates, answered, "done"),
                self._count(context, answered),
            ]
        )
        return answered

    async def _count(self, context: RequestContext, answered: Recommendation) -> None:
        """Count the answer, so that events may name it."""
        if self._attributor is None:
            return
        try:
            await self._attributor.keep(kept_of(context, answered))
        except (StoreUnavailable, CatalogDeleted) as error:  # no reason to withhold an answer
            logger.warning("what comes of %s cannot be counted: %s", context.id, error)

    async def _keep_trace(
        self,
        context: RequestContext,
        candidates: Candidates | None,
        answered: Recommendation | None,
        outcome: str,
    ) -> None:
        if not context.is_traced:
            return
        trace = trace_of(context, self._catalog, candidates, answered, outcome)
        name = f"{self._catalog_id}/{context.id}"
        try:
            await context.documents.put("trace", name, trace, self._config.answer.trace_ttl_s)
        except (StoreUnavailable, CatalogDeleted) as error:  # no reason to withhold an answer
            logger.warning("the trace of %s is not kept: %s", context.id, error)
