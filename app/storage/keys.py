"""The names of the keys of users, events, vectors and documents. No other module builds them."""

import re
from typing import Literal, TypeAlias

from tree.redis.keys import DEFAULT_PREFIX, Lifetime, stem
from tree.store.keys import TREE_ROLES, CatalogKeys, catalog_stem

DocumentKind: TypeAlias = Literal[
    "catalog",
    "key",
    "job",
    "open",
    "lease",
    "cancel",
    "trace",
    "page",
    "profile",
    "reply",
    "mode",
    "standing",
    "line",
    "endpoint",
    "batch",
    "unwritten",
]

_DOCUMENT = "document."  # the dot keeps document tags apart from catalogue names
_AUDIT = "service.audit"
_API_KEY = "key."

FEEDBACK_ROLES = {
    "count": Lifetime.PERMANENT,
    "gone": Lifetime.PERMANENT,
    "near": Lifetime.PERMANENT,
    "event": Lifetime.EXPIRING,
    "visited": Lifetime.EXPIRING,
    "deed": Lifetime.EXPIRING,
    "reader": Lifetime.EXPIRING,
    "owned": Lifetime.EXPIRING,
}
ATTRIBUTION_ROLES = {"list": Lifetime.EXPIRING, "tally": Lifetime.EXPIRING}
VECTOR_ROLES = {"vector": Lifetime.EXPIRING, "refused": Lifetime.EXPIRING}
_DOCUMENT_LIFETIMES: dict[DocumentKind, Lifetime] = {
    "catalog": Lifetime.PERMANENT,
    "key": Lifetime.PERMANENT,  # an API key by its id, without its secret
    "job": Lifetime.EXPIRING,
    "open": Lifetime.EXPIRING,  # an empty one for every job that has not ended
    "lease": Lifetime.EXPIRING,
    "cancel": Lifetime.EXPIRING,
    "trace": Lifetime.EXPIRING,
    "page": Lifetime.EXPIRING,  # of similar items: what the next one needs
    "profile": Lifetime.EXPIRING,
    "reply": Lifetime.EXPIRING,
    "mode": Lifetime.EXPIRING,
    "standing": Lifetime.EXPIRING,  # what a model got right in its examination
    "batch": Lifetime.EXPIRING,  # calls at a provider's batch API, and what each is about
    "unwritten": Lifetime.EXPIRING,  # why an item has no line today
    "line": Lifetime.EXPIRING,  # of an item, by what a model wrote it from
    "endpoint": Lifetime.EXPIRING,  # limits of an endpoint for embeddings
}
_AUDIT_ROLES = {"audit": Lifetime.PERMANENT}  # streams of bounded length
_API_KEY_ROLES = {"rate": Lifetime.EXPIRING, "spent": Lifetime.EXPIRING}
DOCUMENT_KINDS = tuple(_DOCUMENT_LIFETIMES)


class FeedbackKeys:
    """The keys of the users and events of one catalogue."""

    def __init__(self, catalog_id: str, prefix: str = DEFAULT_PREFIX) -> None:
        self._stem = catalog_stem(catalog_id, prefix)
        catalog = CatalogKeys(catalog_id, prefix)
        self.head = catalog.head  # of the catalogue, which tells whether it was deleted
        self.pattern = catalog.pattern
        self.counts = f"{self._stem}:count"
        self.forgotten = f"{self._stem}:gone"

    def neighbours(self, item_id: str) -> str:
        """The items that go together with an item."""
        return f"{self._stem}:near:{item_id}"

    def event_ids(self, period: int) -> str:
        """The ids of the events of a period."""
        return f"{self._stem}:event:{period}"

    def history(self, user_id: str) -> str:
        """The items that a user had, and when."""
        return f"{self._stem}:visited:{user_id}"

    def deeds(self, user_id: str) -> str:
        """What a user did with these items, where it is not what most do."""
        return f"{self._stem}:deed:{user_id}"

    def facts(self, user_id: str) -> str:
        """The profile and the attributes of a user."""
        return f"{self._stem}:reader:{user_id}"

    def owned(self, user_id: str) -> str:
        """The names of the documents that were made for a user."""
        return f"{self._stem}:owned:{user_id}"


