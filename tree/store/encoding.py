"""What the store holds, as bytes: log entries, item records, and snapshots.

Each piece has a CRC-32 in front: see `tree.redis.checksum`.

A snapshot is a header and chunks of about a thousand items, in MessagePack. A chunk holds a run of
nodes, parents first, and the items of the leaves among them as columns, leaf by leaf. So a
snapshot is written and read with a few chunks in memory, whatever its size.
"""

import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from tree.edits import DropItem, Edit, NodeSpec, PutItem
from tree.edits import decode as decode_edits
from tree.edits import encode as encode_edits
from tree.errors import CorruptSnapshot, InvalidEdit
from tree.item import Item
from tree.node import Node, Space, TreeSettings
from tree.redis.checksum import seal, unseal
from tree.rows import Columns, Rows
from tree.snapshot import SemanticTree
from tree.terms import ROW_BYTES, WordShares
from tree.vectors import CENTROIDS_PER_NODE, DIMENSIONS

CHUNK_ITEMS = 1_000
_LOGGED_AT_MOST = 1_000

_log = logging.getLogger(__name__)


class Header(msgspec.Struct, frozen=True):
    """Read before the first chunk."""

    version: int
    next_node: int
    settings: TreeSettings
    embedder: str
    fingerprint: str
    items: int
    chunks: int
    format: int = 1
    arrived: int = 0
    dimensions: int = DIMENSIONS
    common_words: bytes = b""  # see `WordShares`
    sample: int = 0  # items that these were counted in


class _Chunk(msgspec.Struct, frozen=True, array_like=True):
    number: int
    specs: list[NodeSpec]
    leaf_sizes: list[int]
    leaf_centroids: bytes  # int8[leaves, CENTROIDS_PER_NODE, dimensions]
    ids: list[str]
    vectors: bytes  # int8[items, dimensions]
    popularity: bytes  # float32[items]
    expires_at: bytes  # float64[items]
    hidden: bytes  # bool[items]
    domains: list[str]
    domain_codes: bytes  # uint16[items], into `domains`
    lines: bytes = b""  # uint8[items], or none where no item has a line
    terms: bytes = b""  # uint8[items, ROW_BYTES]; empty from a release that had none


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_chunk_decoder = msgspec.msgpack.Decoder(_Chunk)


def encode_tree(tree: SemanticTree) -> tuple[Header, Iterator[bytes]]:
    """The header of `tree` and its chunks, each made when it is asked for."""
    groups = list(_groups(tree))
    header = Header(
        version=tree.version,
        next_node=tree.next_node,
        settings=tree.settings,
        embedder=tree.space.embedder,
        fingerprint=tree.space.fingerprint,
        items=len(tree),
        chunks=len(groups),
        arrived=tree.arrived,
        dimensions=tree.space.dimensions,
        common_words=tree.rows.words.common.packed(),
        sample=tree.rows.words.common.population,
    )
    return header, (_packed(tree, number, nodes) for number, nodes in enumerate(groups))


def pack_header(header: Header) -> bytes:
    return seal(_encoder.encode(header))


def read_header(data: bytes | None) -> Header:
    """Raises CorruptSnapshot when `data` is missing or damaged."""
    try:
        return _header_decoder.decode(unseal(data, "the header of the snapshot"))
    except msgspec.DecodeError as error:
        raise CorruptSnapshot(f"the header of the snapshot is unreadable: {error}") from error


def pack_space(space: Space) -> bytes:
    """The state of a space, compressed when that makes it smaller."""
    squeezed = zlib.compress(space.state, level=1)
    return seal(min(b"z" + squeezed, b"=" + space.state, key=len))


def read_space(header: Header, data: bytes | None) -> Space:
    """The space that `header` names. Raises CorruptSnapshot."""
    body = unseal(data, f"the state of the embedder {header.embedder} ({header.fingerprint})")
    state = zlib.decompress(body[1:]) if body[:1] == b"z" else body[1:]
    return Space(header.embedder, header.fingerprint, state, header.dimensions)


