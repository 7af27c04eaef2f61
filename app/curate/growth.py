"""`Growth`: when a catalogue has outgrown its tree."""

from app.embedders import EmbedderCache
from tree.snapshot import SemanticTree

_FIRST_FIT = 64  # items after which an unfitted catalogue is built for the first time


class Growth:
    """Compares a tree with the number of items that its vector space was fitted to."""

    def __init__(self, embedders: EmbedderCache, factor: float) -> None:
        """`factor`: 2 for a tree that should be built anew after as many arrivals as items."""
        self._embedders = embedders
        self._factor = factor

    def outgrown(self, tree: SemanticTree, more: int = 0) -> bool:
        """Whether so many items arrived since the build that the tree should be built anew.

        Also when as many items left: the vector space was fitted to those, and tells the new ones
        less well apart. `more` items are about to arrive.
        """
        built_of = self._embedders.of(tree.space).population
        arrived = tree.arrived + more
        return len(tree) + more >= _FIRST_FIT and arrived >= (self._factor - 1) * built_of