class AttributionKeys:
    """The keys of the lists that a catalogue has shown, and of what came of them."""

    def __init__(self, catalog_id: str, prefix: str = DEFAULT_PREFIX) -> None:
        self._stem = catalog_stem(catalog_id, prefix)
        self.head = CatalogKeys(catalog_id, prefix).head  # tells whether it was deleted

    def list(self, list_id: str) -> str:
        """The items of a list, its labels, and what was counted of it."""
        return f"{self._stem}:list:{list_id}"

    def tally(self, day: str) -> str:
        """What came of the lists of a day."""
        return f"{self._stem}:tally:{day}"


class VectorKeys:
    """The keys of the vectors of a catalogue's texts."""

    def __init__(self, catalog_id: str, prefix: str = DEFAULT_PREFIX) -> None:
        self._stem = catalog_stem(catalog_id, prefix)
        self.head = CatalogKeys(catalog_id, prefix).head  # tells whether it was deleted

    def vector(self, name: str) -> str:
        """The vector of one text by one model."""
        return f"{self._stem}:vector:{name}"

    @property
    def refused(self) -> str:
        """The items whose texts a model has refused."""
        return f"{self._stem}:refused"


class DocumentKeys:
    """The keys of the documents of one kind, in a slot of their own."""

    def __init__(self, kind: DocumentKind, prefix: str = DEFAULT_PREFIX) -> None:
        self._stem = stem(prefix, _DOCUMENT + kind)
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
        return f"{stem(prefix, _DOCUMENT + '*')}:at:*"


class KeyUsageKeys:
    """The keys of how much API keys are used."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self._prefix = prefix

    def rate(self, key_id: str) -> str:
        """The requests of this minute."""
        return f"{stem(self._prefix, _API_KEY + key_id)}:rate"

    def spent(self, key_id: str, day: str) -> str:
        """The billionths of a dollar that models have cost on a day."""
        return f"{stem(self._prefix, _API_KEY + key_id)}:spent:{day}"


class AuditKeys:
    """Where the two audit logs are, in one slot."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.administrators = f"{stem(prefix, _AUDIT)}:audit"
        self.others = f"{self.administrators}:others"


def document_lifetime(kind: DocumentKind) -> Lifetime:
    """Whether documents of this kind stay or expire."""
    return _DOCUMENT_LIFETIMES[kind]


def classify(key: str, prefix: str = DEFAULT_PREFIX) -> tuple[str, Lifetime]:
    """The hash tag of any key in the store and how long it may stay.

    Raises ValueError for a foreign key.
    """
    found = re.fullmatch(rf"{re.escape(prefix)}:\{{([^{{}}]+)\}}:([a-z]+)(:.*)?", key, re.DOTALL)
    if found is None:
        raise ValueError(f"{key!r} is no key of prefix {prefix!r}")
    tag, role = found[1], found[2]
    roles: dict[str, Lifetime] = TREE_ROLES | FEEDBACK_ROLES | ATTRIBUTION_ROLES | VECTOR_ROLES
    if tag.startswith(_DOCUMENT):
        kinds = {_DOCUMENT + kind: lifetime for kind, lifetime in _DOCUMENT_LIFETIMES.items()}
        roles = {"index": kinds[tag], "at": kinds[tag]} if tag in kinds else {}
    elif tag.startswith(_API_KEY):
        roles = _API_KEY_ROLES
    elif tag == _AUDIT:
        roles = _AUDIT_ROLES
    elif "." in tag:
        roles = {}
    if role not in roles:
        raise ValueError(f"{key!r} has an undeclared role")
    return tag, roles[role]
