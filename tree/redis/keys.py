"""How every key is named: a prefix, then a hash tag, then what the key holds.

Keys with one hash tag share a slot of a Redis Cluster, and one script may touch them together. The
tag is the first `{…}` of a key: prefix and tag hold no brace (nor anything that SCAN reads as a
pattern), and whatever an id of a client holds comes after it.
"""

import re
from enum import Enum

DEFAULT_PREFIX = "unillmrec"

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Lifetime(Enum):
    """How long a key may stay."""

    PERMANENT = "permanent by name"
    CURRENT = "permanent while the head of the catalogue names it, with a TTL before and after"
    EXPIRING = "always with a TTL"


def stem(prefix: str, tag: str) -> str:
    """What the keys of a hash tag begin with. Raises ValueError for an unfit prefix."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"key prefix {prefix!r} must match {_PREFIX.pattern}")
    return f"{prefix}:{{{tag}}}"