class Assembly:
    """Makes a tree of its chunks, which are added in their order."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._chunks = 0
        self._specs: list[NodeSpec] = []
        self._leaf_sizes: list[int] = []
        self._leaf_centroids: list[npt.NDArray[np.int8]] = []
        # Each chunk is appended to the rows at once: a million ids as strings among the nodes would
        # fragment the memory of the interpreter (86 B an item).
        try:
            common = WordShares.unpacked(header.common_words, header.sample)
        except ValueError as error:
            raise CorruptSnapshot(f"the header of the snapshot is unreadable: {error}") from error
        self._rows = Rows(header.dimensions, header.items, common)

    def add(self, chunks: Iterable[bytes | None]) -> None:
        """The next chunks. Raises CorruptSnapshot when one is missing, damaged or misplaced."""
        for data in chunks:
            self._add(data)

    def tree(self, space: Space) -> SemanticTree:
        """The whole tree. Raises CorruptSnapshot when the chunks do not make one."""
        header = self._header
        try:
            tree = SemanticTree.assemble(
                self._specs,
                self._rows,
                self._leaf_sizes,
                version=header.version,
                settings=header.settings,
                space=space,
                next_node=header.next_node,
                leaf_centroids=np.concatenate(self._leaf_centroids),
            )
        except (InvalidEdit, ValueError) as error:
            message = f"snapshot version {header.version} is not whole: {error}"
            raise CorruptSnapshot(message) from error
        tree.arrived = header.arrived
        return tree

    def _add(self, data: bytes | None) -> None:
        chunk = _read_chunk(self._header, self._chunks, data)
        try:
            self._take(chunk)
        except (ValueError, IndexError) as error:
            what = _chunk_name(self._header, self._chunks)
            raise CorruptSnapshot(f"{what} is unreadable: {error}") from error
        self._chunks += 1

    def _take(self, chunk: _Chunk) -> None:
        codes = np.frombuffer(chunk.domain_codes, np.uint16).tolist()
        columns = Columns(
            chunk.ids,
            np.frombuffer(chunk.vectors, np.int8).reshape(-1, self._header.dimensions),
            np.frombuffer(chunk.popularity, np.float32),
            np.frombuffer(chunk.expires_at, np.float64),
            np.frombuffer(chunk.hidden, np.bool_),
            [chunk.domains[code] for code in codes],
            np.frombuffer(chunk.lines, np.uint8) if chunk.lines else None,
            np.frombuffer(chunk.terms, np.uint8).reshape(-1, ROW_BYTES) if chunk.terms else None,
        )
        leaves = [spec.id for spec in chunk.specs if not spec.children]
        self._rows.append(columns, np.repeat(leaves, chunk.leaf_sizes))
        self._specs += chunk.specs
        self._leaf_sizes += chunk.leaf_sizes
        centroids = np.frombuffer(chunk.leaf_centroids, np.int8)
        self._leaf_centroids.append(
            centroids.reshape(-1, CENTROIDS_PER_NODE, self._header.dimensions)
        )


def items_in_chunk(header: Header, number: int, data: bytes | None) -> int:
    """How many items a chunk holds. Raises CorruptSnapshot."""
    return len(_read_chunk(header, number, data).ids)


def pack_edits(edits: Sequence[Edit]) -> bytes:
    """The edits as the log keeps them: without the records, which stand beside it."""
    bare = [
        msgspec.structs.replace(edit, record=b"") if isinstance(edit, PutItem) else edit
        for edit in edits
    ]
    return seal(encode_edits(bare))


def read_edits(version: int, data: bytes | None) -> list[Edit]:
    """The edits that led to `version`. Raises CorruptSnapshot."""
    try:
        return decode_edits(unseal(data, f"log entry {version}"))
    except InvalidEdit as error:
        raise CorruptSnapshot(f"log entry {version} is unreadable: {error}") from error


def pack_item(item: Item) -> bytes:
    return seal(item.record())


def records(edits: Sequence[Edit]) -> dict[str, bytes | None]:
    """The new records of the items that `edits` touch, by the last edit of each item.

    None: the record is removed. Empty: it stays as it is, because the edit has none.
    """
    outcome: dict[str, bytes | None] = {}
    for edit in edits:
        match edit:
            case PutItem():
                outcome[edit.id] = edit.record and seal(edit.record)
            case DropItem():
                outcome[edit.id] = None
    return outcome


def read_item(item_id: str, data: bytes | None) -> Item:
    """The item of a record. Raises CorruptSnapshot."""
    what = f"the record of item {item_id!r}"
    try:
        item = Item.stored(unseal(data, what))
    except ValidationError as error:
        raise CorruptSnapshot(f"{what} is unreadable: {error}") from error
    if item.id != item_id:
        raise CorruptSnapshot(f"{what} is that of {item.id!r}")
    return item


class RecordReader:
    """Reads item records. Damaged ones are left out, and logged once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def items(self, found: Mapping[str, bytes | None]) -> dict[str, Item]:
        """The items of some records by id; a record that is None is missing."""
        items: dict[str, Item] = {}
        for item_id, record in found.items():
            if record is None:
                continue
            try:
                items[item_id] = read_item(item_id, record)
            except CorruptSnapshot as error:
                self._log_once(item_id, error)
        return items

    def sound(self, found: Mapping[str, bytes | None]) -> dict[str, bytes]:
        """The records with a right checksum, which they keep: for `read_item`, in any process."""
        sound: dict[str, bytes] = {}
        for item_id, record in found.items():
            if record is None:
                continue
            try:
                unseal(record, f"the record of item {item_id!r}")
            except CorruptSnapshot as error:
                self._log_once(item_id, error)
            else:
                sound[item_id] = record
        return sound

    def _log_once(self, item_id: str, error: CorruptSnapshot) -> None:
        if item_id not in self._logged and len(self._logged) < _LOGGED_AT_MOST:
            self._logged.add(item_id)
            _log.error("%s: it is left out; put the item again, or delete it", error)


