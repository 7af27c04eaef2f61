"""A tree as a sequence of frames of bytes, for backups.

The frames are the header, the state of the embedder and the chunks of a snapshot, each with a
checksum in front.
"""

from collections.abc import Iterable, Iterator

from tree.errors import CorruptSnapshot
from tree.snapshot import SemanticTree
from tree.store import encoding


def frames(tree: SemanticTree) -> Iterator[bytes]:
    """The frames of a tree, each made when it is asked for."""
    header, chunks = encoding.encode_tree(tree)
    yield encoding.pack_header(header)
    yield encoding.pack_space(tree.space)
    yield from chunks


def tree_of(pieces: Iterable[bytes]) -> SemanticTree:
    """The tree of these frames. Raises CorruptSnapshot unless they make a whole one."""
    rest = iter(pieces)
    header = encoding.read_header(next(rest, None))
    space = encoding.read_space(header, next(rest, None))
    assembly = encoding.Assembly(header)
    count = 0
    for count, chunk in enumerate(rest, 1):  # noqa: B007 - the last one is how many they were
        assembly.add([chunk])
    if count != header.chunks:
        raise CorruptSnapshot(f"the tree has {count} chunks of {header.chunks}")
    return assembly.tree(space)
