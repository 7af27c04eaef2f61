"""`LineScan`: the items of a catalogue that want a line, leaf by leaf."""

import time
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from app.curate.threads import JOBS
from tree.item_line import LINE_CODES
from tree.snapshot import SemanticTree

Choice: TypeAlias = Literal["missing", "stale", "all"]
"""Items without a line; those, and items whose line a model wrote with other instructions; all
items but those with a line of the owner."""

_NONE, _OWNER = LINE_CODES[None], LINE_CODES["owner"]


class LineScan:
    """Chooses items from ever newer versions of the tree, each item once.

    Items of one leaf come together, as a model writes better about alike items when it sees them
    side by side. Hidden and expired items are left out. Takes 8 bytes for each item it has chosen.
    """

    def __init__(self, only: Choice) -> None:
        self._only = only
        self._seen: npt.NDArray[np.int64] = np.empty(0, np.int64)

    async def next_ids(self, tree: SemanticTree, most: int) -> tuple[list[str], int]:
        """At most so many ids, and how many items there are in all that were not chosen before."""
        return await JOBS.run(self._next_ids, tree, most)

    async def sample(self, tree: SemanticTree, most: int) -> tuple[list[str], int]:
        """Ids from all over the tree, in runs of one leaf each; and how many there are in all."""
        return await JOBS.run(self._sample, tree, most)

    def _next_ids(self, tree: SemanticTree, most: int) -> tuple[list[str], int]:
        rows = self._wanted(tree)
        ids = [tree.rows.id(row) for row in rows.tolist()]
        hashes = np.fromiter(map(hash, ids), np.int64, len(ids))
        fresh = np.flatnonzero(~np.isin(hashes, self._seen))
        chosen = fresh[:most]
        self._seen = np.concatenate([self._seen, hashes[chosen]])
        return [ids[at] for at in chosen.tolist()], len(fresh)

    def _sample(self, tree: SemanticTree, most: int) -> tuple[list[str], int]:
        rows = self._wanted(tree)
        step = max(1, len(rows) // most)
        run = 10
        starts = range(0, len(rows), run * step)
        chosen = [row for start in starts for row in rows[start : start + run].tolist()]
        return [tree.rows.id(row) for row in chosen[:most]], len(rows)

    def _wanted(self, tree: SemanticTree) -> npt.NDArray[np.int32]:
        """Rows in the order of the leaves."""
        lines = tree.rows.lines[: tree.size]
        mask = tree.allowed(time.time()) & (
            lines == _NONE if self._only == "missing" else lines != _OWNER
        )
        if not mask.any():
            return np.empty(0, np.int32)
        rows = np.concatenate([leaf.rows for leaf in tree.leaves()])
        return rows[mask[rows]]
