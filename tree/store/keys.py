"""The names of the keys of a catalogue's tree. No other module builds them.

All keys of one catalogue, also those of its users and events, carry its id as their hash tag.

A catalogue's id is its name and a random creation, `books~1a2b3c4d`: a name that is used again
never meets the keys of the catalogue that had it before. Those that an older release has created
have no creation, and their id is their name.
"""

import re

from tree.redis.keys import DEFAULT_PREFIX, Lifetime, stem

_CATALOG = re.compile(r"[a-z0-9_-]{1,64}(~[0-9a-f]{8})?")
_CREATION = "~"

TREE_ROLES = {
    "head": Lifetime.PERMANENT,  # for a day only, once the catalogue is deleted
    "log": Lifetime.PERMANENT,
    "staged": Lifetime.PERMANENT,
    "item": Lifetime.PERMANENT,
    "snapshot": Lifetime.CURRENT,
    "space": Lifetime.CURRENT,
    "compacting": Lifetime.EXPIRING,
    "turn": Lifetime.EXPIRING,
    "mark": Lifetime.EXPIRING,
}


def catalog_id(name: str, creation: str) -> str:
    """The id of one creation of a catalogue; see the module."""
    return f"{name}{_CREATION}{creation}" if creation else name


def name_of(catalog_id: str) -> str:
    """The name in the id of a catalogue."""
    return catalog_id.partition(_CREATION)[0]


def creation_of(catalog_id: str) -> str:
    """The creation in the id of a catalogue; empty where it has none."""
    return catalog_id.partition(_CREATION)[2]


def tag_of(key: str, prefix: str = DEFAULT_PREFIX) -> str | None:
    """The id of the catalogue that a key belongs to; None for any other key."""
    begin = f"{prefix}:{{"
    tag, end, _ = key.removeprefix(begin).partition("}:")
    return tag if key.startswith(begin) and end and _CATALOG.fullmatch(tag) else None


def catalog_stem(catalog_id: str, prefix: str = DEFAULT_PREFIX) -> str:
    """What all keys of a catalogue begin with.

    Raises ValueError for an id that could escape its hash tag.
    """
    if not _CATALOG.fullmatch(catalog_id):
        raise ValueError(f"catalog {catalog_id!r} must match {_CATALOG.pattern}")
    return stem(prefix, catalog_id)


class CatalogKeys:
    """The keys of one catalogue's tree, and the pattern of all its keys."""

    def __init__(self, catalog_id: str, prefix: str = DEFAULT_PREFIX) -> None:
        self._stem = catalog_stem(catalog_id, prefix)
        self.head = f"{self._stem}:head"
        self.log = f"{self._stem}:log"
        self.staged = f"{self._stem}:staged"
        self.compacting = f"{self._stem}:compacting"
        self.bulk_write_lease = f"{self._stem}:turn"
        self.pattern = f"{self._stem}:*"

    @staticmethod
    def patterns(name: str | None = None, prefix: str = DEFAULT_PREFIX) -> tuple[str, ...]:
        """What SCAN finds the keys of every creation of `name` by, or those of all catalogues.

        The latter also finds keys of `app.storage`.
        """
        tags = ("*",) if name is None else (name, f"{name}{_CREATION}*")
        return tuple(f"{stem(prefix, tag)}:*" for tag in tags)

    def item(self, item_id: str) -> str:
        """The record of an item."""
        return f"{self._stem}:item:{item_id}"

    def checkpoint(self, name: str) -> str:
        """How far an import has come."""
        return f"{self._stem}:mark:{name}"

    def snapshot(self, generation: str) -> str:
        """The header and the chunks of one snapshot."""
        return f"{self._stem}:snapshot:{generation}"

    def space(self, fingerprint: str) -> str:
        """The frozen state of an embedder."""
        return f"{self._stem}:space:{fingerprint}"
