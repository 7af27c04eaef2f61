"""`Key`: a stored key and what it allows; `Caller`: who sent a request."""

import re
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, TypeAlias

import msgspec

Scope: TypeAlias = Literal["recommend", "events", "ingest", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = ("recommend", "events", "ingest", "metrics", "admin")
ALL_CATALOGS = "*"

_ID = r"ulr_[0-9a-f]{12}"
_SECRET_BYTES = 32
_TOKEN = re.compile(rf"({_ID})_[A-Za-z0-9_-]{{43}}")
_SHOWN = re.compile(rf"({_ID})_[A-Za-z0-9_-]+")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret, as it is stored.

    `digest` is the SHA-256 of the whole key. A fast hash is safe: nobody can guess a secret of
    256 random bits, and with a slow hash, invented keys could overload the service.
    """

    id: str
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    catalogs: frozenset[str] | None  # None: all
    created_at: float  # seconds since the epoch
    expires_at: float | None = None
    rate_per_minute: int | None = None
    max_cost_usd_per_day: float | None = None
    origins: frozenset[str] = frozenset()

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= time.time()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: the holder of a key or of the root key; anybody when keys are off."""

    id: str
    name: str
    key: Key | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the key has the scope; `admin` includes all others."""
        return self.key is None or bool(self.key.scopes & {scope, "admin"})

    def reaches(self, catalog: str) -> bool:
        """Whether the key is for this catalogue, which need not exist."""
        return self.key is None or self.key.catalogs is None or catalog in self.key.catalogs

    @property
    def reaches_all(self) -> bool:
        return self.key is None or self.key.catalogs is None


ROOT = Caller("root", "the root key")
OPEN = Caller("", "nobody: keys are off")
COMMAND = Caller("", "a command on the store")


def new_token() -> tuple[str, str, bytes]:
    """A new key: its id, the whole key, which begins with the id, and its digest."""
    key_id = f"ulr_{secrets.token_hex(6)}"
    token = f"{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return key_id, token, digest_of(token)


def digest_of(token: str) -> bytes:
    """The digest that is stored in place of a key."""
    return sha256(token.encode(errors="surrogateescape")).digest()


def id_in(token: str) -> str | None:
    """The id at the beginning of a key; None when it does not have the form of a key."""
    found = _TOKEN.fullmatch(token)
    return found and found[1]


def redacted(text: str) -> str:
    """`text` with each key in it reduced to its id."""
    return _SHOWN.sub(r"\1_…", text) if "ulr_" in text else text
