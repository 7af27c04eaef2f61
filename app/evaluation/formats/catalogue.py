"""`Catalogue`: the items of a load, each id once."""

from collections.abc import Collection, Mapping, Sequence

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
        self._names: dict[str, str] = {}

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
        self._names[item.id] = item.id
        self.items.append(item)

    def known(self, ids: Sequence[str], source: Source) -> list[str]:
        """Those that are in the catalogue, one string per item for all events; others counted."""
        get = self._names.get
        found = [name for each in ids if (name := get(each)) is not None]
        for _ in range(len(ids) - len(found)):
            source.leave_out(UNKNOWN)
        return found

    def seen(
        self, shown: Sequence[str], chosen: Collection[str], source: Source
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        """What is known of the items shown, each once, and of those chosen of them."""
        known = tuple(dict.fromkeys(self.known(shown, source)))
        return known, frozenset(chosen).intersection(known)
