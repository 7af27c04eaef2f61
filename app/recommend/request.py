"""What a caller asks for: the body of the recommend endpoint."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.recommend.effort import EffortName
from app.signals import UserId
from prompts import Perspective
from tree.item import Item, ItemId, normalise

Scalar = str | int | float | bool
_DATES = ("published_at", "expires_at")
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000)]
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HistoryEntry(_Strict):
    """Something the reader had: an item of the catalogue, or the title of anything."""

    item_id: ItemId | None = None
    title: _Text | None = None
    domain: Annotated[str, StringConstraints(max_length=100)] = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> "HistoryEntry":
        if (self.item_id is None) == (self.title is None):
            raise ValueError("give either item_id or title")
        return self


class Condition(_Strict):
    """One test of a field: of the item itself, or of its attributes."""

    field: _Name
    eq: Scalar | None = None
    ne: Scalar | None = None
    gt: int | float | str | None = None
    gte: int | float | str | None = None
    lt: int | float | str | None = None
    lte: int | float | str | None = None
    any_of: Annotated[list[Scalar], Field(min_length=1, max_length=1_000)] | None = Field(
        default=None, alias="in"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> "Condition":
        asked = self.model_fields_set - {"field"}
        if not asked or any(getattr(self, name) is None for name in asked):
            raise ValueError("give at least one of eq, ne, gt, gte, lt, lte, in, and never null")
        if self.field in _DATES:
            for name in asked:
                bounds = getattr(self, name)
                for bound in bounds if isinstance(bounds, list) else [bounds]:
                    _instant(bound)
        return self

    def holds(self, item: Item) -> bool:
        """Whether the item passes. A field that it does not have passes only `ne`."""
        value = _value_of(item, self.field)
        test = self._of_instants() if self.field in _DATES else self
        if isinstance(value, tuple):
            return test.holds_for(value)
        return test.holds_for(() if value is None else (value,))

    def holds_for(self, many: tuple[Scalar, ...]) -> bool:
        """Whether the values of a field pass; for all tests but `ne` one of them has to."""
        return (
            (self.eq is None or any(_same(one, self.eq) for one in many))
            and (self.ne is None or not any(_same(one, self.ne) for one in many))
            and (
                self.any_of is None
                or any(_same(one, wanted) for one in many for wanted in self.any_of)
            )
            and all(
                bound is None or any(_ordered(one, bound, sign) for one in many)
                for bound, sign in (
                    (self.gt, ">"), (self.gte, ">="), (self.lt, "<"), (self.lte, "<="),
                )
            )
        )  # fmt: skip

    def _of_instants(self) -> "Condition":
        """The same test with its dates as seconds since the epoch."""
        changes = {
            name: [_instant(one) for one in bound] if isinstance(bound, list) else _instant(bound)
            for name in self.model_fields_set - {"field"}
            if (bound := getattr(self, name)) is not None
        }
        return self.model_copy(update=changes)


class Filter(_Strict):
    """Conditions that must all hold, of which one must hold, and of which none may."""

    all: Annotated[list[Condition], Field(max_length=50)] = []
    any: Annotated[list[Condition], Field(max_length=50)] = []
    none: Annotated[list[Condition], Field(max_length=50)] = []

    def holds(self, item: Item) -> bool:
        return (
            all(condition.holds(item) for condition in self.all)
            and (not self.any or any(condition.holds(item) for condition in self.any))
            and not any(condition.holds(item) for condition in self.none)
        )


class RecommendRequest(_Strict):
    """A reader, as far as known, and what they want now. All of it is optional."""

    user_id: UserId | None = Field(
        default=None, description="Whose stored history and profile stand in where none is given."
    )
    history: Annotated[list[HistoryEntry], Field(max_length=10_000)] = Field(
        default=[], description="Oldest first; the newest 50 count, all are left out of the answer."
    )
    profile: _Text | None = Field(default=None, description="A sentence about the reader.")
    instruction: _Text | None = Field(default=None, description="A wish in words, for now.")
    scenario: _Name | None = None
    domains: Annotated[list[_Name], Field(max_length=100)] | None = None
    limit: int = Field(default=10, ge=1, le=100)
    filter: Filter | None = None
    exclude_items: Annotated[list[ItemId], Field(max_length=10_000)] = []
    diversity: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    perspective: Perspective | None = Field(
        default=None, description="How a model is asked; else as the catalogue's settings say."
    )
    strategy: Literal["beam", "paper", "flat", "embedded"] = Field(
        default="beam",
        description="beam: the tree search; paper: Algorithm 1 as published; flat: the catalogue "
        "in prompts; embedded: no model. Without a model all are the embedded ranker.",
    )
    effort: EffortName = Field(
        default="balanced", description="What a model may cost; without one it changes nothing."
    )
    fields: Annotated[list[_Name], Field(max_length=50)] = Field(
        default=["title"], description="Item fields and attributes to answer with."
    )
    explain: Literal["none", "brief", "full"] = "brief"
    timeout_ms: int = Field(default=10_000, ge=1, le=600_000)
    max_cost_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    on_degraded: Literal["allow", "error"] = "allow"

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "history": [{"item_id": "book-dune"}, {"title": "Blade Runner"}],
                    "instruction": "something slow and thoughtful",
                    "domains": ["films"],
                    "limit": 5,
                    "filter": {"all": [{"field": "year", "gte": 1980}]},
                }
            ]
        }
    )


def _instant(bound: Scalar) -> float:
    """Seconds since the epoch. Raises ValueError for what is not an RFC 3339 time with a zone."""
    try:
        moment = datetime.fromisoformat(bound) if isinstance(bound, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError('compare a date with a time such as "2026-01-31T12:00:00Z"')
    return moment.timestamp()


def field_of(item: Item, name: str) -> object:
    """A field of the item, or else an attribute; None when it has neither."""
    if name in Item.model_fields and name != "attributes":
        return getattr(item, name)
    return item.attributes.get(name)


def _value_of(item: Item, name: str) -> Scalar | tuple[Scalar, ...] | None:
    value = field_of(item, name)
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, str | int | float | bool | tuple):
        return value
    return None


def _same(value: Scalar, wanted: Scalar) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return normalise(value) == normalise(wanted)
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _ordered(value: Scalar, bound: int | float | str, sign: str) -> bool:
    if isinstance(value, bool) or isinstance(value, str) != isinstance(bound, str):
        return False
    difference = (value > bound) - (value < bound)  # type: ignore[operator]
    return {">": difference > 0, ">=": difference >= 0, "<": difference < 0, "<=": difference <= 0}[
        sign
    ]
