"""The slates of an examination: options of one request, of which it is known which are right."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from random import Random

import numpy as np

from app.recommend.candidates import CandidatePool
from app.recommend.request import HistoryEntry, RecommendRequest
from tree.item import Item
from tree.node import Node
from tree.rows import IntArray
from tree.snapshot import SemanticTree

OPTIONS = 12  # of a slate
SHOWN = 5  # items of a history that the model is shown
RIGHT = 4  # other items of the same user or leaf, at most
_LEAST_HISTORY = 5
_NEAR = 3  # neighbours of the item of a wish
_TOO_NEAR = 0.9  # cosine of what may be the same thing in another size
_LEAST_ITEMS = 100  # in a smaller catalogue there is little to tell apart
_WISH_CHARS = 200
_LEAST_WISH_CHARS = 50
_READ_CHARS = 600  # of a description
_TRIES = 4  # items or leaves looked at for one slate
_WORD = re.compile(r"\w{3,}")


@dataclass(frozen=True, slots=True, eq=False)
class ExamSlate:
    """A request, the rows that are offered for it, and those among them that are right."""

    request: RecommendRequest
    rows: IntArray
    right: frozenset[int]


class ExamWriter:
    """Makes slates of a catalogue's own items. The same tree and seed give the same ones.

    (a) Histories: of one user, or of one leaf, some items are shown as the history; others are
    among items of other kinds. (b) Wishes: an item by its own line, or by the start of its
    description, among its neighbours and items of other kinds.
    """

    def __init__(self, tree: SemanticTree, pool: CandidatePool, seed: int) -> None:
        self._tree = tree
        self._pool = pool
        self._seed = seed
        self._random = Random(seed)
        self._is_allowed = tree.allowed(time.time())
        self._rows: list[int] = np.flatnonzero(self._is_allowed).tolist()

    async def slates(self, histories: Sequence[Sequence[str]], count: int) -> list[ExamSlate]:
        """At most `count` slates, of users, leaves and wishes in turn.

        `histories` are those of stored users; leaves stand in for missing ones. Empty for a
        catalogue that is too small.
        """
        if len(self._rows) < _LEAST_ITEMS:
            return []
        wishes = await self._wishes(count // 3)
        mixed = Random(self._seed).sample(list(histories), len(histories))  # others on each day
        users = [slate for one in mixed if (slate := self._of_user(one)) is not None]
        rest = count - len(wishes)
        leaves = islice(self._of_leaves(count), rest - min(len(users), rest // 2))
        turns = zip_longest(users[: rest // 2], leaves, wishes)
        return [slate for turn in turns for slate in turn if slate is not None]

    # -- histories

    def _of_user(self, history: Sequence[str]) -> ExamSlate | None:
        """A user's later items that are of a kind with an earlier one: nobody can know the rest."""
        known = self._tree.rows_of(list(dict.fromkeys(history)))
        rows = [row for row in known if row is not None and self._is_allowed[row]]
        if len(rows) < _LEAST_HISTORY:
            return None
        shown = rows[: -min(RIGHT, len(rows) // 2)][-SHOWN:]
        kinds = {self._kind(row) for row in shown}
        right = [row for row in rows if row not in shown and self._kind(row) in kinds]
        return self._of_history(shown, right[-RIGHT:], rows)

    def _of_leaves(self, count: int) -> Iterator[ExamSlate]:
        for _ in range(_TRIES * count):
            leaf = self._leaf_of(self._random.choice(self._rows))
            rows = self._allowed_in(leaf)
            if len(rows) < _LEAST_HISTORY:
                continue
            self._random.shuffle(rows)
            right = rows[: min(RIGHT, len(rows) // 2)]
            shown = rows[len(right) :][:SHOWN]
            if (slate := self._of_history(shown, right, rows)) is not None:
                yield slate

    def _of_history(
        self, shown: Sequence[int], right: Sequence[int], own: Sequence[int]
    ) -> ExamSlate | None:
        if not right:
            return None
        entries = [HistoryEntry(item_id=self._tree.rows.id(row)) for row in shown]
        request = RecommendRequest(history=entries, effort="economy")
        return self._slate(request, right, own)

    def _kind(self, row: int) -> int:
        """The branch above the leaf of a row: what stands there is of one kind."""
        path = self._tree.path(int(self._tree.rows.leaf[row]))
        return path[-2].id if len(path) > 1 else path[-1].id

    # -- wishes

    async def _wishes(self, count: int) -> list[ExamSlate]:
        rows = self._random.sample(self._rows, min(_TRIES * count, len(self._rows)))
        records = await self._pool.records(self._tree, rows)
        found: list[ExamSlate] = []
        for row in rows:
            text = _wish(records[row]) if row in records else ""
            if text and len(found) < count:
                found.append(self._of_wish(row, text))
        return found

    def _of_wish(self, row: int, text: str) -> ExamSlate:
        request = RecommendRequest(instruction=text, effort="economy")
        return self._slate(request, [row], [row], self._near(row))

    def _near(self, row: int) -> list[int]:
        """Neighbours of an item in its leaf, nearest first, without what may be the same thing."""
        rows = [one for one in self._allowed_in(self._leaf_of(row)) if one != row]
        if not rows:
            return []
        vectors = self._tree.rows.vectors[[row, *rows]].astype(np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        cosines = vectors[1:] @ vectors[0]
        order = np.argsort(-cosines, kind="stable")
        return [rows[at] for at in order.tolist() if cosines[at] < _TOO_NEAR][:_NEAR]

    # -- both

    def _slate(
        self,
        request: RecommendRequest,
        right: Sequence[int],
        own: Sequence[int],
        wrong: Sequence[int] = (),
    ) -> ExamSlate:
        """A slate with further wrong options, of other kinds than a row of `own`."""
        kinds = {self._kind(row) for row in own}
        chosen = dict.fromkeys(wrong)
        for _ in range(_TRIES * OPTIONS):
            if len(chosen) + len(right) >= OPTIONS:
                break
            row = self._random.choice(self._rows)
            if self._kind(row) not in kinds:
                chosen[row] = None
        rows = np.array([*right, *chosen], np.int32)
        return ExamSlate(request, rows, frozenset(right))

    def _leaf_of(self, row: int) -> Node:
        return self._tree.node(int(self._tree.rows.leaf[row]))

    def _allowed_in(self, leaf: Node) -> list[int]:
        return [row for row in leaf.rows.tolist() if self._is_allowed[row]]


def _wish(item: Item) -> str:
    """What an item is, in words that its title lacks: comparing words alone must not be enough.

    Empty where too little is known.
    """
    text = item.line.text if item.line is not None else item.description[:_READ_CHARS]
    named = {word.casefold() for word in _WORD.findall(item.title)}
    words = [
        word
        for word in text.split()
        if not named.intersection(part.casefold() for part in _WORD.findall(word))
    ]
    wish = " ".join(words)
    if len(wish) < _LEAST_WISH_CHARS:
        return ""
    return wish if len(wish) <= _WISH_CHARS else wish[:_WISH_CHARS].rpartition(" ")[0]
