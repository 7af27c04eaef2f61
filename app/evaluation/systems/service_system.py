"""`ServiceSystem`: the service's `Recommender`, called in process on a tree for the evaluation."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from app.curate.building import ListSource, build
from app.embedders import DEFAULT_EMBEDDER, EmbedderCache
from app.evaluation.case import Query, Training
from app.evaluation.dataset import DataError
from app.evaluation.protocols import training_share
from app.evaluation.systems.replay import Replay
from app.evaluation.systems.scoring_baseline import Progress
from app.evaluation.systems.tuned_tree import tuned_tree
from app.event_types import EventRules
from app.jobs import JobReport
from app.llm import Models
from app.options import EffortName, StrategyName, TaskName
from app.recommend import (
    PromptConfig,
    Recommendation,
    RecommendConfig,
    Recommender,
    RecommendRequest,
)
from app.settings import Settings
from app.signals import UserHistory, count_events
from app.storage.documents import MemoryDocuments
from app.storage.keys import DocumentKind
from app.storage.memory_feedback import MemoryFeedback
from prompts import Perspective
from tree.blas import use_one_blas_thread
from tree.item import Item
from tree.node import TreeSettings
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore

OnAnswer = Callable[[str, Query, Recommendation], None]

_CATALOG = "evaluation"  # part of the seed that is sent to a model
_MAX_HISTORY = 10_000  # of a request
_MAX_LIMIT = 100  # of a request
_TIMEOUT_MS = 600_000  # an evaluation waits for its answers
_CACHED_EXCLUSIONS = 64
_PATIENCE_S = 600.0
_PROGRESS_EVERY = 1_000  # users
_DAY_S = 86_400
_ALL_COUNTS = 1_000_000_000  # are the newest in an evaluation


@dataclass(slots=True)
class Trees:
    """The trees of one run, one per embedder; systems with the same embedder share one."""

    embedders: EmbedderCache = field(default_factory=EmbedderCache)
    _built: dict[str, tuple[Sequence[Item], MemoryTreeStore]] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def of(self, items: Sequence[Item], embedder: str) -> MemoryTreeStore:
        """A store that holds the items and their tree. Raises EmbedderUnavailable."""
        async with self._lock:
            known = self._built.get(embedder)
            if known is not None and known[0] is items:
                return known[1]
            tree = await build(
                ListSource(items),
                TreeSettings(embedder=embedder),
                JobReport.unwatched(),
                embedders=self.embedders,
            )
            store = await _stored(items, tree)
            self._built[embedder] = items, store
            return store

    async def tuned(
        self,
        items: Sequence[Item],
        embedder: str,
        histories: Sequence[Sequence[str]],
        settings: Settings,
        progress: Callable[[float], None],
    ) -> MemoryTreeStore:
        """The same with vectors that have learned from histories, where that wins."""
        before = await (await self.of(items, embedder)).load()
        tree = await tuned_tree(before, items, histories, self.embedders, settings, progress)
        return await _stored(items, tree)

    async def leaves(self, items: Sequence[Item]) -> Callable[[], dict[str, str]]:
        """A function that gives the leaf of each item, by id, in the tree with default vectors."""
        tree = await (await self.of(items, DEFAULT_EMBEDDER)).load()
        return lambda: {
            tree.rows.id(row): str(leaf.id) for leaf in tree.leaves() for row in leaf.rows.tolist()
        }


async def _stored(items: Sequence[Item], tree: SemanticTree) -> MemoryTreeStore:
    store = MemoryTreeStore(space=tree.space, settings=tree.settings)
    await store.stage(items)
    await store.replace(tree, base=0)
    return store


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """The request options of one system; None means the default of the settings."""

    strategy: StrategyName
    embedder: str = DEFAULT_EMBEDDER
    effort: EffortName = "auto"
    diversity: float | None = None
    fold: bool = True  # whether near-duplicates appear once
    exact_words: float | None = None
    task: TaskName = "recommend"
    perspective: Perspective | None = None
    k: int | None = None  # items from each leaf, with the strategy `paper`
    tuned: bool = False  # whether the vectors have learned from the training users
    signals: bool = False  # whether events of the training users are part of the score
    share: float = 1.0  # of these users
    # Events come in the order of their times, and fade; 0: they do not. Each query is asked at its
    # own time.
    half_life_days: float | None = None
    popularity_weight: float | None = None
    cooccurrence_weight: float | None = None
    seed: int = 0


class ServiceSystem:
    """See System. Answers many queries concurrently, as the service does.

    `on_answer` is called with each answer, which holds its usage and timing. Where a query has
    candidates, all other items are excluded, so a model never sees them. `degraded` counts the
    answers that the embedded ranker gave because a model failed.
    """

    def __init__(
        self,
        name: str,
        options: ServiceOptions,
        settings: Settings,
        trees: Trees,
        models: Models | None = None,
        on_answer: OnAnswer = lambda _, __, ___: None,
        progress: Progress = lambda _, __: None,
    ) -> None:
        self.name = name
        self.degraded = 0
        self._options = options
        weights = {
            "exact_words": options.exact_words,
            "popularity_weight": options.popularity_weight,
            "cooccurrence_weight": options.cooccurrence_weight,
        }
        given = {name: value for name, value in weights.items() if value is not None}
        # A busy machine must not change the figures: an evaluation waits for its vectors.
        self._settings = settings.model_copy(update={"embedder_timeout_s": _PATIENCE_S, **given})
        self._trees = trees
        self._models = models
        self._heard = on_answer
        self._progress = progress
        self._free = asyncio.Semaphore(settings.llm_concurrency)
        self._items: Sequence[Item] = ()
        self._exclusions: dict[tuple[str, ...], list[str]] = {}
        self._recommender: Recommender | None = None
        self._replay: Replay | None = None

    async def fit(self, training: Training) -> None:
        """See System. Builds the tree. Raises DataError where events need times and lack them."""
        self._store = await self._store_of(training)
        self._items, self._exclusions = training.items, {}
        options, feedback = self._options, None
        users = training_share(training, options.share, options.seed)
        if options.half_life_days is not None:
            self._replay = Replay(users, self._half_life_s)
            feedback = self._replay.feedback
        elif options.signals:
            feedback = await self._feedback_of(users, await self._store.load())
        self._recommender = self._opened(feedback)

    @property
    def _half_life_s(self) -> float | None:
        days = self._options.half_life_days
        return days * _DAY_S if days else None

    def _opened(self, feedback: MemoryFeedback | None) -> Recommender:
        config, k, replay = RecommendConfig.of(self._settings), self._options.k, self._replay
        if replay is not None:
            signals = replace(
                config.signals,
                newest_counts=_ALL_COUNTS,
                clock=lambda: replay.now,
                half_life_s=self._half_life_s,
            )
            config = replace(config, signals=signals)
        return Recommender(
            _CATALOG,
            self._store,
            _Untraced(),
            self._trees.embedders,
            config,
            self._models,
            PromptConfig(_CATALOG) if k is None else PromptConfig(_CATALOG, items_per_leaf=k),
            feedback,
        )

    async def _store_of(self, training: Training) -> MemoryTreeStore:
        options = self._options
        if not options.tuned:
            return await self._trees.of(training.items, options.embedder)
        users = training_share(training, options.share, options.seed).users
        return await self._trees.tuned(
            training.items,
            options.embedder,
            [user.history for user in users],
            self._settings,
            partial(self._progress, self.name),
        )

    async def _feedback_of(self, training: Training, tree: SemanticTree) -> MemoryFeedback:
        """Feedback as the service counts it when it receives each event."""
        feedback = MemoryFeedback()
        now = time.time_ns() // 1_000
        users = training.users
        for done, user in enumerate(users, 1):
            known = UserHistory(user_id=user.id, history=list(user.history))
            await count_events(feedback, tree, list(known.events(now)), EventRules())
            if not done % _PROGRESS_EVERY:
                self._progress(self.name, done / len(users))
                await asyncio.sleep(0)
        return feedback

    async def rank(self, queries: Sequence[Query], limit: int) -> list[list[str]]:
        """See System."""
        if self._replay is not None:
            return await self._ranked_in_time(queries, limit, self._replay)
        answers = []
        step = 16 * self._settings.llm_concurrency  # to bound the number of tasks
        use_one_blas_thread()
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            answers += await asyncio.gather(*(self._answer(one, limit) for one in some))
        return answers

    async def _ranked_in_time(
        self, queries: Sequence[Query], limit: int, replay: Replay
    ) -> list[list[str]]:
        """Answers to queries that are asked one after another, each at its own time."""
        if any(query.at is None for query in queries):
            raise DataError(f"{self.name}: this protocol does not say when its queries are asked")
        answers: list[list[str]] = [[] for _ in queries]
        use_one_blas_thread()
        for place in sorted(range(len(queries)), key=lambda place: queries[place].at or 0.0):
            at = queries[place].at or 0.0
            if at < replay.now:
                replay.restart()
                self._recommender = self._opened(replay.feedback)
            await replay.go_on(at)
            answers[place] = await self._answer(queries[place], limit)
        return answers

    async def aclose(self) -> None:
        """See System."""
        self._recommender = None

    async def _answer(self, query: Query, limit: int) -> list[str]:
        if self._recommender is None:
            raise RuntimeError("fit comes before rank")
        async with self._free:
            answer = await self._recommender.recommend(self._request(query, limit))
        self.degraded += answer.degraded
        self._heard(self.name, query, answer)
        return [item.item_id for item in answer.items]

    def _request(self, query: Query, limit: int) -> RecommendRequest:
        options = self._options
        if options.task == "search" and not query.wish:
            raise DataError(f"{self.name}: a search needs wishes; `evaluate wishes` has them")
        newest = query.history[-_MAX_HISTORY:]
        if query.candidates is not None:
            limit = max(1, min(limit, len(query.candidates)))
        request = RecommendRequest.model_validate(
            {
                "user_id": None,  # the query holds all that may be known of a user
                "history": [{"item_id": item} for item in newest],
                "profile": query.profile or None,
                "instruction": query.wish or None,
                "limit": min(limit, _MAX_LIMIT),
                "diversity": options.diversity,
                "fold": options.fold and query.candidates is None,
                "task": options.task,
                "exclude_history": True,  # no protocol allows these items
                "perspective": options.perspective,
                "strategy": options.strategy,
                "effort": options.effort,
                "explain": "none",
                "timeout_ms": _TIMEOUT_MS,
            }
        )
        excluded = [*query.history[:-_MAX_HISTORY], *query.excluded]
        if query.candidates is not None:
            excluded += self._others(query.candidates)
        # A copy is not validated, so it may exceed the limits of the API.
        return request.model_copy(update={"exclude_items": excluded, "limit": limit})

    def _others(self, candidates: tuple[str, ...]) -> list[str]:
        known = self._exclusions.get(candidates)
        if known is None:
            allowed = frozenset(candidates)
            known = [item.id for item in self._items if item.id not in allowed]
            self._exclusions[candidates] = known
            while len(self._exclusions) > _CACHED_EXCLUSIONS:
                del self._exclusions[next(iter(self._exclusions))]
        return known


class _Untraced(MemoryDocuments):
    """Documents without traces, which would fill the memory."""

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """See Documents."""
        if kind != "trace":
            await super().put(kind, document_id, data, ttl_s)
