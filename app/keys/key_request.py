"""`KeyRequest`: what a new key allows; `KeyView`: a key as clients see it."""

import time
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from app.keys.key import ALL_CATALOGS, Key, Scope, new_token

_LONGEST_S = 36_525 * 86_400  # until a key expires
# The first and last time that `datetime` can represent in UTC.
_FIRST = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()

_PAGE_SCOPES = frozenset({"recommend", "events"})

_Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$"
    ),
]
_Catalog = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]
_Origin = Annotated[
    str,
    StringConstraints(
        max_length=300, pattern=r"^https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?$"
    ),
]  # fmt: skip


class KeyRequest(BaseModel):
    """What a new key allows."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"name": "shop", "scopes": ["recommend", "events"], "catalogs": ["default"]},
                {
                    "name": "shop page",
                    "scopes": ["recommend", "events"],
                    "catalogs": ["default"],
                    "origins": ["https://shop.example"],
                    "rate_per_minute": 600,
                    "max_cost_usd_per_day": 5,
                },
            ]
        },
    )

    name: _Name = Field(description="A name for people, shown in lists and in the audit log.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=5)] = Field(
        description="`admin` includes all others."
    )
    catalogs: Annotated[list[_Catalog], Field(min_length=1, max_length=1_000)] | Literal["*"] = (
        Field(description='Names of catalogues, which need not exist yet, or `"*"` for all.')
    )
    expires_at: AwareDatetime | None = Field(
        default=None,
        description="When the key expires: within 100 years from now.",
    )
    rate_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Most requests in a minute, which begins with the first request; 100 rows of a "
        "batch count as one request.",
    )
    max_cost_usd_per_day: float | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Most that models may cost in a day (UTC). After that, items are ranked by "
        'vectors alone, with `degraded_reason` "budget".',
    )
    origins: Annotated[list[_Origin], Field(max_length=100)] = Field(
        default=[],
        description="Origins of web pages that use this key, for example `https://shop.example`.",
    )

    @field_validator("max_cost_usd_per_day", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("must be a number")
        return value

    @field_validator("expires_at")
    @classmethod
    def _in_the_future(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        left_s = value.timestamp() - time.time()
        if left_s <= 0:
            raise ValueError("must be in the future")
        if left_s > _LONGEST_S:
            raise ValueError(
                "must be within 100 years from now: omit it for a key that never expires"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "KeyRequest":
        if self.origins and set(self.scopes) - _PAGE_SCOPES:
            raise ValueError(
                "everybody who opens the page can read a key with origins: only the scopes "
                "recommend and events are allowed"
            )
        if self.max_cost_usd_per_day is not None and "admin" in self.scopes:
            raise ValueError(
                "an admin key cannot have max_cost_usd_per_day: its jobs have limits of their own"
            )
        return self


class KeyView(BaseModel):
    """A key without its secret."""

    id: str = Field(description="The beginning of the key.")
    name: str
    scopes: list[Scope]
    catalogs: list[str] | Literal["*"]
    created_at: datetime
    expires_at: datetime | None
    expired: bool
    rate_per_minute: int | None
    max_cost_usd_per_day: float | None
    origins: list[str]

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        """The view of a key; times beyond the range of `datetime` become its first or last."""
        ends = key.expires_at
        return cls(
            id=key.id,
            name=key.name,
            scopes=sorted(key.scopes),
            catalogs="*" if key.catalogs is None else sorted(key.catalogs),
            created_at=_moment(key.created_at),
            expires_at=None if ends is None else _moment(ends),
            expired=key.expired,
            rate_per_minute=key.rate_per_minute,
            max_cost_usd_per_day=key.max_cost_usd_per_day,
            origins=sorted(key.origins),
        )

    def target(self) -> dict[str, object]:
        """The fields of the key for the audit log."""
        return self.model_dump(mode="json", include={"id", "name", "scopes", "catalogs"})


class NewKey(KeyView):
    """A new key with its secret, which no other answer contains."""

    key: str


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(max(seconds, _FIRST), _LAST), UTC)


def new_key(wanted: KeyRequest) -> tuple[Key, str]:
    """A new key as it is stored, and the secret for its holder."""
    key_id, token, digest = new_token()
    all_of_them = wanted.catalogs == ALL_CATALOGS
    key = Key(
        id=key_id,
        name=wanted.name,
        digest=digest,
        scopes=frozenset(wanted.scopes),
        catalogs=None if all_of_them else frozenset(wanted.catalogs),
        created_at=time.time(),
        expires_at=wanted.expires_at.timestamp() if wanted.expires_at else None,
        rate_per_minute=wanted.rate_per_minute,
        max_cost_usd_per_day=wanted.max_cost_usd_per_day,
        origins=frozenset(wanted.origins),
    )
    return key, token