def record_flaws(found: Mapping[str, bytes | None]) -> dict[str, str]:
    """What is wrong with some records, by id; missing ones included."""
    flaws: dict[str, str] = {}
    for item_id, record in found.items():
        try:
            read_item(item_id, record)
        except CorruptSnapshot as error:
            flaws[item_id] = str(error)
    return flaws


def _chunk_name(header: Header, number: int) -> str:
    return f"chunk {number} of {header.chunks} of snapshot version {header.version}"


def _read_chunk(header: Header, number: int, data: bytes | None) -> _Chunk:
    what = _chunk_name(header, number)
    try:
        chunk = _chunk_decoder.decode(unseal(data, what))
    except msgspec.DecodeError as error:
        raise CorruptSnapshot(f"{what} is unreadable: {error}") from error
    if chunk.number != number:
        raise CorruptSnapshot(f"{what} is unreadable: it is chunk {chunk.number}")
    return chunk


def _groups(tree: SemanticTree) -> Iterator[list[Node]]:
    """Runs of nodes, parents first, with CHUNK_ITEMS items or slightly more each."""
    nodes: list[Node] = []
    items = 0
    for node in tree.walk():
        nodes.append(node)
        items += len(node.rows)
        if items >= CHUNK_ITEMS:
            yield nodes
            nodes, items = [], 0
    if nodes:
        yield nodes


def _packed(tree: SemanticTree, number: int, nodes: list[Node]) -> bytes:
    leaves = [node for node in nodes if node.is_leaf]
    columns = tree.rows.columns(np.concatenate([leaf.rows for leaf in leaves]))
    domains = {name: code for code, name in enumerate(dict.fromkeys(columns.domains))}
    centroids = [tree.centroids_of(leaf).tobytes() for leaf in leaves]
    chunk = _Chunk(
        number=number,
        specs=[tree.spec(node, with_items=False) for node in nodes],
        leaf_sizes=[len(leaf.rows) for leaf in leaves],
        leaf_centroids=b"".join(centroids),
        ids=columns.ids,
        vectors=columns.vectors.tobytes(),
        popularity=columns.popularity.tobytes(),
        expires_at=columns.expires_at.tobytes(),
        hidden=columns.hidden.tobytes(),
        domains=list(domains),
        domain_codes=np.array([domains[name] for name in columns.domains], np.uint16).tobytes(),
        lines=b"" if columns.lines is None else columns.lines.tobytes(),
        terms=b"" if columns.terms is None else columns.terms.tobytes(),
    )
    return seal(_encoder.encode(chunk))
