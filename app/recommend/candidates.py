"""`Candidates`: items that may be in the answer, and the pool that they come from."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.ranking import EmbeddedRanker, Need, Ranking
from app.ranking.fusion import RANK_OFFSET
from app.recommend.columns import Mask
from app.recommend.config import RetrievalConfig
from app.recommend.prompt_lines import branch_line, item_line
from app.recommend.spelling import all_hinted
from app.signals import freshness
from tree.item import Item
from tree.node import Node
from tree.rows import IntArray, Rows
from tree.scan import off_loop
from tree.snapshot import SemanticTree
from tree.store.protocol import ItemRecords

_CACHED_LINES = 100_000
_COMPARED_DOMAINS = 10_000  # with one that is not among them
_FRESH = 4  # candidates per wanted one, to be reordered by freshness
SPARE = 4  # records read beyond the limit, in case an item was deleted meanwhile


@dataclass(frozen=True, slots=True)
class Candidates:
    """Allowed rows, best first, and the ranking that they come from."""

    ranking: Ranking
    rows: IntArray
    scores: npt.NDArray[np.float32]


class CandidatePool:
    """The items of one catalogue that a request may see."""

    def __init__(self, store: ItemRecords, config: RetrievalConfig) -> None:
        self.store = store
        self.ranker = EmbeddedRanker(
            config.inverse_temperature,
            config.exact_scan_items,
            config.beam_leaves,
            config.beam_breadth,
        )
        self._half_life_days = config.freshness_half_life_days
        self._lines: dict[int, str] = {}
        self._lines_of: Rows | None = None
        self._branches: dict[int, str] = {}
        self._branches_of: SemanticTree | None = None

    async def best(self, tree: SemanticTree, need: Need, allowed: Mask, wanted: int) -> Candidates:
        """The embedded ranker's best `wanted` allowed rows, or all there are.

        With a weight for freshness, four times as many are reordered by their dates.
        """
        weight = np.float32(need.rank_weights.freshness_weight)
        if not weight:
            ranking = await self.ranker.rank(tree, need, allowed, wanted)
            return Candidates(ranking, ranking.rows, ranking.scores)
        found = await self.ranker.rank(tree, need, allowed, _FRESH * wanted)
        records = await self.records(tree, found.rows.tolist())
        published = [
            records[row].published_at if row in records else None for row in found.rows.tolist()
        ]
        bonus = freshness(published, time.time(), self._half_life_days)
        scores = found.scores + weight * bonus
        order = np.argsort(-scores, kind="stable")[:wanted]
        return Candidates(found, found.rows[order], scores[order])

    async def records(self, tree: SemanticTree, rows: Sequence[int]) -> dict[int, Item]:
        """The records of some rows, without those that were deleted meanwhile."""
        ids = [tree.rows.id(row) for row in rows]
        found: Mapping[str, Item] = await self.store.items(ids) if ids else {}
        return {row: found[item] for row, item in zip(rows, ids, strict=True) if item in found}

    async def lines(self, tree: SemanticTree, rows: Sequence[int]) -> dict[int, str]:
        """How a prompt shows some rows, without those that were deleted in between.

        Lines are cached, as a row never changes: reading the records of two slates takes longer
        than all other work for them.
        """
        if self._lines_of is not tree.rows or len(self._lines) > _CACHED_LINES:
            self._lines, self._lines_of = {}, tree.rows
        cached = self._lines
        records = await self.records(tree, [row for row in rows if row not in cached])
        cached |= {row: item_line(item) for row, item in records.items()}
        return {row: cached[row] for row in rows if row in cached}

    def branch(self, tree: SemanticTree, node: Node) -> str:
        """How a prompt shows a branch; cached for one version of the tree."""
        if self._branches_of is not tree:
            self._branches, self._branches_of = {}, tree
        line = self._branches.get(node.id)
        if line is None:
            line = self._branches[node.id] = branch_line(tree.path(node.id))
        return line

    async def shows(self, tree: SemanticTree, row: int) -> bool:
        """Whether a row may be shown: by its record, or by the tree if the record is damaged."""
        now = time.time()
        if (item := (await self.records(tree, [row])).get(row)) is not None:
            return item.is_shown(now)
        there = await self.store.existing([tree.rows.id(row)])
        return bool(there) and bool(tree.allowed(now)[row])


def allowed_rows(
    tree: SemanticTree,
    seen: Sequence[int],
    excluded: Sequence[str],
    domains: Sequence[str] | None,
) -> Mask:
    """bool[tree.size]: the rows that may be in the answer, by what the tree knows."""
    mask = tree.allowed(time.time())
    mask[list(seen)] = False
    mask[[row for row in tree.rows_of(excluded) if row is not None]] = False
    if domains is not None:
        codes = [code for name in domains for code in tree.rows.domain_codes(name)]
        mask &= np.isin(tree.rows.domain[: tree.size], codes)
    return mask


async def unknown_domains(tree: SemanticTree, domains: Sequence[str]) -> Sequence[str]:
    """A message for each domain that no item has or had since the tree was built."""
    rows = tree.rows
    unknown = [name for name in dict.fromkeys(domains) if not rows.domain_codes(name)]

    def work() -> Sequence[str]:
        return all_hinted("no item has the domain", unknown, rows.domains[:_COMPARED_DOMAINS])

    return await off_loop(len(unknown), work, inline=0)


def filled_up(rows: IntArray, best: Candidates, wanted: int) -> Candidates:
    """As many as wanted: what the model has ordered, then the embedded ranker's best.

    A score depends on the place in the list alone and falls as those of a rank fusion do: a fused
    order does not say by how much one candidate is better than the next.
    """
    known = set(rows.tolist())
    rest = [row for row in best.rows.tolist() if row not in known]
    every = np.array([*rows.tolist(), *rest[: max(0, wanted - len(rows))]], np.int32)
    scores = (RANK_OFFSET / (RANK_OFFSET + np.arange(len(every)))).astype(np.float32)
    return Candidates(best.ranking, every, scores)
