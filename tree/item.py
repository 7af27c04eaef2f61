"""`Item`: one thing that can be recommended, as it is stored and as it crosses the API."""

import math
import re
import time
import unicodedata
from contextlib import suppress
from datetime import datetime
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

from tree.item_line import LINE_CODES, ItemLine
from tree.passage import Passage

# Strict, except for types that JSON does not have: arrays become tuples, strings datetimes.
_FromJson = Field(strict=False)

_STRING_CHARS = 2_000  # of an attribute

AttributeValue = (
    str | int | float | bool | Annotated[tuple[str, ...], Field(strict=False, fail_fast=True)]
)


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain null bytes")
    return text


def _finite(value: AttributeValue, info: ValidationInfo) -> AttributeValue:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, str) and len(value) > _STRING_CHARS:
        raise ValueError(f"must have at most {_STRING_CHARS} characters")
    longest = max(map(len, value), default=0) if isinstance(value, tuple) else 0
    if longest > _STRING_CHARS and info.context is not _AS_STORED:
        raise ValueError(f"must hold texts of at most {_STRING_CHARS} characters")
    return value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# RFC 3339. Pydantic alone would take "12345" for a moment of 1970.
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def moment(text: str) -> datetime:
    """The time that an RFC 3339 string gives. Raises ValueError."""
    try:
        return datetime.fromisoformat(_written_out(text).upper())
    except ValueError:
        raise ValueError('must be a time such as "2026-01-31T12:00:00Z"') from None


def _written_out(value: object) -> str:
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError('must be a time such as "2026-01-31T12:00:00Z"')
    return value


# Clients remove dot segments from a path before they send it, and a line break ends a line of a log
# or a header: such an id would be read as the id of another item, user or resource.
_MISLEADING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|(?:\A|/)\.\.?(?:/|\Z)")
_AS_STORED = object()  # validation context for records that an earlier release has accepted


def _clear(text: str, info: ValidationInfo) -> str:
    if info.context is not _AS_STORED and _MISLEADING.search(text):
        raise ValueError(
            "must not contain line breaks or other control characters, "
            'nor "." or ".." as a part between slashes'
        )
    return text


# The address of such an item would be that of the line of another one: "7/enrichment".
_LINE_PATH = "/enrichment"


def _no_line_path(text: str, info: ValidationInfo) -> str:
    if info.context is not _AS_STORED and text.endswith(_LINE_PATH):
        raise ValueError(
            f'must not end with "{_LINE_PATH}": this is the address of an item\'s line'
        )
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _moment_or_text(value: object) -> object:
    return value if isinstance(value, datetime) else _written_out(value)


Instant = Annotated[AwareDatetime, _FromJson, BeforeValidator(_moment_or_text)]
_Clean = AfterValidator(_without_nul)
# The rules of these validators, for the description of the API.
NO_NUL = r"^[^\u0000]*$"
_NO_NUL = Field(json_schema_extra={"pattern": NO_NUL})
_SOME_WORD = Field(json_schema_extra={"pattern": r"^[^\u0000]*\S[^\u0000]*$"})
# For int fields, after their bounds: JSON has one kind of number, and 10.0 is 10.
WHOLE = BeforeValidator(_whole)
# An id of something that may be stored already; earlier releases accepted more than `Id`.
StoredId = Annotated[str, StringConstraints(min_length=1, max_length=256), _Clean, _NO_NUL]
# An id of a user that is to be stored, or of an item that a user had.
Id = Annotated[
    StoredId,
    AfterValidator(_not_blank),
    AfterValidator(_clear),
    Field(
        json_schema_extra={
            "pattern": r"^(?=.*\S)(?!(?:.*/)?\.\.?(?:/|$))"
            r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$"
        }
    ),
]
# An id of an item that is to be stored.
ItemId = Annotated[
    Id,
    AfterValidator(_no_line_path),
    Field(
        json_schema_extra={
            "pattern": r"^(?=.*\S)(?!(?:.*/)?\.\.?(?:/|$))(?!.*/enrichment$)"
            r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$"
        }
    ),
]
_Short = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    _Clean,
    _SOME_WORD,
]
_Attribute = Annotated[AttributeValue, AfterValidator(_finite)]
_ATTRIBUTE_CHARS = 150_000  # 64 of the longest strings, with their names


