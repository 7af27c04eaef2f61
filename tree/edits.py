"""The four ways a tree changes.

An edit is the log entry, the stored form (MessagePack) and the argument of `SemanticTree.apply`
at once. Splits, merges, collapses and regrown subtrees are all one `Reshape`: the nodes that
go, and the nodes that come with their whole content.
"""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from tree.errors import InvalidEdit


class PutItem(msgspec.Struct, frozen=True, tag="put", array_like=True):
    """Place an item in a leaf; an item of the same id leaves its old place."""

    id: str
    leaf: int
    vector: bytes  # int8[dimensions]
    domain: str = ""
    popularity: float = 0.0
    expires_at: float | None = None  # seconds since the epoch
    hidden: bool = False
    record: bytes = b""  # the item as JSON: kept by the store beside the log, not in it
    line: int = 0  # LINE_CODES
    terms: bytes = b""  # uint8[ROW_BYTES], see `tree.terms`; empty from a release that had none


class DropItem(msgspec.Struct, frozen=True, tag="drop", array_like=True):
    """Remove an item; nothing happens when the tree does not hold it."""

    id: str


class NodeSpec(msgspec.Struct, frozen=True, array_like=True):
    """A node as an edit describes it: an inner node has `children`, a leaf has `items`."""

    id: int
    label: str
    signpost: str = ""
    key: tuple[str, ...] = ()  # the domain and category prefix that it stands for, () for none
    children: tuple[int, ...] = ()
    items: tuple[str, ...] = ()
    locked: bool = False  # an administrator chose the label


class Reshape(msgspec.Struct, frozen=True, tag="reshape", array_like=True):
    """Remove the nodes `drop` and put the nodes `put` (new, or in place of their old selves).

    The live items below the tree must be the same before and after, each in one leaf.
    """

    drop: tuple[int, ...]
    put: tuple[NodeSpec, ...]


class Relabel(msgspec.Struct, frozen=True, tag="relabel", array_like=True):
    """Give a node another label and signpost."""

    node: int
    label: str
    signpost: str
    locked: bool = False


Edit: TypeAlias = PutItem | DropItem | Reshape | Relabel

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Edit])


def encode(edits: Sequence[Edit]) -> bytes:
    """The edits as MessagePack."""
    return _encoder.encode(edits)


def decode(data: bytes) -> list[Edit]:
    """The edits back. Raises InvalidEdit when `data` is not what `encode` wrote."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidEdit(f"unreadable log entry: {error}") from error
