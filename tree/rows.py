"""`Rows`: the items of a tree as columns, shared by all its versions.

One row says that an item was in a leaf with this vector and these facts. A row never changes: an
item that is updated or moved gets a new row, and its old row gets the version in which it died. So
a snapshot is a number of rows and a version, readers need no lock, and an edit costs what it
changes. Texts are not here; they are in the store.

Memory per row at 256 dimensions: 256 B vector, 40 B facts, the id twice its length at most, and
some 90 B for its terms: see `WordIndex`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tree.item import normalise
from tree.terms import TermMatrix, WordShares
from tree.vectors import Int8Matrix, inverse_norms
from tree.word_index import WordIndex

ALIVE = np.iinfo(np.int32).max
NOWHERE = -1
_FEW = 16  # ids: below, a loop is faster than arrays

IntArray = npt.NDArray[np.int32]
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows in transit: part of a build, a snapshot or a batch of edits."""

    ids: list[str]
    vectors: Int8Matrix
    popularity: npt.NDArray[np.float32]
    expires_at: npt.NDArray[np.float64]  # seconds since the epoch, inf for never
    hidden: npt.NDArray[np.bool_]
    domains: list[str]  # one per row
    lines: npt.NDArray[np.uint8] | None = None  # LINE_CODES; None where no item has a line
    terms: TermMatrix | None = None  # None: rows of a release that had none

    def take(self, order: npt.NDArray[np.integer]) -> "Columns":
        """The same columns with their rows in `order`."""
        return Columns(
            [self.ids[i] for i in order],
            self.vectors[order],
            self.popularity[order],
            self.expires_at[order],
            self.hidden[order],
            [self.domains[i] for i in order],
            None if self.lines is None else self.lines[order],
            None if self.terms is None else self.terms[order],
        )


