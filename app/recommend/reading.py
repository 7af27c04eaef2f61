"""`Reading`: a request as the chain sees it, on one version of the tree and one budget."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec
import numpy as np
import numpy.typing as npt

from app.budget import Budget
from app.llm import Account, Models, ReplyMode
from app.ranking import Need
from app.recommend.effort import EFFORTS, Effort
from app.recommend.lines import need_lines
from app.recommend.need import Known, path_name
from app.recommend.profile import History, Topics
from app.recommend.request import Filter, RecommendRequest
from prompts import Perspective
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

ITEMS_PER_LEAF = 5  # the paper's k (§3.1.3)
_RECENT = 5  # titles repeated in every prompt: the last few do as well as fifty (LLMRank)
_EARLIER = 5  # categories that stand for a history's older part
_COMPARED_CALLS, _COMPARED_TOKENS = 200, 2_000_000  # for the strategies to compare with
_KEPT_BACK, _KEPT_BACK_S = 0.3, 0.2  # of the time, at most, for an answer without the model

Listener = Callable[[str, dict[str, object]], None]


@dataclass(slots=True)
class Clock:
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
class Reading:
    """A request as the chain sees it, on one version of the tree."""

    tree: SemanticTree
    need: Need
    history: History
    allowed: npt.NDArray[np.bool_]
    passes: Filter | None
    effort: Effort
    perspective: Perspective
    language: str
    limit: int
    seed: int
    account: Account
    tell: Listener
    clock: Clock = field(default_factory=Clock)
    mode: ReplyMode = ReplyMode.JSON_SCHEMA
    topics: Topics | None = None
    offered: list[dict[str, object]] = field(default_factory=list)
    candidates: int = 0

    def need_text(self) -> str:
        """The description of the person, for the end of a prompt."""
        interests = [(interest.name, interest.weight) for interest in self.need.interests]
        avoid = [*self.need.dislikes, *(self.topics.avoid if self.topics else ())]
        return need_lines(interests, self.history.choices[:_RECENT], self.history.wishes, avoid)

    def tell_profile(self) -> None:
        """Say what the reader is taken to look for."""
        told = [
            {"name": interest.name, "weight": round(interest.weight, 4)}
            for interest in self.need.interests
        ]
        by = "embedded" if self.topics is None else "model"
        self.tell("profile", {"interests": told, "by": by})

    def tell_candidates(self, count: int) -> None:
        """Say how many items are looked at."""
        self.candidates = count
        self.tell("candidates", {"count": count})

    def columns(self) -> list[str]:
        """The interests for which options are judged apart.

        One alone is named, too: the words that ask for it are the same for all readers then.
        """
        return [interest.name for interest in self.need.interests]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a catalogue is talked about with a model."""

    catalog: str
    perspective: Perspective = "interest"
    language: str = "en"
    items_per_leaf: int = ITEMS_PER_LEAF  # of the strategy `paper`


def open_account(asked: RecommendRequest, models: Models, *, seconds_spent: float) -> Account:
    """An account with what the request allows, and no more than its effort."""
    effort = EFFORTS[asked.effort]
    compared = asked.strategy in ("paper", "flat")
    timeout_s = asked.timeout_ms / 1000
    limits = (asked.max_cost_usd, models.max_cost_usd)
    budget = Budget(
        _COMPARED_CALLS if compared else effort.calls,
        min(models.max_tokens, _COMPARED_TOKENS if compared else effort.tokens),
        min((limit for limit in limits if limit is not None), default=math.inf),
        time.monotonic() + timeout_s - min(_KEPT_BACK_S, _KEPT_BACK * timeout_s) - seconds_spent,
    )
    return Account(
        models.of, models.timeout_s, budget, models.endpoint, strict=asked.on_degraded == "error"
    )


def open_reading(
    manner: Manner,
    asked: RecommendRequest,
    tree: SemanticTree,
    known: Known,
    allowed: npt.NDArray[np.bool_],
    history: History,
    account: Account,
    tell: Listener,
) -> Reading:
    """The request as the chain sees it. The same version, reader and request: the same seed."""
    who = asked.user_id or msgspec.json.encode(history)
    seed = sha256(f"{manner.catalog}\0{tree.version}\0{who!r}".encode()).digest()[:4]
    return Reading(
        tree=tree,
        need=known.need,
        history=history,
        allowed=allowed,
        passes=asked.filter,
        effort=EFFORTS[asked.effort],
        perspective=asked.perspective or manner.perspective,
        language=manner.language,
        limit=asked.limit,
        seed=int.from_bytes(seed),
        account=account,
        tell=tell,
    )


async def history_of(
    asked: RecommendRequest, tree: SemanticTree, known: Known, store: TreeStore
) -> History:
    """The choices behind the need's directions, in their order, and what came before."""
    need = known.need
    sources = [
        source
        for source, owner in zip(need.sources, need.owner, strict=True)
        if need.interests[int(owner)].said != "wish"
    ]
    ids = {source for source in sources if source in tree}
    records = await store.items(ids)
    # An item that has just left is known by its place: its id is nobody's business.
    titles = [
        records[source].title
        if source in records
        else path_name(tree.path(int(tree.rows.leaf[tree.row(source) or 0])))
        if source in ids
        else source
        for source in sources
    ]
    older = [row for row in known.seen if tree.rows.id(row) not in ids]
    earlier = Counter(path_name(tree.path(int(tree.rows.leaf[row]))) for row in older)
    return History(
        tuple(titles),
        tuple(name for name, _ in earlier.most_common(_EARLIER)),
        tuple(text for text in (asked.profile, asked.instruction) if text),
    )
