"""`Recommender`: the chain for one catalogue."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
import numpy as np
import numpy.typing as npt

from app.llm import Degraded, Models, ModelUnavailable
from app.llm.errors import UnsupportedReplyMode
from app.llm.slates import SLATE_WIDTH
from app.ranking import EmbeddedRanker, Need, diversified
from app.recommend.answer import Recommendation, RecommendedItem, SimilarItems
from app.recommend.baselines import PaperChain, flat
from app.recommend.candidates import SPARE, Candidates, Freshness, Pool, allowed_rows
from app.recommend.chain import Chain
from app.recommend.need import Known, disliked, path_name, understand
from app.recommend.reading import (
    Clock,
    Listener,
    Manner,
    Reading,
    history_of,
    open_account,
    open_reading,
)
from app.recommend.reasons import reasons
from app.recommend.request import HistoryEntry, RecommendRequest, field_of
from app.recommend.traces import trace_of, usage_of
from app.recommend.walk import Walk
from app.recommend.words import WordReader
from app.settings import Settings
from app.signals import OwnedDocuments, Signals
from tree.embedders import EmbedderCache
from tree.errors import StoreUnavailable
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.documents import Documents
from tree.store.feedback import Feedback, MemoryFeedback
from tree.store.protocol import TreeStore

logger = logging.getLogger(__name__)

_POOL = 5  # candidates per wanted item, from which the re-rank chooses


class DeadlineExceeded(Exception):
    """The request's `timeout_ms` ran out."""


@dataclass(slots=True)
class _Request:
    """A request under way, on one version of the tree."""

    asked: RecommendRequest
    tree: SemanticTree
    known: Known
    allowed: npt.NDArray[np.bool_]
    clock: Clock
    tell: Listener
    degraded: Degraded | None = None  # beside what went wrong with a model
    id: str = field(default_factory=lambda: f"rec_{secrets.token_urlsafe(12)}")
    reading: Reading | None = None  # with a model

    @property
    def need(self) -> Need:
        return self.reading.need if self.reading else self.known.need