class Item(BaseModel):
    """One item of a catalogue. Unknown fields are refused; absent ones have these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: ItemId = Field(description='Opaque and unique in its catalogue; "/" is allowed.')
    title: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000),
        _Clean,
        _SOME_WORD,
    ]
    description: Annotated[str, StringConstraints(max_length=20_000), _Clean, _NO_NUL] = ""
    categories: Annotated[tuple[_Short, ...], _FromJson, Field(max_length=16)] = Field(
        default=(), description="One path, broad to narrow."
    )
    keywords: Annotated[tuple[_Short, ...], _FromJson, Field(max_length=64)] = ()
    domain: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=100), _Clean, _NO_NUL
    ] = ""
    attributes: Annotated[dict[_Short, _Attribute], Field(max_length=64)] = Field(
        default_factory=dict,
        description="For filters: string, number, boolean or list of strings.",
        json_schema_extra={"additionalProperties": False},
    )
    image_url: Annotated[str, StringConstraints(max_length=2_000), _Clean, _NO_NUL] = ""
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
    # Not a field: a client that puts an item again does not mean to remove the line.
    _line: ItemLine | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, data: object) -> object:
        """Feeds write `"description": null` for "none". A name that is no field stays wrong."""
        if isinstance(data, dict):
            return {
                key: value
                for key, value in data.items()
                if value is not None or key not in cls.model_fields
            }
        return data

    @model_validator(mode="after")
    def _attributes_are_facts(self, info: ValidationInfo) -> "Item":
        """Limit attributes: filters and answers read all of them, for a hundred items at once."""
        if info.context is not _AS_STORED and _letters(self.attributes) > _ATTRIBUTE_CHARS:
            raise ValueError(
                f"the attributes hold more than {_ATTRIBUTE_CHARS:,} characters: long text is "
                "for the description"
            )
        return self

    @property
    def text(self) -> str:
        """Its own words: title, categories, keywords and description."""
        return " ".join((self.title, *self.categories, *self.keywords, self.description))

    @property
    def passage(self) -> Passage:
        """What an embedder reads."""
        return Passage(self.text, self._line.text if self._line else "")

    @property
    def line(self) -> ItemLine | None:
        """What somebody or a model wrote about it in plain words."""
        return self._line

    @property
    def line_code(self) -> int:
        """See LINE_CODES."""
        return LINE_CODES[self._line.source if self._line else None]

    @property
    def content_digest(self) -> str:
        """A hash of the fields that a line is written from; 16 characters."""
        told = (self.title, self.description, self.categories, self.keywords, self.image_url)
        return blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()

    def with_line(self, line: ItemLine | None) -> "Item":
        """The same item with another line, or without one."""
        copy = self.model_copy()
        copy._line = line
        return copy

    def keeping_line_of(self, before: "Item | None") -> "Item":
        """This item as it takes the place of `before`: a line stays where it still fits."""
        line = before._line if before and self._line is None else None
        return self.with_line(line) if line and line.fits(self.content_digest) else self

    @property
    def key(self) -> tuple[str, ...]:
        """Domain and category path, normalised: what two items of one group have in common."""
        return (normalise(self.domain), *map(normalise, self.categories))

    def is_shown(self, now: float | None = None) -> bool:
        """Whether users may see it: neither hidden nor expired by `now`, in s."""
        now = time.time() if now is None else now
        return not self.hidden and (self.expires_at is None or self.expires_at.timestamp() > now)

    @classmethod
    def stored(cls, record: bytes) -> "Item":
        """The item of a record, also with an id that is refused today. Raises ValidationError."""
        fields, found, rest = record.rpartition(_LINE_FIELD)
        line: ItemLine | None = None
        if found:  # the last field, unless an attribute has this name
            with suppress(msgspec.DecodeError):
                line = _line_decoder.decode(rest[:-1])
        if line is None:
            return cls.model_validate_json(record, context=_AS_STORED)
        item = cls.model_validate_json(fields[:-1] + b"}", context=_AS_STORED)
        item._line = line
        return item

    def record(self) -> bytes:
        """The stored form: JSON without the defaults, and the line as `enrichment`."""
        fields = self.content()
        if self._line is None:
            return fields
        return b"%b,%b%b}" % (fields[:-1], _LINE_FIELD, msgspec.json.encode(self._line))

    def content(self) -> bytes:
        """What a client has put: JSON without the defaults."""
        return self.model_dump_json(exclude_defaults=True).encode()


_LINE_FIELD = b'"enrichment":'
_line_decoder = msgspec.json.Decoder(ItemLine)


def _letters(attributes: dict[str, AttributeValue]) -> int:
    found = sum(map(len, attributes))
    for value in attributes.values():
        if isinstance(value, str):
            found += len(value)
        elif isinstance(value, tuple):
            found += sum(map(len, value))
    return found


def normalise(name: str) -> str:
    """`name` without differences that people do not mean: case, width, and repeated blanks."""
    return _normalised_name(name) if len(name) <= _NAME_CHARS else _normalised(name)


def _normalised(text: str) -> str:
    if text.isascii():  # NFKC leaves it as it is
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", _stream_safe(text)).casefold().split())


def _stream_safe(text: str) -> str:
    """`text` with at most 30 combining marks in a row (UAX #15, Stream-Safe Text Format).

    NFKC sorts the marks of a character by insertion, with the interpreter's lock held: 20,000 of
    them take 1.5 s. No language writes more than a few. Takes 5 ns a character, 25 with marks.
    """
    if len(text) <= _MOST_MARKS:
        return text
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    if not _are_marks(
        codes[_MOST_MARKS :: _MOST_MARKS + 1]
    ).any():  # 31 marks in a row include one of these
        return text
    place = np.arange(len(codes))
    is_mark = _are_marks(codes)
    marks = place - np.maximum.accumulate(np.where(is_mark, -1, place))  # in a row, up to here
    if marks.max() <= _MOST_MARKS:
        return text
    return codes[marks <= _MOST_MARKS].tobytes().decode("utf-32-le", "surrogatepass")


def _are_marks(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    return _marks()[np.minimum(codes, _CODES - 1)]


@cache
def _marks() -> npt.NDArray[np.bool_]:
    """bool[_CODES]: the characters whose NFKC form is sorted with the character before.

    Made at the first use: it takes 30 ms.
    """
    starts = (unicodedata.normalize("NFKD", chr(code))[0] for code in range(_CODES))
    return np.fromiter((unicodedata.combining(start) > 0 for start in starts), np.bool_, _CODES)


_MOST_MARKS = 30
_CODES = 0x20000  # there are no combining characters beyond

# The same few categories come with every item. Descriptions are not kept: 16,384 of them may take
# hundreds of megabytes.
_NAME_CHARS = 200
_normalised_name = lru_cache(16_384)(_normalised)
