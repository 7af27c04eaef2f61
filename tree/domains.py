"""`Domains`: whether an item may bring a new domain."""

from tree.errors import TooManyDomains
from tree.snapshot import MOST_DOMAINS, SemanticTree


class Domains:
    """The domains of a tree, and those of items that were accepted since.

    The number is limited because a request with `domains` compares every name: 10,000 take 5 ms.
    Writes of several processes at the same moment may exceed the limit a little. Existing domains
    stay.
    """

    def __init__(self, tree: SemanticTree) -> None:
        self._tree = tree
        self._names: set[str] = set()
        self._complete = False  # whether `_names` holds all names of the tree

    def check(self, name: str) -> None:
        """Accept an item of this domain. Raises TooManyDomains."""
        if name in self._names:
            return
        if not self._complete and len(self._tree.rows.domains) + len(self._names) >= MOST_DOMAINS:
            self._names |= self._tree.domains()  # without domains that have no items now
            self._complete = True
        if self._complete and name not in self._names and len(self._names) >= MOST_DOMAINS:
            raise TooManyDomains(
                f"the catalogue has {len(self._names):,} domains, and may not get another: use one "
                "that it has, and tell items apart by categories or attributes"
            )
        self._names.add(name)
