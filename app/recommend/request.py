"""The body of the recommend endpoint."""

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from app.event_types import EventTypeName
from app.options import EffortName, StrategyName, TaskName
from app.rank_weights import WeightChanges
from app.recommend.filters import Filter, StrictModel
from app.variants import VariantName
from prompts import Perspective
from tree.item import WHOLE, Id, StoredId

_SOME_WORD = Field(json_schema_extra={"pattern": r"\S"})
_Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000),
    _SOME_WORD,
]
_Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), _SOME_WORD
]

FieldNames: TypeAlias = Annotated[list[_Name], Field(max_length=50)]
Cursor: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class HistoryEntry(StrictModel):
    """Something the user had: an item of the catalogue, or the title of anything."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("item_id", "title")
            ]
        }
    )

    item_id: StoredId | None = None
    title: _Text | None = None
    domain: Annotated[str, StringConstraints(max_length=100)] = ""
    type: EventTypeName | None = Field(
        default=None,
        description="What the user did with it, as in events. Default: purchase. A dislike is "
        "never shown, and lowers what is like it.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "HistoryEntry":
        if (self.item_id is None) == (self.title is None):
            raise ValueError("give either item_id or title")
        return self


class RecommendRequest(StrictModel):
    """A user, as far as known, and what they want now. All of it is optional."""

    user_id: Id | None = Field(
        default=None, description="Whose stored history and profile stand in where none is given."
    )
    history: Annotated[list[HistoryEntry], Field(max_length=10_000, fail_fast=True)] = Field(
        default=[],
        description="Oldest first; the newest 50 count. What takes an item from the answer is a "
        "property of its `type`, unless `exclude_history` says otherwise.",
    )
    exclude_history: bool | None = Field(
        default=None,
        description="Whether items of the history are left out of the answer. Default: those whose "
        "type of event hides them (a purchase does, a view does not), and none for a search. "
        "Disliked items are always left out.",
    )
    profile: _Text | None = Field(default=None, description="A sentence about the user.")
    instruction: _Text | None = Field(default=None, description="A wish in words, for now.")
    scenario: _Name | None = Field(
        default=None,
        description="Where the answer is shown, for metrics: `home`, `cart`, …. `trending` asks "
        "for that task in place of `recommend`.",
    )
    task: TaskName = Field(
        default="recommend",
        validate_default=True,
        description="recommend: what suits the user; search: what the instruction asks for, "
        "whatever the user had; complement: what goes with the history and is not more of the "
        "same; explore: what suits the user and few know; trending: what rises now.",
    )
    variant: VariantName | None = Field(
        default=None, description="A variant of the catalogue; else that of the user."
    )
    domains: Annotated[list[_Name], Field(max_length=100)] | None = None
    limit: Annotated[int, Field(ge=1, le=100), WHOLE] = 10
    cursor: Cursor | None = Field(
        default=None,
        description="`next_cursor` of the page before, with the same request. What comes next is "
        "what was ranked then: no model is asked again, and nothing is shown twice.",
    )
    filter: Filter | None = None
    exclude_items: Annotated[list[StoredId], Field(max_length=10_000, fail_fast=True)] = Field(
        default=[]
    )
    fold: bool = Field(
        default=True,
        description="Whether near-duplicates (one thing in another size, colour, edition or "
        "packaging) appear once, as the best of them.",
    )
    group_by: _Name | None = Field(
        default=None,
        description="A field or attribute of items: at most one item for each of its values.",
    )
    diversity: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    weights: WeightChanges | None = Field(
        default=None, description="Weights of the ranking for this answer; else as set."
    )
    perspective: Perspective | None = Field(
        default=None, description="How a model is asked; else as the catalogue's settings say."
    )
    strategy: StrategyName = Field(
        default="beam",
        description="beam: a model ranks the best of what vectors find; embedded: no model. For "
        "comparison: walk: a model chooses branches down the tree; paper: Algorithm 1 as "
        "published; flat: the catalogue in prompts. Without a model all are the embedded ranker.",
    )
    effort: EffortName = Field(
        default="auto",
        description="What a model may cost; without one it changes nothing. auto: what earns its "
        "tokens for this request.",
    )
    fields: FieldNames = Field(
        default=["title"], description="Item fields and attributes to answer with."
    )
    explain: Literal["none", "brief", "full"] = "brief"
    timeout_ms: Annotated[int, Field(ge=1, le=600_000), WHOLE] = 10_000
    max_cost_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    on_degraded: Literal["allow", "error"] = "allow"

    @property
    def has_words(self) -> bool:
        """Whether the user says what they want or like."""
        return bool(self.instruction or self.profile)

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

    @field_validator("task")
    @classmethod
    def _asks_for_something(cls, task: TaskName, known: ValidationInfo) -> TaskName:
        if task == "search" and known.data.get("instruction", "") is None:
            raise ValueError("a search needs an instruction")
        if task == "recommend" and known.data.get("scenario") == "trending":
            return "trending"
        return task
