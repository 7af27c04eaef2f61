"""`TreeStore`: what the service needs of a place that keeps one catalogue."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from tree.edits import Edit
from tree.item import Item
from tree.snapshot import SemanticTree

NEVER_STAGED = 0  # the stamp before the first


class Mark(NamedTuple):
    """How far somebody who stages has come, under a name; `before` is their mark until then."""

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
class Looked:
    """A stretch of a survey: how much of a part was looked at, and what is wrong there.

    "waiting" are staged items without a record, "strays" records without an item.
    """

    part: Part
    count: int
    flaws: tuple[str, ...] = ()


Carry: TypeAlias = Callable[
    [SemanticTree, Sequence[Edit]], Awaitable[tuple[SemanticTree, list[Edit]]]
]
"""Puts what the edits did to a catalogue into another tree of it: that tree after it, and how."""


class TreeStore(Protocol):
    """One catalogue: its tree, its item records, and the items that wait for a place.

    Every method raises StoreUnavailable when the store does not answer.
    """

    async def load(self) -> SemanticTree:
        """The newest version; the same object while nothing was committed.

        A catalogue that was never written has an empty tree of version 0. Raises
        CorruptSnapshot rather than serve a tree that is not whole.
        """
        ...

    async def recent(self) -> SemanticTree:
        """A version to answer a reader from, who need not wait for what others have just committed.

        As `load`, but while a newer version is still being put together here, the one before:
        such as was the newest within the last second, and never one before what was committed or
        loaded here.
        """
        ...

    def seen(self) -> SemanticTree | None:
        """The newest version that was loaded here; the store is not asked."""
        ...

    async def follow(self, followed: Callable[[float], None]) -> None:
        """Keep up with what others commit, once a first `load` is done, until cancelled.

        `followed` is told how old the newest version was, in seconds, each time it is reached.
        """
        ...

    def hold(self) -> AbstractAsyncContextManager[str]:
        """While the block runs, but for some seconds at most, others lose their races to commit.

        For a change that takes longer to make than others leave time for: `commit` takes the hold.
        """
        ...

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Large changes one after another: whoever asks waits while another's block runs.

        It spares them from planning what loses its race. It binds nobody, lasts some seconds at
        most, and after some more the block runs without it.
        """
        ...

    async def commit(
        self, edits: Sequence[Edit], *, base: int, stamp: int = NEVER_STAGED, hold: str = ""
    ) -> SemanticTree:
        """Apply edits on version `base`; all or none. Returns the new version.

        Writes the record of every PutItem and removes that of every DropItem in the same step;
        both leave the staging area. A PutItem without a record places what was staged: it leaves
        the staging area unless it was staged again after `stamp`. Raises StaleVersion when `base`
        is not the newest version or somebody holds it, InvalidEdit when the edits do not fit it.
        """
        ...

    async def replace(
        self,
        tree: SemanticTree,
        *,
        base: int,
        stamp: int = NEVER_STAGED,
        note: str = "rebuild",
        carry: Carry | None = None,
    ) -> SemanticTree:
        """Publish `tree`, made of version `base`, as the newest version; forget the log before.

        The items of `tree` that were staged up to `stamp` leave the staging area. The version it
        takes the place of is kept for a while. What was committed after `base` is carried over
        by `carry`, for which others wait a moment at the end. Raises StaleVersion where there is
        no `carry`, or where the log does not reach back to `base`.
        """
        ...

    async def versions(self) -> list[TreeVersion]:
        """The versions that were published whole and are kept, the newest first."""
        ...

    async def version(self, number: int) -> SemanticTree:
        """One of these, about as it was when another took its place. Raises UnknownVersion."""
        ...

    async def changes(self, *, since: int) -> list[Edit]:
        """The edits after version `since`, oldest first, for a rebase.

        Raises StaleVersion when the log no longer reaches that far back.
        """
        ...

    async def items(self, ids: Collection[str]) -> dict[str, Item]:
        """The records of some items, staged ones included.

        Unknown ids are left out, and so are damaged records (the log tells of them once).
        """
        ...

    async def flaws(self, ids: Collection[str]) -> dict[str, str]:
        """What is wrong with the records of some items that should have one: missing, damaged."""
        ...

    async def known(self, ids: Collection[str]) -> set[str]:
        """Those of some ids that have a record, sound or not, or are staged."""
        ...

    def survey(self) -> AsyncIterator[Looked]:
        """Look at everything that the store holds of this catalogue, in bounded memory.

        Goes on where `load` would raise CorruptSnapshot, and never raises it. Writers may go on.
        The records of items that are in the tree are left to the caller, and `flaws`.
        """
        ...

    def recorded(self) -> AsyncIterator[list[str]]:
        """Ids of all records, in batches; for when the tree cannot be loaded. One may come twice,
        and what is written meanwhile may be among them or not."""
        ...

    async def records(self, ids: Collection[str]) -> dict[str, bytes]:
        """`items` as they are stored, for `wire.read_item` in another process; in that order."""
        ...

    async def stage(self, items: Sequence[Item], mark: Mark | None = None) -> None:
        """Keep items durably before they have a place in the tree (an import does).

        The mark is written in the same step as the last of them. Raises StaleVersion, and writes
        nothing more, where another mark than the one `before` is in its place.
        """
        ...

    async def mark(self, name: str) -> bytes | None:
        """The newest mark of that name; kept for a week."""
        ...

    async def stamp(self) -> int:
        """The stamp of what was staged last: what is read after this is at least as new."""
        ...

    def staged(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """Ids of the staged items, in batches; an id may come twice."""
        ...

    async def waiting(self, ids: Collection[str]) -> dict[str, Item]:
        """The records of those ids that are staged (still)."""
        ...

    async def compact(self) -> None:
        """Write the newest version as a snapshot and trim the log. `commit` does it by itself."""
        ...

    async def drop(self) -> None:
        """Remove everything that the store holds of this catalogue."""
        ...

    async def aclose(self) -> None:
        """Finish what goes on in the background. The connection belongs to whoever made it."""
        ...
