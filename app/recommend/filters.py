"""`Filter`: conditions on items, as tests of single values, for one record or a whole column."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tree.item import Item, moment, normalise

DATES = ("published_at", "expires_at")
_LONGEST = 20_000  # characters of a value to compare with: as many as a description has

_Text = Annotated[str, StringConstraints(max_length=_LONGEST)]
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Scalar: TypeAlias = str | int | float | bool
_Comparable: TypeAlias = _Text | int | float | bool
_Edge: TypeAlias = int | float | _Text


class ValueTest(Protocol):
    """A test of one value."""

    def has(self, value: Scalar) -> bool: ...


@dataclass(frozen=True, slots=True)
class OneOf:
    """Tests whether a value is in a set. Words are compared without case; `true` is not 1."""

    texts: frozenset[str]  # normalised
    numbers: frozenset[int | float]
    flags: frozenset[bool]

    @classmethod
    def of(cls, wanted: Iterable[Scalar]) -> "OneOf":
        texts, numbers, flags = set(), set(), set()
        for value in wanted:
            if isinstance(value, str):
                texts.add(normalise(value))
            elif isinstance(value, bool):
                flags.add(value)
            else:
                numbers.add(value)
        return cls(frozenset(texts), frozenset(numbers), frozenset(flags))

    def has(self, value: Scalar) -> bool:
        if isinstance(value, str):
            return normalise(value) in self.texts
        if isinstance(value, bool):
            return value in self.flags
        return value in self.numbers


@dataclass(frozen=True, slots=True)
class Beyond:
    """Tests whether a value is on one side of a bound: numbers by size, words by letters."""

    sign: Literal[">", ">=", "<", "<="]
    bound: int | float | str

    def has(self, value: Scalar) -> bool:
        bound = self.bound
        if isinstance(value, bool) or isinstance(value, str) != isinstance(bound, str):
            return False
        difference = (value > bound) - (value < bound)  # type: ignore[operator]
        match self.sign:
            case ">":
                return difference > 0
            case ">=":
                return difference >= 0
            case "<":
                return difference < 0
            case "<=":
                return difference <= 0


class StrictModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_NULL = {"type": "null"}
_Values = Field(min_length=1, max_length=1_000, fail_fast=True)


_TESTS = ("eq", "ne", "gt", "gte", "lt", "lte", "in")


def _one_test_at_least(schema: dict[str, Any]) -> None:
    """Say in a schema what `Condition._asks_something` demands."""
    for name in _TESTS:
        kinds = schema["properties"][name]["anyOf"]
        schema["properties"][name] = {"anyOf": [kind for kind in kinds if kind != _NULL]}
    schema["anyOf"] = [{"required": [name]} for name in _TESTS]


class Condition(StrictModel):
    """Tests of a field: of the item itself, or of its attributes."""

    model_config = ConfigDict(json_schema_extra=_one_test_at_least)

    field: _Name
    eq: _Comparable | None = None
    ne: _Comparable | None = None
    gt: _Edge | None = None
    gte: _Edge | None = None
    lt: _Edge | None = None
    lte: _Edge | None = None
    any_of: Annotated[list[_Comparable], _Values] | None = Field(default=None, alias="in")

    @model_validator(mode="after")
    def _asks_something(self) -> "Condition":
        asked = self.model_fields_set - {"field"}
        if not asked or any(getattr(self, name) is None for name in asked):
            raise ValueError("give at least one of eq, ne, gt, gte, lt, lte, in, and never null")
        self.tests  # noqa: B018 - made where the body is parsed: it takes a while where it is long
        return self

    @cached_property
    def tests(self) -> tuple[tuple[ValueTest, bool], ...]:
        """The tests that some value of the field must pass or, with False, that none may pass."""
        dates = self.field in DATES
        found: list[tuple[ValueTest, bool]] = []
        some = [
            ([] if self.eq is None else [self.eq], True),
            (self.any_of or [], True),
            ([] if self.ne is None else [self.ne], False),
        ]
        for wanted, passes in some:
            if wanted:
                found.append((OneOf.of(map(_seconds, wanted) if dates else wanted), passes))
        sides: tuple[tuple[Literal[">", ">=", "<", "<="], int | float | str | None], ...]
        sides = ((">", self.gt), (">=", self.gte), ("<", self.lt), ("<=", self.lte))
        found += [
            (Beyond(sign, _seconds(bound) if dates else bound), True)
            for sign, bound in sides
            if bound is not None
        ]
        return tuple(found)

    def holds(self, item: Item) -> bool:
        """Whether the item passes. A field that it does not have passes only `ne`."""
        values = values_of(field_of(item, self.field))
        return all(any(map(test.has, values)) is passes for test, passes in self.tests)


class Filter(StrictModel):
    """Conditions that must all hold, of which one must hold, and of which none may."""

    all: Annotated[list[Condition], Field(max_length=50, fail_fast=True)] = []
    any: Annotated[list[Condition], Field(max_length=50, fail_fast=True)] = []
    none: Annotated[list[Condition], Field(max_length=50, fail_fast=True)] = []

    @property
    def conditions(self) -> list[Condition]:
        return [*self.all, *self.any, *self.none]

    def holds(self, item: Item) -> bool:
        """Whether the item passes."""
        return (
            all(condition.holds(item) for condition in self.all)
            and (not self.any or any(condition.holds(item) for condition in self.any))
            and not any(condition.holds(item) for condition in self.none)
        )


def field_of(item: object, name: str) -> object:
    """A field of the item, or else an attribute; None when it has neither.

    `item` is an Item, or what has the same attributes.
    """
    if name in Item.model_fields and name != "attributes":
        return getattr(item, name)
    attributes: dict[str, object] = getattr(item, "attributes", {})
    return attributes.get(name)


def values_of(content: object) -> tuple[Scalar, ...]:
    """The values that a field's content stands for: none, one, or those of a list; dates in s."""
    match content:
        case None:
            return ()
        case str() | int() | float():
            return (content,)
        case tuple():
            return content
        case datetime():
            return (content.timestamp(),)
    return ()


def _seconds(bound: Scalar) -> float:
    """Seconds since the epoch. Raises ValueError for what is not an RFC 3339 time."""
    if not isinstance(bound, str):
        raise ValueError('compare a date with a time such as "2026-01-31T12:00:00Z"')
    return moment(bound).timestamp()
