"""`RequestContext`: one request on one version of the tree; `ModelContext` can ask a model, too."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256

import msgspec

from app.budget import Budget, SharedBudget
from app.llm import Degraded, Models, ReplyMode, RequestLedger
from app.rank_weights import RankWeights
from app.ranking import ModelRanker, Need
from app.recommend.columns import Mask
from app.recommend.effort import Effort
from app.recommend.history import History
from app.recommend.pages import Page
from app.recommend.request import RecommendRequest
from app.recommend.resolve import ResolvedRequest, path_name
from app.recommend.response import AnswerWarning
from app.recommend.standing.standing import Standing
from app.registry import RegistryEntry
from app.storage.documents import Documents
from prompts import Perspective, Prompt, load, owner_note
from tree.snapshot import SemanticTree
from tree.store.protocol import ItemRecords

ITEMS_PER_LEAF = 5  # the paper's k (§3.1.3)
_EARLIER = 5  # categories that stand for a history's older part
_DISLIKED = 5  # titles that a prompt names
_RESERVED, _RESERVED_S = (
    0.3,
    0.2,
)  # share of the time, and most, that is kept for an answer without the model

StepListener = Callable[[str, dict[str, object]], None]


@dataclass(slots=True)
class StageClock:
    """Milliseconds per stage."""

    began: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - start) * 1000
            self.stages[name] = round(self.stages.get(name, 0.0) + spent, 3)

    def timing(self) -> dict[str, float]:
        return {**self.stages, "total": round((time.perf_counter() - self.began) * 1000, 3)}


@dataclass(slots=True)
class ChainRecord:
    """What the stages have done so far, for the trace."""

    need: Need
    expected: Sequence[str] = ()
    nodes: list[dict[str, object]] = field(default_factory=list)
    candidates: int = 0
    page: Page | None = None  # what comes after this answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The data of one request that all stages share. It never changes: a stage returns its results.

    The answer is chosen from `wanted` candidates. `documents` holds documents that are deleted when
    the user is erased. `page` is what the pages before have left. `degraded` is a reason other than
    a model's failure. `standing` is the model's, where it is known.
    """

    id: str
    request: RecommendRequest
    tree: SemanticTree
    resolved: ResolvedRequest
    allowed: Mask
    wanted: int
    variant: str
    documents: Documents
    clock: StageClock
    notify: StepListener
    record: ChainRecord
    warnings: Sequence[AnswerWarning] = ()
    degraded: Degraded | None = None
    standing: Standing | None = None
    page: Page | None = None
    is_traced: bool = True

    @property
    def need(self) -> Need:
        return self.resolved.need

    @property
    def weights(self) -> RankWeights:
        """What counts how much in this answer."""
        return self.need.rank_weights

    def notify_candidates(self, count: int) -> None:
        """Notify the listener of the number of candidates."""
        self.record.candidates = count
        self.notify("candidates", {"count": count})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContext(RequestContext):
    """A request whose stages may ask a model, on one budget.

    `model_weight` is what its scores weigh in a fusion, 0 … 1; the embedded ranker's have the rest.
    """

    history: History
    effort: Effort
    perspective: Perspective
    language: str
    items_per_leaf: int
    seed: int
    ledger: RequestLedger
    model_weight: float
    mode: ReplyMode = ReplyMode.JSON_SCHEMA
    guidance: str = ""
    objective: str = ""

    @property
    def model_ranker(self) -> ModelRanker:
        return ModelRanker(self.ledger, self.mode)

    def prompt(self, name: str) -> Prompt:
        """The prompt of that name in words for the task, with those of the catalogue's owner."""
        # What a user looks for is no question of what the owner wants.
        objective = "" if name.startswith("expect_") else self.objective
        return load(name, self.perspective, self.request.task).with_note(
            owner_note(self.guidance, objective)
        )

    def in_mode(self, mode: ReplyMode) -> "ModelContext":
        """The same request, with a model that replies in this form."""
        return replace(self, mode=mode)


