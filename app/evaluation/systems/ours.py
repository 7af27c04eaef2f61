"""Ours: the service's own `Recommender`, asked in process, over a tree built for the evaluation."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.curate.building import Listed, build
from app.evaluation.blas import one_thread
from app.evaluation.case import Question, Training
from app.evaluation.protocols import training_share
from app.evaluation.systems.scored import Progress
from app.jobs import Report
from app.llm import Models
from app.recommend import Manner, Recommendation, Recommender, RecommendRequest
from app.recommend.effort import EffortName
from app.settings import Settings
from app.signals import UserHistory, feed
from prompts import Perspective
from tree.embedders import EmbedderCache
from tree.item import Item
from tree.node import LEXICAL, TreeSettings
from tree.snapshot import SemanticTree
from tree.store.documents import MemoryDocuments
from tree.store.feedback import MemoryFeedback
from tree.store.keys import DocumentKind
from tree.store.memory import MemoryTreeStore

Strategy = Literal["beam", "paper", "flat", "embedded"]
Heard = Callable[[str, Question, Recommendation], None]

_CATALOG = "evaluation"  # part of the seed with which a model is asked
_LONGEST_HISTORY = 10_000  # of a request
_MOST_LIMIT = 100  # … that it may state
_TIMEOUT_MS = 600_000  # an evaluation waits for its answers
_KEPT_BOUNDS = 64
_TOLD_EVERY = 1_000  # readers


@dataclass(slots=True)
class Trees:
    """The catalogues of one run, one for each embedder: systems that differ in how they ask
    share them."""

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
                Listed(items),
                TreeSettings(embedder=embedder),
                Report.unwatched(),
                embedders=self.embedders,
            )
            store = MemoryTreeStore(space=tree.space, settings=tree.settings)
            await store.stage(items)
            await store.replace(tree, base=0)
            self._built[embedder] = items, store
            return store

    async def leaves(self, items: Sequence[Item]) -> Callable[[], dict[str, str]]:
        """Gives the leaf of every item in the tree with the default vectors, by id."""
        tree = await (await self.of(items, LEXICAL)).load()
        return lambda: {
            tree.rows.id(row): str(leaf.id) for leaf in tree.leaves() for row in leaf.rows.tolist()
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """How one system asks; what is None is the settings'."""

    strategy: Strategy
    embedder: str = LEXICAL
    effort: EffortName = "balanced"
    diversity: float | None = None
    perspective: Perspective | None = None
    k: int | None = None  # items from every leaf, with the strategy `paper`
    signals: bool = False  # whether what readers of the training did is a part of the score
    share: float = 1.0  # of these readers
    seed: int = 0


class Ours:
    """See System. Many questions are under way at once, as in the service.

    `heard` is told every answer with its usage and timing. Candidates bound an answer by leaving
    all other items out, which a model never sees then. `degraded` counts the answers for which a
    model failed and the embedded ranker stood in.
    """

    def __init__(
        self,
        name: str,
        asked: Asked,
        settings: Settings,
        trees: Trees,
        models: Models | None = None,
        heard: Heard = lambda _, __, ___: None,
        progress: Progress = lambda _, __: None,
    ) -> None:
        self.name = name
        self.degraded = 0
        self._asked = asked
        self._settings = settings
        self._trees = trees
        self._models = models
        self._heard = heard
        self._progress = progress
        self._free = asyncio.Semaphore(settings.llm_concurrency)
        self._items: Sequence[Item] = ()
        self._bounds: dict[tuple[str, ...], list[str]] = {}
        self._recommender: Recommender | None = None

    async def fit(self, training: Training) -> None:
        """See System. Builds the tree."""
        store = await self._trees.of(training.items, self._asked.embedder)
        asked = self._asked
        self._items, self._bounds = training.items, {}
        self._recommender = Recommender(
            _CATALOG,
            store,
            _Untraced(),
            self._trees.embedders,
            self._settings,
            self._models,
            Manner(_CATALOG) if asked.k is None else Manner(_CATALOG, items_per_leaf=asked.k),
            await self._fed(training, await store.load()) if asked.signals else None,
        )

    async def _fed(self, training: Training, tree: SemanticTree) -> MemoryFeedback:
        """What the service would have counted, had it been told of every event as it came."""
        feedback = MemoryFeedback()
        now = time.time_ns() // 1_000
        readers = training_share(training, self._asked.share, self._asked.seed).readers
        for done, reader in enumerate(readers, 1):
            known = UserHistory(user_id=reader.id, history=list(reader.history))
            await feed(feedback, tree, list(known.events(now)))
            if not done % _TOLD_EVERY:
                self._progress(self.name, done / len(readers))
                await asyncio.sleep(0)
        return feedback

    async def rank(self, questions: Sequence[Question], limit: int) -> list[list[str]]:
        """See System."""
        answers = []
        step = 16 * self._settings.llm_concurrency  # not a task for each of a million readers
        with one_thread():
            for start in range(0, len(questions), step):
                some = questions[start : start + step]
                answers += await asyncio.gather(*(self._answer(one, limit) for one in some))
        return answers

    async def aclose(self) -> None:
        """See System."""
        self._recommender = None

    async def _answer(self, question: Question, limit: int) -> list[str]:
        if self._recommender is None:
            raise RuntimeError("fit comes before rank")
        async with self._free:
            answer = await self._recommender.recommend(self._request(question, limit))
        self.degraded += answer.degraded
        self._heard(self.name, question, answer)
        return [item.item_id for item in answer.items]

    def _request(self, question: Question, limit: int) -> RecommendRequest:
        asked = self._asked
        newest = question.history[-_LONGEST_HISTORY:]
        if question.candidates is not None:
            limit = max(1, min(limit, len(question.candidates)))
        request = RecommendRequest.model_validate(
            {
                "user_id": None,  # all that may be known of a reader is in the question
                "history": [{"item_id": item} for item in newest],
                "profile": question.profile or None,
                "limit": min(limit, _MOST_LIMIT),
                "diversity": asked.diversity,
                "perspective": asked.perspective,
                "strategy": asked.strategy,
                "effort": asked.effort,
                "explain": "none",
                "timeout_ms": _TIMEOUT_MS,
            }
        )
        left_out = [*question.history[:-_LONGEST_HISTORY], *question.excluded]
        if question.candidates is not None:
            left_out += self._all_but(question.candidates)
        # Beyond the most that the API takes: a copy is not validated.
        return request.model_copy(update={"exclude_items": left_out, "limit": limit})

    def _all_but(self, candidates: tuple[str, ...]) -> list[str]:
        known = self._bounds.get(candidates)
        if known is None:
            kept = frozenset(candidates)
            known = [item.id for item in self._items if item.id not in kept]
            self._bounds[candidates] = known
            while len(self._bounds) > _KEPT_BOUNDS:
                del self._bounds[next(iter(self._bounds))]
        return known


class _Untraced(MemoryDocuments):
    """Keeps no traces: an evaluation would fill the memory with them."""

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """See Documents."""
        if kind != "trace":
            await super().put(kind, document_id, data, ttl_s)