class Rows:
    """Growing columns with indexes by item id and by word.

    One writer at a time; any number of readers. `common` are the shares of common words.
    """

    def __init__(
        self, dimensions: int, capacity: int = 64, common: WordShares | None = None
    ) -> None:
        self.size = 0
        self.head = 0  # the newest version that these rows hold
        self.dead = 0
        self.vectors: Int8Matrix = np.zeros((capacity, dimensions), np.int8)
        self.scale = np.zeros(capacity, np.float32)
        self.leaf = np.zeros(capacity, np.int32)
        self.died = np.zeros(capacity, np.int32)
        self._older: dict[int, int] = {}  # row by the next newer row of the same id
        self.popularity = np.zeros(capacity, np.float32)
        self.expires_at = np.zeros(capacity, np.float64)
        self.hidden = np.zeros(capacity, np.bool_)
        self.lines: npt.NDArray[np.uint8] = np.zeros(capacity, np.uint8)
        self.have_lines = False  # whether any of them ever had one
        self.domain = np.zeros(capacity, np.int32)
        self.domains: list[str] = []
        self._published_domains = 0
        self._domain_codes: dict[str, int] = {}
        self._alike: dict[str, list[int]] = {}  # codes of domains by what they mean
        self._id_ends = np.zeros(capacity, np.int64)
        self._id_bytes = bytearray()
        self._index = _Index()
        self.words = WordIndex(capacity, common)

    @property
    def dimensions(self) -> int:
        """The width of the vectors."""
        return self.vectors.shape[1]

    def append(self, columns: Columns, leaves: npt.ArrayLike) -> IntArray:
        """New rows, not yet indexed: `publish` or `truncate` must follow. Returns their numbers."""
        count = len(columns.ids)
        start, stop = self.size, self.size + count
        self._reserve(stop)
        self.vectors[start:stop] = columns.vectors
        self.scale[start:stop] = inverse_norms(columns.vectors)
        self.leaf[start:stop] = leaves
        self.died[start:stop] = ALIVE
        self.popularity[start:stop] = columns.popularity
        self.expires_at[start:stop] = columns.expires_at
        self.hidden[start:stop] = columns.hidden
        self.lines[start:stop] = 0 if columns.lines is None else columns.lines
        self.have_lines |= columns.lines is not None and bool(columns.lines.any())
        self.domain[start:stop] = [self._domain_code(name) for name in columns.domains]
        names = [item_id.encode("utf-8", "surrogatepass") for item_id in columns.ids]
        self._id_ends[start:stop] = np.cumsum([len(name) for name in names]) + len(self._id_bytes)
        self._id_bytes += b"".join(names)
        self.words.put(start, stop, columns.terms)
        self.size = stop
        return np.arange(start, stop, dtype=np.int32)

    def move(self, rows: IntArray, leaves: npt.ArrayLike) -> IntArray:
        """Copies of `rows` in other leaves, not yet indexed."""
        return self.append(self.columns(rows), leaves)

    def publish(self, version: int, since: int, gone: Iterable[int]) -> None:
        """Index the rows from `since` on, and mark the rows `gone` as dead, as of `version`."""
        last = np.fromiter(gone, np.int64)
        self.died[last] = version
        self.dead += len(last)
        if since:
            ids = self.ids(np.arange(since, self.size))
            for row, item_id, before in zip(
                range(since, self.size), ids, self._newest_of(ids), strict=True
            ):
                older = self._index.recent(item_id, before)
                if older != NOWHERE:
                    self._older[row] = older
                self._index.put(item_id, row)
        if not since:
            self._index = _Index.over(map(self.id, range(self.size)))
        elif self._index.overgrown:
            self._index = self._index.merged()
        self.words.publish(self.size, last)
        self._published_domains = len(self.domains)
        self.head = version

    def renumber(self, version: int) -> None:
        """Let `version` be the newest one, of which nobody has seen those before."""
        died = self.died[: self.size]
        died[died != ALIVE] = version
        self.head = version

    def truncate(self, size: int) -> None:
        """Remove the rows from `size` on, which were never published."""
        self.size = size
        for name in self.domains[self._published_domains :]:
            del self._domain_codes[name]
        del self.domains[self._published_domains :]
        del self._id_bytes[int(self._id_ends[size - 1]) if size else 0 :]

    def id(self, row: int) -> str:
        """The item id of a row."""
        start = int(self._id_ends[row - 1]) if row else 0
        return self._id_bytes[start : int(self._id_ends[row])].decode("utf-8", "surrogatepass")

    def ids(self, rows: npt.NDArray[np.integer]) -> list[str]:
        """The `id` of each of `rows`, at half the cost."""
        stops = self._id_ends[rows].tolist()
        starts = np.where(rows > 0, self._id_ends[rows - 1], 0).tolist()
        content = self._id_bytes
        return [
            content[start:stop].decode("utf-8", "surrogatepass")
            for start, stop in zip(starts, stops, strict=True)
        ]

    def domain_codes(self, name: str) -> Sequence[int]:
        """The positions in `domains` of all spellings of a domain; none when no item has it."""
        return self._alike.get(normalise(name), ())

    def find(self, item_id: str, version: int, size: int) -> int | None:
        """The row of an item among the first `size`, alive in `version`; None if there is none."""
        return self._seen(self._newest(item_id), version, size)

    def find_all(self, ids: Sequence[str], version: int, size: int) -> list[int | None]:
        """What `find` gives for each of `ids`, at a sixth of the cost."""
        newest = self._newest_of(ids)
        if len(ids) < _FEW:
            return [self._seen(row, version, size) for row in newest]
        rows = np.array(newest)
        here = (rows != NOWHERE) & (rows < size)
        here[here] = self.died[rows[here]] > version
        later = rows >= size
        found: list[int | None] = [
            row if known else None for row, known in zip(newest, here.tolist(), strict=True)
        ]
        for place in np.flatnonzero(later).tolist():
            found[place] = self._seen(newest[place], version, size)
        return found

    def _seen(self, row: int, version: int, size: int) -> int | None:
        while row >= size:
            row = self._older.get(row, NOWHERE)
        return row if row != NOWHERE and self.died[row] > version else None

    def columns(self, rows: IntArray) -> Columns:
        """The columns of some rows, in that order."""
        return Columns(
            self.ids(rows),
            self.vectors[rows],
            self.popularity[rows],
            self.expires_at[rows],
            self.hidden[rows],
            [self.domains[code] for code in self.domain[rows].tolist()],
            self.lines[rows] if self.have_lines else None,
            self.words.terms[rows],
        )

    def _newest(self, item_id: str) -> int:
        for row in self._index.candidates(item_id):
            if self.id(row) == item_id:
                return row
        return NOWHERE

    def _newest_of(self, ids: Sequence[str]) -> list[int]:
        found = self._index.first(ids)
        named = self.ids(np.array([row for row in found if row != NOWHERE], np.int64))
        names = iter(named)  # two ids may have the same hash
        return [
            row if row == NOWHERE or next(names) == item_id else self._newest(item_id)
            for item_id, row in zip(ids, found, strict=True)
        ]

    def _domain_code(self, name: str) -> int:
        code = self._domain_codes.get(name)
        if code is None:
            code = self._domain_codes[name] = len(self.domains)
            self.domains.append(name)
            self._alike.setdefault(normalise(name), []).append(code)
        return code

    def _reserve(self, size: int) -> None:
        if size <= len(self.scale):
            return
        capacity = max(size, len(self.scale) + len(self.scale) // 8 + 64)

        def grown(column: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
            larger = np.empty((capacity, *column.shape[1:]), column.dtype)
            larger[: self.size] = column[: self.size]
            return larger

        self.vectors = grown(self.vectors)
        self.scale, self.popularity = grown(self.scale), grown(self.popularity)
        self.leaf, self.died = grown(self.leaf), grown(self.died)
        self.expires_at, self.hidden = grown(self.expires_at), grown(self.hidden)
        self.lines = grown(self.lines)
        self.domain, self._id_ends = grown(self.domain), grown(self._id_ends)


class _Index:
    """Row numbers by id: a sorted array of hashes (8 B an id) and a small dict of new ones.

    A plain dict of 1M ids takes some 180 B an id, half of the memory that a replica may use.
    """

    def __init__(self) -> None:
        self._hashes: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._rows: IntArray = np.zeros(0, np.int32)
        self._recent: dict[str, int] = {}

    @classmethod
    def over(cls, ids: Iterable[str]) -> "_Index":
        """An index of `ids`, which are in rows 0, 1, 2 … and may repeat: the last one wins."""
        index = cls()
        hashes = np.fromiter(map(_hash, ids), np.uint32)
        order = np.argsort(hashes, kind="stable")  # equal ids stay in the order of their rows
        index._hashes = hashes[order]
        index._rows = order.astype(np.int32)
        return index

    def merged(self) -> "_Index":
        """An index with the same content and no new ones: a copy, as this one may be in use."""
        count = len(self._recent)
        hashes = np.fromiter(map(_hash, self._recent), np.uint32, count)
        rows = np.fromiter(self._recent.values(), np.int32, count)
        order = np.argsort(hashes, kind="stable")
        places = np.searchsorted(self._hashes, hashes[order], side="right")  # after older rows
        index = _Index()
        index._hashes = np.insert(self._hashes, places, hashes[order])
        index._rows = np.insert(self._rows, places, rows[order])
        return index

    def put(self, item_id: str, row: int) -> None:
        self._recent[item_id] = row

    def recent(self, item_id: str, older: int) -> int:
        """The newest row of an id whose newest row was `older` before."""
        return self._recent.get(item_id, older)

    def first(self, ids: Sequence[str]) -> list[int]:
        """The first of the `candidates` of each of `ids`; NOWHERE if there is none."""
        hashes = np.fromiter(map(_hash, ids), np.uint32, len(ids))
        places = np.searchsorted(self._hashes, hashes, side="right") - 1
        found = np.full(len(ids), NOWHERE)
        if len(self._hashes):
            there = (places >= 0) & (self._hashes[places] == hashes)
            found[there] = self._rows[places[there]]
        return [
            self._recent.get(item_id, row) for item_id, row in zip(ids, found.tolist(), strict=True)
        ]

    @property
    def overgrown(self) -> bool:
        return len(self._recent) > 4_096 + len(self._rows) // 8

    def candidates(self, item_id: str) -> Iterable[int]:
        """Rows that may hold `item_id`, newest first."""
        recent = self._recent.get(item_id)
        if recent is not None:
            yield recent
            return
        wanted = np.uint32(_hash(item_id))
        place = int(np.searchsorted(self._hashes, wanted, side="right")) - 1
        while place >= 0 and self._hashes[place] == wanted:
            yield int(self._rows[place])
            place -= 1


def _hash(item_id: str) -> int:
    """32 bits; in a million ids some hundred collide, which `find` resolves."""
    return hash(item_id) & 0xFFFFFFFF
