"""The names of everything that the store keeps. No other module builds a key.

All keys of one catalogue carry it as their hash tag, so that they share a slot of a Redis
Cluster and one script may touch them together. The tag is the first `{…}` of a key: prefix and
catalogue can hold no brace (nor anything that SCAN reads as a pattern), and whatever an item id
holds comes after it.
"""

import re
from enum import Enum
from typing import Literal, TypeAlias

DEFAULT_PREFIX = "unillmrec"

DocumentKind: TypeAlias = Literal[
    "catalog", "job", "open", "lease", "cancel", "trace", "profile", "reply", "mode"
]

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_CATALOG = re.compile(r"[a-z0-9_-]{1,64}")
_DOCUMENT = "document."  # the dot keeps document tags apart from catalogue names


class Lifetime(Enum):
    """How long a key may stay."""

    PERMANENT = "permanent by name"
    CURRENT = "permanent while the head of the catalogue names it, with a TTL before and after"
    EXPIRING = "always with a TTL"


_CATALOG_KEYS = {
    "head": Lifetime.PERMANENT,
    "log": Lifetime.PERMANENT,
    "staged": Lifetime.PERMANENT,
    "item": Lifetime.PERMANENT,
    "snapshot": Lifetime.CURRENT,
    "space": Lifetime.CURRENT,
    "compacting": Lifetime.EXPIRING,
    "turn": Lifetime.EXPIRING,
    "mark": Lifetime.EXPIRING,
    "count": Lifetime.PERMANENT,
    "gone": Lifetime.PERMANENT,
    "near": Lifetime.PERMANENT,
    "event": Lifetime.EXPIRING,
    "visited": Lifetime.EXPIRING,
    "reader": Lifetime.EXPIRING,
    "owned": Lifetime.EXPIRING,
}
_DOCUMENT_KEYS: dict[DocumentKind, Lifetime] = {
    "catalog": Lifetime.PERMANENT,
    "job": Lifetime.EXPIRING,
    "open": Lifetime.EXPIRING,  # an empty one for every job that has not ended
    "lease": Lifetime.EXPIRING,
    "cancel": Lifetime.EXPIRING,
    "trace": Lifetime.EXPIRING,
    "profile": Lifetime.EXPIRING,
    "reply": Lifetime.EXPIRING,
    "mode": Lifetime.EXPIRING,
}
DOCUMENT_KINDS = tuple(_DOCUMENT_KEYS)


class CatalogKeys:
    """The keys of one catalogue. Raises ValueError on a name that could escape its hash tag."""

    def __init__(self, catalog: str, prefix: str = DEFAULT_PREFIX) -> None:
        if not _CATALOG.fullmatch(catalog):
            raise ValueError(f"catalog {catalog!r} must match {_CATALOG.pattern}")
        self._stem = _stem(prefix, catalog)
        self.head = f"{self._stem}:head"
        self.log = f"{self._stem}:log"
        self.staged = f"{self._stem}:staged"
        self.compacting = f"{self._stem}:compacting"
        self.count = f"{self._stem}:count"
        self.gone = f"{self._stem}:gone"
        self.turn = f"{self._stem}:turn"
        self.pattern = f"{self._stem}:*"

    def item(self, item_id: str) -> str:
        """The record of an item."""
        return f"{self._stem}:item:{item_id}"

    def mark(self, name: str) -> str:
        """How far somebody who stages items has come."""
        return f"{self._stem}:mark:{name}"

    def near(self, item_id: str) -> str:
        """The items that go together with an item."""
        return f"{self._stem}:near:{item_id}"

    def event(self, period: int) -> str:
        """The ids of the events of a period."""
        return f"{self._stem}:event:{period}"

    def visited(self, user_id: str) -> str:
        """What a user had, and when."""
        return f"{self._stem}:visited:{user_id}"

    def reader(self, user_id: str) -> str:
        """What is known of a user besides."""
        return f"{self._stem}:reader:{user_id}"

    def owned(self, user_id: str) -> str:
        """The documents that came about for a user."""
        return f"{self._stem}:owned:{user_id}"

    def snapshot(self, generation: str) -> str:
        """The header and the chunks of one snapshot."""
        return f"{self._stem}:snapshot:{generation}"

    def space(self, fingerprint: str) -> str:
        """The frozen state of an embedder."""
        return f"{self._stem}:space:{fingerprint}"


class DocumentKeys:
    """The keys of the documents of one kind, in a slot of their own."""

    def __init__(self, kind: DocumentKind, prefix: str = DEFAULT_PREFIX) -> None:
        self._stem = _stem(prefix, _DOCUMENT + kind)
        self.index = f"{self._stem}:index"

    def document(self, document_id: str) -> str:
        return f"{self._stem}:at:{document_id}"

    def holds(self, key: str) -> bool:
        """Whether `key` is that of a document of this kind."""
        return key.startswith(self.document(""))

    def id_of(self, key: str) -> str:
        """The id of the document of a key."""
        return key.removeprefix(self.document(""))

    @staticmethod
    def pattern(prefix: str = DEFAULT_PREFIX) -> str:
        """What SCAN finds every document by."""
        return f"{_stem(prefix, _DOCUMENT + '*')}:at:*"


def document_lifetime(kind: DocumentKind) -> Lifetime:
    """Whether documents of this kind stay or expire."""
    return _DOCUMENT_KEYS[kind]


def classify(key: str, prefix: str = DEFAULT_PREFIX) -> tuple[str, Lifetime]:
    """The hash tag of a key and how long it may stay. Raises ValueError on a foreign key."""
    found = re.fullmatch(rf"{re.escape(prefix)}:\{{([^{{}}]+)\}}:([a-z]+)(:.*)?", key, re.DOTALL)
    if found is None:
        raise ValueError(f"{key!r} is no key of prefix {prefix!r}")
    tag, role = found[1], found[2]
    roles: dict[str, Lifetime] = _CATALOG_KEYS
    if tag.startswith(_DOCUMENT):
        kinds = {_DOCUMENT + kind: lifetime for kind, lifetime in _DOCUMENT_KEYS.items()}
        roles = {"index": kinds[tag], "at": kinds[tag]} if tag in kinds else {}
    if role not in roles:
        raise ValueError(f"{key!r} has an undeclared role")
    return tag, roles[role]


def _stem(prefix: str, tag: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"key prefix {prefix!r} must match {_PREFIX.pattern}")
    return f"{prefix}:{{{tag}}}"
