"""`Item`: one thing that can be recommended, as it is stored and as it crosses the API."""

import math
import unicodedata
from functools import lru_cache
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

# Strict, but for what JSON has no type of its own for: arrays become tuples, strings datetimes.
_FromJson = Field(strict=False)

AttributeValue = str | int | float | bool | Annotated[tuple[str, ...], _FromJson]


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain null bytes")
    return text


def _finite(value: AttributeValue) -> AttributeValue:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, str) and len(value) > 2_000:
        raise ValueError("must have at most 2000 characters")
    return value


def _no_number(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError('must be a time such as "2026-01-31T12:00:00Z", not a number')
    return value


Instant = Annotated[AwareDatetime, _FromJson, BeforeValidator(_no_number)]
_Clean = AfterValidator(_without_nul)
ItemId = Annotated[str, StringConstraints(min_length=1, max_length=256), _Clean]
_Short = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), _Clean
]
_Attribute = Annotated[AttributeValue, AfterValidator(_finite)]


class Item(BaseModel):
    """One item of a catalogue. Unknown fields are refused; absent ones have these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: ItemId = Field(description='Opaque and unique in its catalogue; "/" is allowed.')
    title: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000), _Clean
    ]
    description: Annotated[str, StringConstraints(max_length=20_000), _Clean] = ""
    categories: Annotated[tuple[_Short, ...], _FromJson, Field(max_length=16)] = Field(
        default=(), description="One path, broad to narrow."
    )
    keywords: Annotated[tuple[_Short, ...], _FromJson, Field(max_length=64)] = ()
    domain: Annotated[str, StringConstraints(strip_whitespace=True, max_length=100), _Clean] = ""
    attributes: Annotated[dict[_Short, _Attribute], Field(max_length=64)] = Field(
        default_factory=dict, description="For filters: string, number, boolean or list of strings."
    )
    image_url: Annotated[str, StringConstraints(max_length=2_000), _Clean] = ""
    popularity: float | None = Field(
        default=None,
        ge=0,
        le=1e18,
        allow_inf_nan=False,
        description="Any count; used on a log scale.",
    )
    published_at: Instant | None = None
    expires_at: Instant | None = None
    hidden: bool = False

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, data: object) -> object:
        """Feeds write `"description": null` for "none"."""
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @field_validator("id", "title")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("must not be blank")
        return text

    @property
    def text(self) -> str:
        """What an embedder reads: title, categories, keywords and description."""
        return " ".join((self.title, *self.categories, *self.keywords, self.description))

    @property
    def key(self) -> tuple[str, ...]:
        """Domain and category path, normalised: what two items of one group have in common."""
        return (normalise(self.domain), *map(normalise, self.categories))

    def record(self) -> bytes:
        """The stored form: JSON without the defaults."""
        return self.model_dump_json(exclude_defaults=True).encode()


@lru_cache(16_384)  # the same few categories come with every item
def normalise(name: str) -> str:
    """`name` without what people do not mean: case, width, and repeated blanks."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
