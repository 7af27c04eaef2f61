"""`Page`: what the next page of an answer begins with.

It is stored in the trace of the answer, so that a page costs no write of its own, and is erased
with the user. A cursor is the id of that answer.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from app.ranking import Need, Ranking
from app.recommend.candidates import CandidatePool, Candidates
from app.recommend.choice import Chooser, continued
from app.recommend.columns import Mask
from app.recommend.filters import Scalar
from app.recommend.request import RecommendRequest
from app.storage.documents import Documents
from app.variants import Variants
from tree.snapshot import SemanticTree

MOST_SHOWN = 1_000  # items of all pages of a list
_MOST_NEXT = 200  # candidates that are kept; after them the embedded ranker goes on


class CursorExpired(Exception):
    """What a cursor refers to is not stored any more."""


class CursorOfAnother(Exception):
    """A cursor was given for another user."""


class Page(msgspec.Struct, frozen=True):
    """Ids of the items that were shown, on all pages so far, and of the candidates that come next.

    The candidates are in the order of the answer, with their scores. `strategy` and `effort` are
    those of the answer that ranked them. `groups` are the values of `group_by` of what was shown,
    as the items may be deleted by the time of the next page.
    """

    shown: Sequence[str]
    following: Sequence[str] = ()
    scores: Sequence[float] = ()
    strategy: str | None = None
    effort: str | None = None
    groups: Sequence[Scalar] = ()

    @classmethod
    def after(
        cls,
        before: "Page | None",
        tree: SemanticTree,
        chooser: Chooser,
        candidates: Candidates,
        order: Sequence[int],
    ) -> "Page":
        """What follows an answer whose candidates were offered in this order.

        Candidates before the last chosen one were left out for a reason that still holds.
        """
        chosen = chooser.chosen
        every = [*order, *range(len(order), len(candidates.rows))]
        start = every.index(chosen[-1].at) + 1 if chosen else 0
        left = every[start : start + _MOST_NEXT]
        return cls(
            [*(before.shown if before else ()), *(one.item.id for one in chosen)],
            tree.rows.ids(candidates.rows[left]) if left else (),
            [round(float(score), 4) for score in candidates.scores[left]],
            groups=list(chooser.groups.values()),
        )

    async def candidates(
        self, pool: CandidatePool, tree: SemanticTree, need: Need, allowed: Mask, wanted: int
    ) -> Candidates:
        """The candidates that are allowed today; the embedded ranker's best where they are few."""
        found = tree.rows_of(self.following)
        kept = [
            (row, score)
            for row, score in zip(found, self.scores, strict=True)
            if row is not None and allowed[row]
        ]
        rows = np.array([row for row, _ in kept], np.int32)
        scores = np.array([score for _, score in kept], np.float32)
        if len(rows) >= wanted:
            return Candidates(Ranking(rows, scores, [], 0, 0, 0), rows, scores)
        rest = allowed.copy()
        rest[rows] = False
        best = await pool.best(tree, need, rest, wanted)
        return continued(Candidates(best.ranking, rows, scores), best)


class _StoredAnswer(msgspec.Struct, frozen=True):
    """The parts of a trace that the next page needs."""

    user_id: str | None = None
    variant: str | None = None
    strategy: str | None = None
    effort: str | None = None
    page: Page | None = None


async def continued_request(
    documents: Documents, catalog_id: str, request: RecommendRequest, variants: Variants
) -> tuple[RecommendRequest, Page | None]:
    """The request without the items of the pages before, of the same variant; and the page.

    A variant that has ended since is that of the user now. Raises
    CursorExpired, CursorOfAnother, StoreUnavailable.
    """
    if request.cursor is None:
        return request, None
    data = await documents.get("trace", f"{catalog_id}/{request.cursor}")
    stored = _StoredAnswer() if data is None else msgspec.json.decode(data, type=_StoredAnswer)
    if stored.page is None:
        raise CursorExpired("the pages before are no longer stored: ask again without the cursor")
    if stored.user_id != request.user_id:
        raise CursorOfAnother("the cursor belongs to the list of another user")
    is_there = stored.variant in variants.names
    changes = {
        "exclude_items": [*request.exclude_items, *stored.page.shown],
        "variant": request.variant or (stored.variant if is_there else None),
    }
    page = msgspec.structs.replace(stored.page, strategy=stored.strategy, effort=stored.effort)
    return request.model_copy(update=changes), page