class Recommender:
    """Answers readers of one catalogue. Holds no state of theirs."""

    def __init__(
        self,
        catalog: str,
        store: TreeStore,
        documents: Documents,
        embedders: EmbedderCache,
        settings: Settings,
        models: Models | None = None,
        manner: Manner | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._documents = documents
        self._words = WordReader(embedders, settings.embedder_timeout_s)
        self._settings = settings
        self._models = models or Models.none(documents)
        self._manner = manner or Manner(catalog)
        ranker = EmbeddedRanker(
            settings.sharpness,
            settings.popularity_weight,
            settings.exact_scan_items,
            settings.beam_leaves,
            settings.beam_breadth,
        )
        freshness = Freshness(settings.freshness_weight, settings.freshness_half_life_days)
        self._pool = Pool(store, ranker, freshness if freshness.weight else None)
        self._feedback = feedback or MemoryFeedback()
        self._signals = Signals(self._feedback, settings)
        self._traces: set[asyncio.Task[None]] = set()

    async def recommend(
        self, request: RecommendRequest, tell: Listener = lambda _, __: None
    ) -> Recommendation:
        """The chain, on one version of the tree; `tell` hears of every step.

        Raises DeadlineExceeded, AnswerDegraded, ModelRejected, StoreUnavailable.
        """
        try:
            async with asyncio.timeout(request.timeout_ms / 1000):
                return await self._recommend(request, tell)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no answer within {request.timeout_ms} ms: raise timeout_ms, or ask for less"
            ) from error

    async def similar(self, item_id: str, limit: int) -> SimilarItems | None:
        """The nearest neighbours of an item; None when there is none that may be shown."""
        tree = await self._store.recent()
        row = tree.row(item_id)
        if row is None or not await self._pool.shows(tree, row):
            return None
        label = path_name(tree.path(int(tree.rows.leaf[row])))
        need = Need(
            (),
            tree.rows.vectors[row : row + 1],
            np.ones(1, np.float32),
            np.zeros(1, np.int64),
            (label,),
        )
        allowed = allowed_rows(tree, (row,), (), None)
        found = await self._pool.best(tree, need, allowed, limit, None)
        chosen = await self._pool.live(tree, found.rows.tolist(), limit, None)
        items = [
            _item(tree, found, at, item, rank, ["title"], None)
            for rank, (at, item) in enumerate(chosen, 1)
        ]
        return SimilarItems(
            catalog=self._catalog, tree_version=tree.version, item_id=item_id, items=items
        )

    async def aclose(self) -> None:
        """Let go of what is done in the background; the stores stay open."""
        await asyncio.gather(*self._traces, return_exceptions=True)
        await self._signals.aclose()

    async def trace(self, recommendation_id: str) -> dict[str, object] | None:
        """How an answer came about; None when it is not kept (any more)."""
        data = await self._documents.get("trace", f"{self._catalog}/{recommendation_id}")
        return None if data is None else msgspec.json.decode(data)

    # -- the stages

    async def _recommend(self, asked: RecommendRequest, tell: Listener) -> Recommendation:
        clock = Clock()
        tree = await self._store.recent()
        asked = await self._remembered(asked)
        with clock.stage("profile"):
            words, degraded = await self._words.said(tree, asked)
            known = understand(tree, asked, words, self._settings)
        with clock.stage("search"):
            allowed = allowed_rows(tree, known.seen, asked.exclude_items, asked.domains)
            if unwanted := disliked(tree, known.need.dislikes):
                allowed &= ~np.isin(tree.rows.leaf[: tree.size], unwanted)
            known = await self._with_evidence(tree, asked, known)
        request = _Request(asked, tree, known, allowed, clock, tell, degraded)
        tell("start", {"recommendation_id": request.id, "tree_version": tree.version})
        try:
            found = await self._found(request)
            return await self._answered(request, found)
        except BaseException as error:
            if request.reading is not None:  # what was spent is told, whoever went away
                outcome = type(error).__name__
                task = asyncio.create_task(self._keep_trace(request, None, None, outcome))
                self._traces.add(task)
                task.add_done_callback(self._traces.discard)
            raise

    async def _remembered(self, asked: RecommendRequest) -> RecommendRequest:
        """The request with what is stored of its user, where it brings nothing of the kind."""
        if asked.user_id is None or (asked.history and asked.profile):
            return asked
        user = await self._feedback.user(asked.user_id)
        if user is None:
            return asked
        history = [HistoryEntry(item_id=visit.item_id) for visit in user.history]
        kept = {"history": asked.history or history, "profile": asked.profile or user.profile}
        return asked.model_copy(update={**kept, "profile": kept["profile"] or None})

    async def _with_evidence(
        self, tree: SemanticTree, asked: RecommendRequest, known: Known
    ) -> Known:
        """The need with what users' events say.

        What goes together with the history weighs as much as the history does in the need. Counts
        weigh the more, the less is known of the reader: a profile or few items fit much of a
        catalogue. A wish says what is wanted now, whatever others had.
        """
        newest = [entry.item_id for entry in reversed(asked.history) if entry.item_id]
        evidence = await self._signals.of(tree, newest)
        if evidence is None:
            return known
        need = known.need
        said = np.array([need.interests[int(owner)].said == "wish" for owner in need.owner], bool)
        wished = np.array([source == asked.instruction for source in need.sources], bool)
        unknown = (1 - float(need.weights[wished].sum())) / (1 + int((~said).sum()))
        evidence = evidence.weighed(
            history=1 - float(need.weights[said].sum()),
            prior=1 + (self._settings.cold_start_prior - 1) * unknown,
        )
        return replace(known, need=replace(need, evidence=evidence))

    async def _found(self, request: _Request) -> Candidates:
        """The candidates, best first: by a model where there is one and it was asked for."""
        asked = request.asked
        wanted = self._wanted(asked)
        needs_model = self._models.configured and request.allowed.any()
        if asked.strategy == "embedded" or not needs_model:
            with request.clock.stage("search"):
                return await self._pool.best(
                    request.tree, request.need, request.allowed, wanted, asked.filter
                )
        spent = request.clock.timing()["total"] / 1000
        account = open_account(asked, self._models, seconds_spent=spent)
        history = await history_of(asked, request.tree, request.known, self._store)
        reading = request.reading = open_reading(
            self._manner,
            asked,
            request.tree,
            request.known,
            request.allowed,
            history,
            account,
            request.tell,
        )
        reading.clock = request.clock
        try:
            reading.mode = await self._models.reply_mode(account.budget.seconds_left)
            account.budget.calls_left *= SLATE_WIDTH // reading.mode.width  # narrow: more slates
        except ModelUnavailable as error:
            account.fall_back("search", error)
            account.budget.calls_left = 0  # what does not answer a probe is not asked again
        try:
            return await self._asked(reading, asked, wanted)
        except UnsupportedReplyMode as error:
            if not self._models.probes:
                raise
            await self._models.forget_mode()
            account.fall_back("search", error)
            return await self._pool.best(
                request.tree, request.need, request.allowed, wanted, asked.filter
            )

    async def _asked(self, reading: Reading, asked: RecommendRequest, wanted: int) -> Candidates:
        if asked.strategy == "paper":
            k = self._manner.items_per_leaf
            return await PaperChain(reading, self._pool, k).run(asked.limit)
        if asked.strategy == "flat":
            return await flat(reading, self._pool, wanted)
        return await self._chain(reading, asked).run(wanted)

    def _documents_of(self, asked: RecommendRequest) -> Documents:
        """Where documents are kept that must go when the user does."""
        if asked.user_id is None:
            return self._documents
        return OwnedDocuments(self._documents, self._feedback, asked.user_id)

    def _chain(self, reading: Reading, asked: RecommendRequest) -> Chain:
        settings, documents = self._settings, self._documents_of(asked)
        walk = Walk(
            reading,
            self._pool,
            documents,
            partial(self._words.read, reading.tree, asked),
            branches=settings.llm_branches,
            anchors=settings.llm_anchors,
            profile_ttl_s=settings.profile_ttl_s,
        )
        return Chain(
            reading,
            self._pool,
            walk,
            model_weight=settings.llm_weight,
            anchors=settings.llm_anchors,
        )

    async def _answered(self, request: _Request, found: Candidates) -> Recommendation:
        asked, tree, clock = request.asked, request.tree, request.clock
        with clock.stage("rerank"):
            order = self._order(request, found)
        with clock.stage("recall"):
            rows = found.rows[order].tolist()
            live = await self._pool.live(tree, rows, asked.limit, asked.filter)
            chosen = [(order[at], item) for at, item in live]
            shown = [int(found.rows[at]) for at, _ in chosen]
            why = await reasons(
                tree, request.need, shown, asked.explain, self._store, self._settings.sharpness
            )
        account = request.reading.account if request.reading else None
        degraded = request.degraded or (account.degraded if account else None)
        answer = Recommendation(
            recommendation_id=request.id,
            catalog=self._catalog,
            tree_version=tree.version,
            items=[
                _item(tree, found, at, item, rank, asked.fields, reason)
                for rank, ((at, item), reason) in enumerate(zip(chosen, why, strict=True), 1)
            ],
            degraded=degraded is not None,
            degraded_reason=degraded,
            absent_items=list(request.known.absent),
            usage=usage_of(account),
            timing_ms=clock.timing(),
        )
        await self._keep_trace(request, found, answer, "done")
        return answer

    def _order(self, request: _Request, found: Candidates) -> list[int]:
        """Positions of all candidates in the order of the answer, with diversity at its top."""
        if request.asked.strategy == "paper" and request.reading is not None:
            return list(range(len(found.rows)))  # the model has put them in order
        first = diversified(
            request.tree,
            found.rows,
            found.scores,
            self._diversity(request.asked),
            request.asked.limit,
            spare=SPARE,
        )
        return list(dict.fromkeys([*first, *range(len(found.rows))]))

    def _diversity(self, asked: RecommendRequest) -> float:
        return self._settings.diversity if asked.diversity is None else asked.diversity

    def _wanted(self, asked: RecommendRequest) -> int:
        if not self._diversity(asked):
            return asked.limit + SPARE
        return max(50, _POOL * asked.limit)

    async def _keep_trace(
        self,
        request: _Request,
        found: Candidates | None,
        answer: Recommendation | None,
        outcome: str,
    ) -> None:
        asked, reading = request.asked, request.reading
        about = {
            "recommendation_id": request.id,
            "catalog": self._catalog,
            "tree_version": request.tree.version,
            "user_id": asked.user_id,
            "scenario": asked.scenario,
            "outcome": outcome,
            "strategy": asked.strategy if reading else "embedded",
            "effort": asked.effort if reading else None,
        }
        trace = trace_of(about, request.need, found, answer, reading, request.clock.timing())
        name = f"{self._catalog}/{request.id}"
        try:
            documents = self._documents_of(asked)
            await documents.put("trace", name, trace, self._settings.trace_ttl_s)
        except StoreUnavailable as error:  # no reason to withhold an answer
            logger.warning("the trace of %s is not kept: %s", request.id, error)


def _item(
    tree: SemanticTree,
    found: Candidates,
    at: int,
    item: Item,
    rank: int,
    fields: Sequence[str],
    reason: str | None,
) -> RecommendedItem:
    leaf = int(tree.rows.leaf[found.rows[at]])
    values = {name: field_of(item, name) for name in fields}
    return RecommendedItem(
        item_id=item.id,
        rank=rank,
        score=round(float(found.scores[at]), 4),
        fields={name: value for name, value in values.items() if value is not None},
        path=[node.label for node in tree.path(leaf)],
        reason=reason,
    )
