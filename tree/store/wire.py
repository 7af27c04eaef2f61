"""What the store holds, as bytes: log entries, item records, and snapshots.

A snapshot is a header and chunks of about a thousand items, each piece MessagePack behind a CRC-32
of it. A chunk holds a run of nodes, parents first, and the items of the leaves among them as
columns, leaf by leaf. So a snapshot is written and read with a few chunks in memory, whatever its
size.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from tree.edits import DropItem, Edit, NodeSpec, PutItem
from tree.edits import encode as encode_edits
from tree.errors import CorruptSnapshot, InvalidEdit
from tree.item import Item
from tree.node import Node, Space, TreeSettings
from tree.rows import Columns, Rows
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, FACETS

CHUNK_ITEMS = 1_000
_CRC_BYTES = 4


class Header(msgspec.Struct, frozen=True):
    """What must be known before the first chunk is read."""

    version: int
    next_node: int
    settings: TreeSettings
    embedder: str
    fingerprint: str
    items: int
    chunks: int
    format: int = 1


class _Chunk(msgspec.Struct, frozen=True, array_like=True):
    number: int
    specs: list[NodeSpec]
    leaf_sizes: list[int]
    leaf_facets: bytes  # int8[leaves, FACETS, DIMENSIONS]
    ids: list[str]
    vectors: bytes  # int8[items, DIMENSIONS]
    popularity: bytes  # float32[items]
    expires_at: bytes  # float64[items]
    hidden: bytes  # bool[items]
    domains: list[str]
    domain_codes: bytes  # uint16[items], into `domains`


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_chunk_decoder = msgspec.msgpack.Decoder(_Chunk)


def encode(tree: SemanticTree) -> tuple[Header, Iterator[bytes]]:
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
    )
    return header, (_packed(tree, number, nodes) for number, nodes in enumerate(groups))


def pack_header(header: Header) -> bytes:
    return _sealed(_encoder.encode(header))


def read_header(data: bytes | None) -> Header:
    """Raises CorruptSnapshot when `data` is missing or damaged."""
    try:
        return _header_decoder.decode(_opened(data, "the header of the snapshot"))
    except msgspec.DecodeError as error:
        raise CorruptSnapshot(f"the header of the snapshot is unreadable: {error}") from error


def pack_space(space: Space) -> bytes:
    """The state of a space, compressed when that makes it smaller."""
    squeezed = zlib.compress(space.state, level=1)
    return _sealed(min(b"z" + squeezed, b"=" + space.state, key=len))


def read_space(header: Header, data: bytes | None) -> Space:
    """The space that `header` names. Raises CorruptSnapshot."""
    body = _opened(data, f"the state of the embedder {header.embedder} ({header.fingerprint})")
    state = zlib.decompress(body[1:]) if body[:1] == b"z" else body[1:]
    return Space(header.embedder, header.fingerprint, state)


class Assembly:
    """A tree in the making: chunk after chunk, in their order."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._chunks = 0
        self._specs: list[NodeSpec] = []
        self._leaf_sizes: list[int] = []
        self._leaf_facets: list[npt.NDArray[np.int8]] = []
        # Each chunk goes straight into the rows: a million ids as strings, alive at once among
        # the nodes, would leave the interpreter's memory full of holes (86 B an item).
        self._rows = Rows(header.items)

    def add(self, chunks: Iterable[bytes | None]) -> None:
        """The next chunks. Raises CorruptSnapshot when one is missing, damaged or misplaced."""
        for data in chunks:
            self._add(data)

    def tree(self, space: Space) -> SemanticTree:
        """The whole tree. Raises CorruptSnapshot when the chunks do not make one."""
        header = self._header
        try:
            return SemanticTree.assemble(
                self._specs,
                self._rows,
                self._leaf_sizes,
                version=header.version,
                settings=header.settings,
                space=space,
                next_node=header.next_node,
                leaf_facets=np.concatenate(self._leaf_facets),
            )
        except (InvalidEdit, ValueError) as error:
            message = f"snapshot version {header.version} is not whole: {error}"
            raise CorruptSnapshot(message) from error

    def _add(self, data: bytes | None) -> None:
        header = self._header
        what = f"chunk {self._chunks} of {header.chunks} of snapshot version {header.version}"
        body = _opened(data, what)
        try:
            chunk = _chunk_decoder.decode(body)
            if chunk.number != self._chunks:
                raise ValueError(f"it is chunk {chunk.number}")
            self._take(chunk)
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            raise CorruptSnapshot(f"{what} is unreadable: {error}") from error
        self._chunks += 1

    def _take(self, chunk: _Chunk) -> None:
        codes = np.frombuffer(chunk.domain_codes, np.uint16).tolist()
        columns = Columns(
            chunk.ids,
            np.frombuffer(chunk.vectors, np.int8).reshape(-1, DIMENSIONS),
            np.frombuffer(chunk.popularity, np.float32),
            np.frombuffer(chunk.expires_at, np.float64),
            np.frombuffer(chunk.hidden, np.bool_),
            [chunk.domains[code] for code in codes],
        )
        leaves = [spec.id for spec in chunk.specs if not spec.children]
        self._rows.append(columns, np.repeat(leaves, chunk.leaf_sizes))
        self._specs += chunk.specs
        self._leaf_sizes += chunk.leaf_sizes
        compass = np.frombuffer(chunk.leaf_facets, np.int8)
        self._leaf_facets.append(compass.reshape(-1, FACETS, DIMENSIONS))


def pack_edits(edits: Sequence[Edit]) -> bytes:
    """The edits as the log keeps them: without the records, which stand beside it."""
    bare = [
        msgspec.structs.replace(edit, record=b"") if isinstance(edit, PutItem) else edit
        for edit in edits
    ]
    return encode_edits(bare)


def records(edits: Sequence[Edit]) -> dict[str, bytes | None]:
    """What becomes of the records of the items that `edits` touch; the last edit of one decides.

    None: it goes. Empty: it stays as it is, because the edit brought none.
    """
    outcome: dict[str, bytes | None] = {}
    for edit in edits:
        match edit:
            case PutItem():
                outcome[edit.id] = edit.record
            case DropItem():
                outcome[edit.id] = None
    return outcome


def read_item(item_id: str, record: bytes) -> Item:
    """The item of a record. Raises CorruptSnapshot."""
    try:
        return Item.model_validate_json(record)
    except ValidationError as error:
        raise CorruptSnapshot(f"the record of item {item_id!r} is unreadable: {error}") from error


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
    compass = [tree.facets_of(leaf).tobytes() for leaf in leaves]
    chunk = _Chunk(
        number=number,
        specs=[tree.spec(node, with_items=False) for node in nodes],
        leaf_sizes=[len(leaf.rows) for leaf in leaves],
        leaf_facets=b"".join(compass),
        ids=columns.ids,
        vectors=columns.vectors.tobytes(),
        popularity=columns.popularity.tobytes(),
        expires_at=columns.expires_at.tobytes(),
        hidden=columns.hidden.tobytes(),
        domains=list(domains),
        domain_codes=np.array([domains[name] for name in columns.domains], np.uint16).tobytes(),
    )
    return _sealed(_encoder.encode(chunk))


def _sealed(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(_CRC_BYTES, "big") + body


def _opened(data: bytes | None, what: str) -> bytes:
    if data is None:
        raise CorruptSnapshot(f"{what} is missing")
    body = data[_CRC_BYTES:]
    if zlib.crc32(body).to_bytes(_CRC_BYTES, "big") != data[:_CRC_BYTES]:
        raise CorruptSnapshot(f"{what} is damaged")
    return body
