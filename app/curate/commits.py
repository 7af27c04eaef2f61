"""`commit_until_won`: a change that is decided again until its commit succeeds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import random
from typing import Generic, TypeVar

from tree.edits import Edit
from tree.errors import StaleVersion
from tree.snapshot import SemanticTree
from tree.store.protocol import NEVER_STAGED, WritableStore

_ATTEMPTS = 100  # takes some ten seconds; at each lost race another writer has made progress
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.2  # between attempts; the pause doubles

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Decision(Generic[_T]):
    """The edits for one version of the tree, and the result for the caller once they are in.

    Without edits nothing is committed. For the last two see `TreeWriter.commit`.
    """

    edits: Sequence[Edit]
    result: _T
    staging_seq: int = NEVER_STAGED
    made_of_records: bool = False


async def commit_until_won(
    store: WritableStore,
    decide: Callable[[SemanticTree], Awaitable[Decision[_T]]],
    *,
    lock_after: int | None = None,
    attempts: int = _ATTEMPTS,
) -> tuple[SemanticTree, Decision[_T]]:
    """The tree after the commit, and the decision that was committed.

    `decide` gets the newest tree, and is called again when another writer commits first. A
    decision without edits is returned with the tree that it was made for. After `lock_after` lost
    races, no other process can commit meanwhile. Raises StaleVersion after so many `attempts`, and
    what `decide` raises.
    """
    for attempt in range(attempts):
        if attempt:
            longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
            await asyncio.sleep(random() * longest_s)
        async with _lock(store, lock_after is not None and attempt >= lock_after) as lock:
            tree = await store.load()
            decision = await decide(tree)
            if not decision.edits:
                return tree, decision
            try:
                after = await store.commit(
                    decision.edits,
                    base=tree.version,
                    staging_seq=decision.staging_seq,
                    lock=lock,
                    made_of_records=decision.made_of_records,
                )
            except StaleVersion:
                continue
        return after, decision
    raise StaleVersion(f"lost {attempts} races for a commit: too many writers at once")


@asynccontextmanager
async def _lock(store: WritableStore, wanted: bool) -> AsyncIterator[str]:
    if wanted:
        async with store.commit_lock() as lock:
            yield lock
    else:
        yield ""
