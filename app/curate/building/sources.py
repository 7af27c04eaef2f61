"""Where a build reads a catalogue from."""

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from tree.item import Item
from tree.store.encoding import pack_item


class ItemSource(Protocol):
    """The records of a catalogue. A build reads them several times."""

    @property
    def size(self) -> int:
        """How many items there are, or a few more."""
        ...

    def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
        """The records of every `step`-th item by id, in batches and always in the same order."""
        ...


class ListSource:
    """See ItemSource. Items in memory, of distinct ids."""

    def __init__(self, items: Iterable[Item], *, batch: int = 1_000) -> None:
        self._records = {item.id: pack_item(item) for item in items}
        self._batch = batch

    @property
    def size(self) -> int:
        """See ItemSource."""
        return len(self._records)

    async def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
        """See ItemSource."""
        records = list(self._records.items())[::step]
        for start in range(0, len(records), self._batch):
            yield dict(records[start : start + self._batch])
