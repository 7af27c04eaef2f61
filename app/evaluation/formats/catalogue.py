"""`Catalogue`: the items of a load, each id once."""

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from app.evaluation.formats.files import Source
from tree.item import Item

DUPLICATE = "item id seen before"
UNKNOWN = "event of an item that the catalogue lacks"


class Catalogue:
    """Items in the order of the files, and where each id stands."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.positions: dict[str, int] = {}

    def add(self, source: Source, fields: Mapping[str, object]) -> None:
        """Take an item in; what cannot be one, or repeats an id, is counted where it stands."""
        try:
            item = Item.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = first["loc"][0] if first["loc"] else "item"
            source.malformed(f"no item: {field}: {first['msg']}")
            return
        if item.id in self.positions:
            source.leave_out(DUPLICATE)
            return
        self.positions[item.id] = len(self.items)
        self.items.append(item)

    def known(self, each: str | int, source: Source) -> str | None:
        """The id as the item has it, one string for all events; None, counted, if unknown."""
        position = self.positions.get(str(each))
        if position is None:
            source.leave_out(UNKNOWN)
            return None
        return self.items[position].id

    def only(self, ids: Iterable[str | int], source: Source) -> tuple[str, ...]:
        """Those that are known."""
        return tuple(known for each in ids if (known := self.known(each, source)) is not None)

    def seen(
        self, shown: Iterable[tuple[str | int, int]], source: Source
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        """What of (item, was it chosen?) is known, each once; and what of that was chosen."""
        labels: dict[str, bool] = {}
        for each, label in shown:
            known = self.known(each, source)
            if known is not None:
                labels[known] = labels.get(known, False) or bool(label)
        return tuple(labels), frozenset(each for each, chosen in labels.items() if chosen)
