"""`Groups`: what the items of an answer are grouped by, looked up in the whole catalogue."""

from collections.abc import Collection
from dataclasses import dataclass

from app.recommend.columns import Mask
from app.recommend.fields import Fields
from app.recommend.filters import DATES, Condition, Filter, Scalar
from app.recommend.response import AnswerWarning
from tree.item import Item
from tree.snapshot import SemanticTree

_MOST_VALUES = 1_000  # of a condition


@dataclass(frozen=True, slots=True)
class Groups:
    """Items that have a value of the field `name` in common are one group; without it, none is."""

    fields: Fields
    tree: SemanticTree
    name: str | None

    async def others(self, rows: Mask, shown: Collection[Scalar]) -> Mask:
        """The rows that are in none of the groups with these values.

        The first use of a field reads all records, as a filter does. Raises FilterTooLarge,
        StoreUnavailable.
        """
        if self.name is None or self.name in DATES or not shown:
            return rows
        values = list(shown)[:_MOST_VALUES]
        condition = Condition.model_validate({"field": self.name, "in": values})
        passing = await self.fields.passing(self.tree, Filter(none=[condition]))
        return rows & passing.rows

    async def unknown(self) -> list[AnswerWarning]:
        """A warning if no item of the catalogue has the field. Raises as `others` does."""
        if self.name is None or self.name in Item.model_fields:
            return []
        condition = Condition.model_validate({"field": self.name, "ne": False})
        passing = await self.fields.passing(self.tree, Filter(all=[condition]))
        return [AnswerWarning(code="unknown_field", message=text) for text in passing.unknown]
