"""`TreeStore`: what the service needs of a place that keeps one catalogue."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from tree.edits import Edit
from tree.item import Item
from tree.snapshot import SemanticTree

Part: TypeAlias = Literal["head", "snapshot", "log", "waiting", "strays"]


@dataclass(frozen=True, slots=True)
class Looked:
    """A stretch of a survey: how much of a part was looked at, and what is wrong there.

    "waiting" are staged items without a record, "strays" records without an item.
    """

    part: Part
    count: int
    flaws: tuple[str, ...] = ()


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

    async def commit(self, edits: Sequence[Edit], *, base: int) -> SemanticTree:
        """Apply edits on version `base`; all or none. Returns the new version.

        Writes the record of every PutItem and removes that of every DropItem in the same step;
        both leave the staging area. Raises StaleVersion when `base` is not the newest version,
        InvalidEdit when the edits do not fit it.
        """
        ...

    async def replace(self, tree: SemanticTree, *, base: int) -> SemanticTree:
        """Publish `tree` as the version after `base` and forget the log before it.

        The items of `tree` leave the staging area. Raises StaleVersion.
        """
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

    async def stage(self, items: Sequence[Item]) -> None:
        """Keep items durably before they have a place in the tree (an import does)."""
        ...

    def staged(self, *, batch: int = 1_000) -> AsyncIterator[list[str]]:
        """Ids of the staged items, in batches; an id may come twice."""
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