@dataclass(frozen=True, slots=True)
class PromptConfig:
    """The wording of a catalogue's prompts; `guidance` and `objective` are its owner's words."""

    catalog: str
    perspective: Perspective = "interest"
    language: str = "en"
    guidance: str = ""
    objective: str = ""
    items_per_leaf: int = ITEMS_PER_LEAF  # of the strategy `paper`

    @classmethod
    def of(cls, entry: RegistryEntry) -> "PromptConfig":
        """The wording that the settings of a catalogue ask for."""
        chosen = entry.settings
        return cls(
            entry.name, chosen.perspective, chosen.language, chosen.guidance, chosen.objective
        )


def open_ledger(
    request: RecommendRequest,
    models: Models,
    *,
    effort: Effort,
    seconds_spent: float,
    shared_budget: SharedBudget | None = None,
) -> RequestLedger:
    """A ledger with the limits of the request, at most those of the settings and of the effort.

    `shared_budget` is the budget of the caller for all their requests.
    """
    timeout_s = request.timeout_ms / 1000
    costs = (request.max_cost_usd, models.max_cost_usd)
    budget = Budget(
        effort.limits.calls,
        min(models.max_tokens, effort.limits.tokens * models.room),
        min((cost for cost in costs if cost is not None), default=math.inf),
        time.monotonic() + timeout_s - min(_RESERVED_S, _RESERVED * timeout_s) - seconds_spent,
    )
    return RequestLedger(
        models.of,
        models.timeout_s,
        budget,
        models.endpoint,
        strict=request.on_degraded == "error",
        shared_budget=shared_budget,
    )


def with_model(
    context: RequestContext,
    config: PromptConfig,
    history: History,
    effort: Effort,
    ledger: RequestLedger,
    model_weight: float,
) -> ModelContext:
    """The request with a model. The same version, user and request give the same seed."""
    request = context.request
    who = request.user_id or msgspec.json.encode(history)
    seed = sha256(f"{config.catalog}\0{context.tree.version}\0{who!r}".encode()).digest()[:4]
    known = {one.name: getattr(context, one.name) for one in fields(context)}
    return ModelContext(
        **known,
        history=history,
        effort=effort,
        perspective=request.perspective or config.perspective,
        language=config.language,
        items_per_leaf=config.items_per_leaf,
        seed=int.from_bytes(seed),
        ledger=ledger,
        model_weight=model_weight,
        guidance=config.guidance,
        objective=config.objective,
    )


async def history_of(
    request: RecommendRequest, tree: SemanticTree, resolved: ResolvedRequest, store: ItemRecords
) -> History:
    """The choices behind the need's directions, in their order, and earlier ones."""
    need = resolved.need
    sources = [
        direction.source
        for direction in need.directions
        if need.interest_of(direction).origin != "wish"
    ]
    titles = await _titles(tree, [*sources, *resolved.disliked[:_DISLIKED]], store)
    ids = {source for source in sources if source in tree}
    latest = {tree.row(source) for source in ids}
    older = [row for row in resolved.seen if row not in latest]
    leaves = tree.rows.leaf[older].tolist()
    names = {leaf: path_name(tree.path(leaf)) for leaf in set(leaves)}
    earlier = Counter(names[leaf] for leaf in leaves)
    return History(
        tuple(titles[: len(sources)]),
        tuple(name for name, _ in earlier.most_common(_EARLIER)),
        tuple(text for text in (request.profile, request.instruction) if text),
        tuple(titles[len(sources) :]) or msgspec.UNSET,
    )


async def _titles(tree: SemanticTree, sources: Sequence[str], store: ItemRecords) -> list[str]:
    """The titles of ids of items; other sources are titles themselves.

    An item that is hidden or has just left is shown by its path: its title must not be seen.
    """
    ids = {source for source in sources if source in tree}
    records, now = await store.items(ids), time.time()
    return [
        records[source].title
        if source in records and records[source].is_shown(now)
        else path_name(tree.path(int(tree.rows.leaf[tree.row(source) or 0])))
        if source in ids
        else source
        for source in sources
    ]
