"""`TreeStore`: what the service needs of a place that keeps one catalogue.

It has five parts, by who uses them. Every method raises StoreUnavailable when the store does not
answer. After `drop` in any process, a method that loads the tree, misses a record or writes
raises CatalogDeleted, so that nothing half-deleted is read.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from tree.edits import Edit
from tree.item import Item
from tree.snapshot import SemanticTree

NEVER_STAGED = 0  # the staging number before the first


class Checkpoint(NamedTuple):
    """How far an import has come, under a name; `before` is the checkpoint that it replaces."""

    name: str
    content: bytes
    before: bytes = b""


Part: TypeAlias = Literal["head", "snapshot", "log", "waiting", "strays"]


@dataclass(frozen=True, slots=True)
class TreeVersion:
    """A version that was published whole and is kept; edits came after it."""

    version: int
    items: int
    built_at: float  # seconds since the epoch
    note: str  # what made it


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """One step of a check: how many entries of a part were read, and their flaws.

    "waiting" are staged items without a record, "strays" records without an item.
    """

    part: Part
    count: int
    flaws: tuple[str, ...] = ()


Carry: TypeAlias = Callable[
    [SemanticTree, Sequence[Edit]], Awaitable[tuple[SemanticTree, list[Edit]]]
]
"""Applies what some edits did to a catalogue to another tree of it: the tree after that, and the
edits that led to it."""


class TreeReader(Protocol):
    """The versions of the tree."""

    async def load(self) -> SemanticTree:
        """The newest version; the same object while nothing was committed.

        A catalogue that was never written has an empty tree of version 0. Raises
        CorruptSnapshot rather than serve a tree that is not whole.
        """
        ...

    async def recent(self) -> SemanticTree:
        """A version to answer a user from.

        As `load`, but may return the previous version while a newer one is applied: at most one
        second stale, never older than what this process has already committed or loaded.
        """
        ...

    def seen(self) -> SemanticTree | None:
        """The newest version that this process has loaded, without asking the store."""
        ...

    async def changes(self, *, since: int) -> list[Edit]:
        """The edits after version `since`, oldest first, for a rebase.

        Raises StaleVersion when the log no longer reaches that far back.
        """
        ...

    async def versions(self) -> list[TreeVersion]:
        """The versions that were published whole and are kept, the newest first."""
        ...

    async def version(self, number: int) -> SemanticTree:
        """One of these, about as it was when another took its place. Raises UnknownVersion."""
        ...


class TreeWriter(Protocol):
    """Commits and new trees."""

    def commit_lock(self) -> AbstractAsyncContextManager[str]:
        """A lock, for some seconds at most, under which only a `commit` with its token succeeds.

        For a change that takes longer to plan than other writers leave time for.
        """
        ...

    def bulk_write_lease(self) -> AbstractAsyncContextManager[None]:
        """A lease that processes take in turn for large changes, to plan none that loses its race.

        It is advice: small commits do not ask for it, it lasts some seconds at most, and a block
        that has waited long enough runs without it.
        """
        ...

    async def commit(
        self,
        edits: Sequence[Edit],
        *,
        base: int,
        staging_seq: int = NEVER_STAGED,
        lock: str = "",
        made_of_records: bool = False,
    ) -> SemanticTree:
        """Apply edits on version `base`; all or none. Returns the new version.

        Writes the record of every PutItem and removes that of every DropItem in the same step;
        both leave the staging area. A PutItem without a record places what was staged: it leaves
        the staging area unless it was staged again after `staging_seq`. Raises StaleVersion when
        `base` is not the newest version or another process holds the commit lock, InvalidEdit when
        the edits do not fit. With `made_of_records`, the edits change records that were read, and
        StaleVersion is also raised where one of them was staged after `staging_seq`.
        """
        ...

    async def replace(
        self,
        tree: SemanticTree,
        *,
        base: int,
        staging_seq: int = NEVER_STAGED,
        note: str = "rebuild",
        carry: Carry | None = None,
    ) -> SemanticTree:
        """Publish `tree`, made of version `base`, as the newest version; forget the log before.

        The items of `tree` that were staged up to `staging_seq` leave the staging area. The
        version that it replaces is kept for a while. `carry` applies what was committed after
        `base`; other writers wait a moment at the end. Raises StaleVersion where there is no
        `carry`, or where the log does not reach back to `base`.
        """
        ...


class ItemRecords(Protocol):
    """The text of items, placed and staged ones."""

    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """The records of some items, staged ones included.

        Unknown ids are left out, and so are damaged records, which the log names once.
        """
        ...

    async def records(self, ids: Collection[str]) -> dict[str, bytes]:
        """`items` as they are stored, in that order, for `encoding.read_item` in any process."""
        ...

    async def existing(self, ids: Collection[str]) -> set[str]:
        """Those of some ids that are staged or have a record, which may be damaged."""
        ...

    async def record_flaws(self, ids: Collection[str]) -> dict[str, str]:
        """What is wrong with the records of some items that should have one: missing, damaged."""
        ...

    def record_ids(self) -> AsyncIterator[list[str]]:
        """Ids of all records, in batches; for when the tree cannot be loaded.

        One may come twice. What is written meanwhile may be left out.
        """
        ...


class StagingArea(Protocol):
    """Items that wait for a place in the tree."""

    async def stage(
        self,
        items: Sequence[Item],
        checkpoint: Checkpoint | None = None,
        *,
        lines_of: SemanticTree | None = None,
    ) -> None:
        """Keep items durably before they have a place in the tree (an import does).

        The checkpoint is written in the same step as the last of them. Raises StaleVersion, and
        writes nothing more, where the stored checkpoint is not the one `before`. Raises Overtaken
        where lines may have been set since `lines_of`, the version in which the items had theirs.
        """
        ...

    async def checkpoint(self, name: str) -> bytes | None:
        """The newest checkpoint of that name; kept for a week."""
        ...

    async def staging_seq(self) -> int:
        """The number of the newest staging; what is read after this call is at least as new."""
        ...

    def staged_ids(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """Ids of the staged items, in batches; an id may come twice."""
        ...

    async def staged_items(self, ids: Collection[str]) -> dict[str, Item]:
        """The records of those ids that are staged now."""
        ...


class StoreUpkeep(Protocol):
    """What the owner of a store asks of it."""

    async def follow(self, followed: Callable[[float], None]) -> None:
        """Apply what other processes commit as it comes, until cancelled or dropped.

        Begins after the first `load`. Calls `followed` with the lag, in seconds, each time the
        newest version is reached.
        """
        ...

    def check_integrity(self) -> AsyncIterator[CheckedPart]:
        """Read everything that the store holds of this catalogue, in bounded memory.

        Continues where `load` would raise CorruptSnapshot, and never raises it. Others may write
        meanwhile. It leaves the records of items in the tree to the caller: see `record_flaws`.
        """
        ...

    async def compact(self) -> None:
        """Write the newest version as a snapshot and trim the log. `commit` does it by itself."""
        ...

    async def drop(self) -> None:
        """Remove everything that the store holds of this catalogue, for good.

        A drop that was cut short can be called again.
        """
        ...

    async def aclose(self) -> None:
        """Finish the work in the background. The connection belongs to its maker."""
        ...


class ReadableStore(TreeReader, ItemRecords, Protocol):
    """What an answer needs."""


class WritableStore(ReadableStore, TreeWriter, StagingArea, Protocol):
    """What changes of a catalogue need."""


class TreeStore(WritableStore, StoreUpkeep, Protocol):
    """All parts."""
