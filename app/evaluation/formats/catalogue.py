"""`Catalogue`: the items of a data set, each id once."""

from collections.abc import Collection, Mapping, Sequence

from pydantic import ValidationError

from app.data_files.files import DataFile
from tree.item import Item

DUPLICATE = "item id seen before"
UNKNOWN = "event of an item that the catalogue lacks"


class Catalogue:
    """The items in the order of the files, and the position of each id."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.positions: dict[str, int] = {}
        self._names: dict[str, str] = {}

    def add(self, file: DataFile, fields: Mapping[str, object]) -> None:
        """Add an item. An invalid item or a repeated id is left out and counted."""
        try:
            item = Item.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = first["loc"][0] if first["loc"] else "item"
            file.malformed(f"invalid item: {field}: {first['msg']}")
            return
        if item.id in self.positions:
            file.leave_out(DUPLICATE)
            return
        self.positions[item.id] = len(self.items)
        self._names[item.id] = item.id
        self.items.append(item)

    def known(self, ids: Sequence[str], file: DataFile) -> list[str]:
        """The ids that are in the catalogue; others are counted. Equal ids share one string."""
        get = self._names.get
        found = [name for each in ids if (name := get(each)) is not None]
        for _ in range(len(ids) - len(found)):
            file.leave_out(UNKNOWN)
        return found

    def seen(
        self, shown: Sequence[str], chosen: Collection[str], file: DataFile
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        """The known items among those shown, each once, and the chosen ones among them."""
        known = tuple(dict.fromkeys(self.known(shown, file)))
        return known, frozenset(chosen).intersection(known)
