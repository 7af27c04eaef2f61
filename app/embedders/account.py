"""`EmbeddingAccount`: for whom texts are embedded, and what that takes."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock

from app.embedders.kept_vectors import KeptVectors
from tree.errors import EmbedderBudgetSpent
from tree.passage import Passage

_MOST_LISTED = 100  # refused items, in the result of a job
_MOST_LOGGED = 20

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class EmbeddingAccount:
    """The texts of one job or write: how many a model was asked for, and which it has refused.

    Work that runs under an account counts towards it: see `counting`. Thread-safe.
    """

    catalog_id: str
    kept: KeptVectors | None = None  # the vectors of the catalogue's texts; None: nothing is kept
    asked: int = 0  # texts that a model was asked for
    reused: int = 0  # texts whose vectors were kept
    limit_usd: float = math.inf  # what the texts of this job may cost
    tokens: int = 0
    cost_usd: float = 0.0
    quiet: bool = False  # refused items are not logged
    open: bool = True  # work that outlives its job counts no longer
    _has_price: bool = False
    _claimed_usd: float = 0.0
    _refused_texts: set[str] = field(default_factory=set)
    _refused_items: dict[str, None] = field(default_factory=dict)
    _saved: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def count(self, *, asked: int = 0, reused: int = 0, refused: Iterable[str] = ()) -> None:
        """Add texts."""
        with self._lock:
            self.asked += asked
            self.reused += reused
            self._refused_texts.update(refused)

    def claim(self, cost_usd: float) -> None:
        """Count a call as spent until it is settled. Raises EmbedderBudgetSpent."""
        with self._lock:
            if self.cost_usd + self._claimed_usd + cost_usd > self.limit_usd:
                raise EmbedderBudgetSpent(
                    f"the embedder has cost ${self.cost_usd:.4f}, and the rest of what this job "
                    "may cost does not allow another call; what was embedded is kept: raise "
                    "max_cost_usd to continue"
                )
            self._claimed_usd += cost_usd

    def settle(self, claimed_usd: float, tokens: int, cost_usd: float | None) -> None:
        """Replace a claim by what the call has used; `cost_usd` is None without a price."""
        with self._lock:
            self._claimed_usd -= claimed_usd
            self.tokens += tokens
            self.cost_usd += cost_usd or 0.0
            self._has_price = self._has_price or cost_usd is not None

    def name_refused(self, ids: Iterable[str], passages: Iterable[Passage]) -> None:
        """Note which of these items have a text that was refused."""
        if not self._refused_texts:
            return
        named = [
            item_id
            for item_id, passage in zip(ids, passages, strict=True)
            if not self._refused_texts.isdisjoint((passage.whole, passage.text, passage.line))
            and item_id not in self._refused_items
        ]
        self._refused_items |= dict.fromkeys(named)
        if named and not self.quiet:
            shown = ", ".join(map(repr, named[:_MOST_LOGGED]))
            logger.warning(
                "the embedder refuses the texts of %d items, so they have no vector; it is asked "
                "again in a day: %s",
                len(named),
                shown,
            )

    async def save_refused(self) -> None:
        """Store which items have refused texts. Raises StoreUnavailable."""
        new = self._refused_items.keys() - self._saved
        if new and self.kept is not None:
            await self.kept.add_refused(new)
            self._saved |= new

    @property
    def has_refusals(self) -> bool:
        """Whether a text was refused."""
        return bool(self._refused_texts)

    @property
    def refused_items(self) -> Sequence[str]:
        """The ids of the items that have no vector, because their text was refused."""
        return list(self._refused_items)

    @property
    def counted(self) -> bool:
        """Whether a text model was needed."""
        return self.asked + self.reused > 0

    def result(self) -> dict[str, object]:
        """As a part of the result of a job."""
        return {
            "texts_asked": self.asked,
            "texts_kept": self.reused,
            "tokens": self.tokens,
            "cost_usd": round(self.cost_usd, 6) if self._has_price or not self.tokens else None,
            "refused": len(self._refused_items),
            "refused_items": list(islice(self._refused_items, _MOST_LISTED)),
        }


_current: ContextVar[EmbeddingAccount | None] = ContextVar("embedding account", default=None)


def current_account() -> EmbeddingAccount | None:
    """The account of this task or thread; None where nobody counts."""
    account = _current.get()
    return account if account is not None and account.open else None


def name_refused(ids: Iterable[str], passages: Iterable[Passage]) -> None:
    """See EmbeddingAccount: for the account of this task, if there is one."""
    if account := current_account():
        account.name_refused(ids, passages)


@contextmanager
def counting(account: EmbeddingAccount) -> Iterator[EmbeddingAccount]:
    """Count what is embedded in this block, also by tasks and threads that it starts."""
    before = _current.set(account)
    try:
        yield account
    finally:
        _current.reset(before)


@contextmanager
def counting_for(
    catalog_id: str, new: Callable[[], EmbeddingAccount]
) -> Iterator[EmbeddingAccount]:
    """The account of this task if it is one of that catalogue, or a `new` one."""
    account = current_account()
    if account is not None and account.catalog_id == catalog_id:
        yield account
        return
    with counting(new()) as account:
        yield account
