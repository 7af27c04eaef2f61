"""`Fields`: which rows of a catalogue pass a filter, by columns that the first filter builds.

The tree holds no text and no attributes: the values of a field come from the records. The first
filter on a field reads all of them once, in the background (64,000 items: a second; 100 million:
some 20 minutes). A request that cannot wait that long ends by its own deadline; the columns are
finished for the next one. After that a filter reads only new rows: rows never change, and an edit
makes a new one. A process starts without columns, and so does the tree of a rebuild.

Columns of all catalogues together take at most `filter_memory_mb`; the least recently used ones are
dropped first. For the size of each see `app.recommend.columns`.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from app.recommend.columns import Column, Mask, keys_of, passing
from app.recommend.filters import Filter, field_of, values_of
from app.recommend.spelling import all_hinted
from tree.errors import CorruptSnapshot, TreeError
from tree.item import Item
from tree.redis.checksum import unseal
from tree.rows import Rows
from tree.snapshot import SemanticTree
from tree.store.protocol import ItemRecords
from tree.worker import Background, result_of

_OWN = frozenset(Item.model_fields) - {"attributes"}
_AT_ONCE = 500  # records
_LONG = 5_000  # rows: larger reads run one at a time
_NAMES = 10_000  # of attributes that are remembered
_MEMORY_BYTES = 256 * 2**20  # unless the settings say otherwise
_COLUMNS = 2_000  # of all catalogues: a pass over them takes 1 ms
_REFUSED = 100  # sets of fields that take more memory than there is
_EVALUATORS = 2  # threads; numpy releases the interpreter

_Key = tuple[str, bool]  # a field, and whether its words are in order


class FilterTooLarge(Exception):
    """The fields of a filter take more memory than there is for columns."""


@dataclass(frozen=True, slots=True)
class FilterResult:
    """bool[tree.size]: the rows that pass; and a message for each field that no item has."""

    rows: Mask
    unknown: tuple[str, ...] = ()


class _FilterRecord(msgspec.Struct):
    """The fields of an item that a filter may test; `tree.item.Item` has validated them."""

    id: str
    title: str = ""
    description: str = ""
    categories: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    domain: str = ""
    attributes: dict[str, str | int | float | bool | tuple[str, ...]] = {}
    image_url: str = ""
    popularity: float | None = None
    published_at: datetime | None = None
    expires_at: datetime | None = None
    hidden: bool = False


_decoder = msgspec.json.Decoder(_FilterRecord)


@dataclass(slots=True)
class _FieldNames:
    """The names of the attributes of the rows so far."""

    height: int = 0
    found: set[str] = field(default_factory=set)

    def add(self, names: Iterable[str]) -> None:
        if len(self.found) <= _NAMES:
            self.found.update(names)

    def lack(self, name: str, size: int) -> bool:
        """Whether no row below `size` has a field of that name, as far as is known."""
        known = self.height >= size and len(self.found) <= _NAMES
        return known and name not in self.found and name not in _OWN

    def messages(self, lacking: Collection[str], over: Callable[[], bool]) -> tuple[str, ...]:
        """A message for each field that no item has; the first ones suggest what was meant."""
        return all_hinted("no item has the field", lacking, [*_OWN, *self.found], over)


class _ColumnTable:
    """The columns of some rows. A column that is being read does not cover all of them yet."""

    def __init__(self) -> None:
        self.columns: dict[_Key, Column] = {}
        self.reads: dict[_Key, asyncio.Task[None]] = {}
        self.refused: set[frozenset[_Key]] = set()  # they take more memory than there is
        self.names = _FieldNames()


class ColumnMemory:
    """The columns of all catalogues of a process, and the threads that work on them."""

    def __init__(self, limit_bytes: int = _MEMORY_BYTES) -> None:
        self._limit = limit_bytes
        self._tables: WeakKeyDictionary[Rows, _ColumnTable] = WeakKeyDictionary()
        self._clock = count(1)
        self.evaluators = ThreadPoolExecutor(_EVALUATORS, "filters")
        self.reading_thread = ThreadPoolExecutor(1, "columns")
        self.one_at_a_time = asyncio.Semaphore(1)

    def table(self, rows: Rows) -> _ColumnTable:
        return self._tables.setdefault(rows, _ColumnTable())

    def touch(self, columns: Iterable[Column]) -> None:
        """Mark columns as used now."""
        for column in columns:
            column.used = next(self._clock)

    def make_room(self, needed: Collection[Column]) -> bool:
        """Drop the least recently used columns until all are within the limits.

        Empty columns are dropped first. False where the needed columns alone exceed the limit.
        """
        kept = set(needed)
        others = [
            (column, key, table)
            for table in self._tables.values()
            for key, column in table.columns.items()
            if column not in kept
        ]
        left = self._limit - sum(column.nbytes for column in kept)
        over = sum(column.nbytes for column, _, _ in others) - left
        many = len(others) + len(kept) - _COLUMNS
        if over > 0 or many > 0:
            others.sort(key=lambda other: (not other[0].is_empty, other[0].used))
        for column, key, table in others:
            if over <= 0 and many <= 0:
                break
            if key not in table.reads:
                del table.columns[key]
                over, many = over - column.nbytes, many - 1
        return left >= 0

    def too_large(self) -> FilterTooLarge:
        return FilterTooLarge(
            f"the fields of this filter take more than {self._limit // 2**20:,} MB of memory: "
            "filter by fewer, or raise UNILLMREC_FILTER_MEMORY_MB"
        )

    def close(self) -> None:
        self.evaluators.shutdown(wait=False, cancel_futures=True)
        self.reading_thread.shutdown(wait=False, cancel_futures=True)


class Fields:
    """Evaluates the filters of one catalogue."""

    def __init__(self, store: ItemRecords, memory: ColumnMemory) -> None:
        self._store = store
        self._memory = memory
        self._reads = Background("columns of filters", (TreeError, FilterTooLarge))

    async def passing(self, tree: SemanticTree, asked: Filter) -> FilterResult:
        """The rows of `tree` that pass a filter.

        An item that was imported again counts with its old values until it is placed. Raises
        FilterTooLarge, StoreUnavailable.
        """
        columns = await self._columns(tree, keys_of(asked))
        names = self._memory.table(tree.rows).names
        over = threading.Event()

        def work() -> FilterResult:
            rows = passing(asked, columns, tree.size, over.is_set)
            fields = dict.fromkeys(one.field for one in asked.conditions)
            unknown = [one for one in fields if names.lack(one, tree.size)]
            return FilterResult(rows, names.messages(unknown, over.is_set) if unknown else ())

        try:
            return await asyncio.get_running_loop().run_in_executor(self._memory.evaluators, work)
        finally:
            over.set()  # a cancelled request does not need the rest

    async def aclose(self) -> None:
        """Stop reading. The memory is closed by its owner."""
        await self._reads.aclose()

    async def _columns(self, tree: SemanticTree, keys: Collection[_Key]) -> dict[_Key, Column]:
        """The columns, as high as the tree."""
        table = self._memory.table(tree.rows)
        while True:
            if frozenset(keys) in table.refused:
                raise self._memory.too_large()
            lacking = {key: Column() for key in keys if table.names.lack(key[0], tree.size)}
            wanted = [key for key in keys if key not in lacking]
            low = [key for key in wanted if not _reaches(table.columns.get(key), tree.size)]
            found = {key: table.columns[key] for key in wanted if key in table.columns}
            self._memory.touch(found.values())
            if not low:
                return found | lacking
            if new := [key for key in low if key not in table.reads]:
                task = self._reads.start(self._read(table, tree, new, frozenset(keys)))
                table.reads |= dict.fromkeys(new, task)
            for read in {table.reads[key] for key in low}:
                await result_of(read)  # it goes on for the next request if this one is over

    async def _read(
        self,
        table: _ColumnTable,
        tree: SemanticTree,
        keys: Collection[_Key],
        needed: frozenset[_Key],
    ) -> None:
        """Extend some of the needed columns to the whole tree; a failure keeps what was read."""
        try:
            columns = {key: table.columns.setdefault(key, Column(ordered=key[1])) for key in keys}
            for height in sorted({column.height for column in columns.values()}):
                group = {key: one for key, one in columns.items() if one.height == height}
                async with AsyncExitStack() as stack:
                    if tree.size - height > _LONG:
                        await stack.enter_async_context(self._memory.one_at_a_time)
                    async for _ in self._grow(height, table, tree, group):
                        every = [table.columns[key] for key in needed if key in table.columns]
                        if not self._memory.make_room(every):
                            if len(table.refused) >= _REFUSED:
                                table.refused.clear()
                            table.refused.add(needed)
                            for key in keys:
                                del table.columns[key]
                            raise self._memory.too_large()
        finally:
            for key in keys:
                table.reads.pop(key, None)

    async def _grow(
        self, height: int, table: _ColumnTable, tree: SemanticTree, columns: Mapping[_Key, Column]
    ) -> AsyncIterator[None]:
        """Add the rows from `height` on, batch by batch."""
        loop = asyncio.get_running_loop()
        names = table.names if height <= table.names.height else _FieldNames()
        for start in range(height, tree.size, _AT_ONCE):
            stop = min(start + _AT_ONCE, tree.size)
            rows = start + np.flatnonzero(tree.rows.died[start:stop] > tree.version)
            ids = tree.rows.ids(rows)
            sealed = await self._store.records(ids) if ids else {}
            found = [
                (row, sealed[one])
                for row, one in zip(rows.tolist(), ids, strict=True)
                if one in sealed
            ]
            await loop.run_in_executor(self._memory.reading_thread, _take, found, columns, names)
            for column in columns.values():
                column.height = stop
            yield
        names.height = max(names.height, tree.size)


def _take(
    sealed: Collection[tuple[int, bytes]], columns: Mapping[_Key, Column], names: _FieldNames
) -> None:
    """Add the values of some records to the columns. A damaged record has none."""
    records: list[tuple[int, _FilterRecord]] = []
    for row, data in sealed:
        with suppress(CorruptSnapshot, msgspec.DecodeError):
            records.append((row, _decoder.decode(unseal(data, "a record"))))
    names.add(name for _, record in records for name in record.attributes)
    for (name, _), column in columns.items():
        column.add(
            (row, value) for row, record in records for value in values_of(field_of(record, name))
        )


def _reaches(column: Column | None, size: int) -> bool:
    return column is not None and column.height >= size
