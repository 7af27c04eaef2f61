"""`Candidates`: items that may be answered with, and the pool that they are drawn from."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.ranking import EmbeddedRanker, Need, Ranking
from app.recommend.lines import branch_line, item_line
from app.recommend.request import Filter
from app.signals import freshness
from tree.item import Item, normalise
from tree.node import Node
from tree.rows import IntArray, Rows
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

_KEPT_LINES = 100_000
_FRESH = 4  # candidates per wanted one, of which the freshest may rise
SPARE = 4  # records read beyond the limit, in case an item has just left


@dataclass(frozen=True, slots=True)
class Candidates:
    """Allowed rows that pass the filter, best first, and the ranking that they come from."""

    ranking: Ranking
    rows: IntArray
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Freshness:
    """What newness adds to a score, and how fast that fades."""

    weight: float
    half_life_days: float


class Pool:
    """One catalogue's items, as a request may see them."""

    def __init__(
        self, store: TreeStore, ranker: EmbeddedRanker, freshness: Freshness | None = None
    ) -> None:
        self._store = store
        self.ranker = ranker
        self._freshness = freshness
        self._lines: dict[int, str] = {}
        self._lines_of: Rows | None = None
        self._branches: dict[int, str] = {}
        self._branches_of: SemanticTree | None = None

    async def best(
        self,
        tree: SemanticTree,
        need: Need,
        allowed: npt.NDArray[np.bool_],
        wanted: int,
        passes: Filter | None,
    ) -> Candidates:
        """The embedded ranker's best `wanted` rows that pass the filter, or all there are.

        A filter tests records, which the tree does not hold: they are read in the order of the
        ranking, in growing batches, until enough have passed. So is freshness known, by which
        four times as many as wanted are put in order again, where it has a weight.
        """
        if self._freshness is None:
            return await self._passing(tree, need, allowed, wanted, passes)
        found = await self._passing(tree, need, allowed, _FRESH * wanted, passes)
        records = await self.records(tree, found.rows.tolist())
        published = [
            records[row].published_at if row in records else None for row in found.rows.tolist()
        ]
        bonus = freshness(published, time.time(), self._freshness.half_life_days)
        scores = found.scores + np.float32(self._freshness.weight) * bonus
        order = np.argsort(-scores, kind="stable")[:wanted]
        return Candidates(found.ranking, found.rows[order], scores[order])

    async def _passing(
        self,
        tree: SemanticTree,
        need: Need,
        allowed: npt.NDArray[np.bool_],
        wanted: int,
        passes: Filter | None,
    ) -> Candidates:
        ranking = await self.ranker.rank(tree, need, allowed, wanted)
        if passes is None:
            return Candidates(ranking, ranking.rows, ranking.scores)
        verdicts: dict[int, bool] = {}  # by row: a wider beam may find better ones in between
        asked = wanted
        while True:
            untested = [row for row in ranking.rows.tolist() if row not in verdicts]
            records = await self.records(tree, untested)
            verdicts |= {row: row in records and passes.holds(records[row]) for row in untested}
            kept = [at for at, row in enumerate(ranking.rows.tolist()) if verdicts[row]]
            if len(kept) >= wanted or len(ranking.rows) < asked:
                break
            asked *= 4
            ranking = await self.ranker.rank(tree, need, allowed, asked)
        chosen = np.array(kept[:wanted], np.int64)
        return Candidates(ranking, ranking.rows[chosen], ranking.scores[chosen])

    async def records(self, tree: SemanticTree, rows: Sequence[int]) -> dict[int, Item]:
        """The records of some rows; those that have just left are left out."""
        ids = [tree.rows.id(row) for row in rows]
        found: Mapping[str, Item] = await self._store.items(ids) if ids else {}
        return {row: found[item] for row, item in zip(rows, ids, strict=True) if item in found}

    async def lines(self, tree: SemanticTree, rows: Sequence[int]) -> dict[int, str]:
        """How a prompt shows some rows; those that have just left are left out.

        A row never changes (an item that does gets a new one), so lines are kept: reading the
        records of two slates costs more than all else that is done for them.
        """
        if self._lines_of is not tree.rows or len(self._lines) > _KEPT_LINES:
            self._lines, self._lines_of = {}, tree.rows
        kept = self._lines
        records = await self.records(tree, [row for row in rows if row not in kept])
        kept |= {row: item_line(item) for row, item in records.items()}
        return {row: kept[row] for row in rows if row in kept}

    def branch(self, tree: SemanticTree, node: Node) -> str:
        """How a prompt shows a branch; kept while the version lasts."""
        if self._branches_of is not tree:
            self._branches, self._branches_of = {}, tree
        line = self._branches.get(node.id)
        if line is None:
            line = self._branches[node.id] = branch_line(tree.path(node.id))
        return line

    async def shows(self, tree: SemanticTree, row: int) -> bool:
        """Whether a row may be shown: by its record, or by the tree where that is damaged."""
        now = time.time()
        if (item := (await self.records(tree, [row])).get(row)) is not None:
            return _shown(item, now)
        there = await self._store.known([tree.rows.id(row)])
        return bool(there) and bool(tree.allowed(now)[row])

    async def live(
        self,
        tree: SemanticTree,
        rows: Sequence[int],
        limit: int,
        passes: Filter | None,
    ) -> list[tuple[int, Item]]:
        """The last gate: positions of the first `limit` rows whose records may be shown."""
        now = time.time()
        chosen: list[tuple[int, Item]] = []
        start = 0
        while len(chosen) < limit and start < len(rows):
            batch = rows[start : start + limit + SPARE]
            records = await self.records(tree, batch)
            for at, row in enumerate(batch, start):
                item = records.get(row)
                if item and _shown(item, now) and (passes is None or passes.holds(item)):
                    chosen.append((at, item))
            start += len(batch)
        return chosen[:limit]


def allowed_rows(
    tree: SemanticTree,
    seen: Sequence[int],
    excluded: Sequence[str],
    domains: Sequence[str] | None,
) -> npt.NDArray[np.bool_]:
    """bool[tree.size]: the rows that this request may be answered with, by what the tree knows."""
    mask = tree.allowed(time.time())
    mask[list(seen)] = False
    for item_id in excluded:
        row = tree.row(item_id)
        if row is not None:
            mask[row] = False
    if domains is not None:
        wanted = {normalise(name) for name in domains}
        codes = [code for code, name in enumerate(tree.rows.domains) if normalise(name) in wanted]
        mask &= np.isin(tree.rows.domain[: tree.size], codes)
    return mask


def _shown(item: Item, now: float) -> bool:
    return not item.hidden and (item.expires_at is None or item.expires_at.timestamp() > now)
