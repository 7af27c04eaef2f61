"""`ItemPictures`: the pictures of items, as a model is shown them."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from app.curate.enrichment.pictures import Fetched, NoPicture, PictureFetcher, Reason, linked
from app.settings import PictureWay
from tree.item import Item


@dataclass(slots=True)
class ItemsShown:
    """URLs of pictures that can be shown, by item id; the others are counted by what was wrong."""

    pictures: dict[str, str] = field(default_factory=dict)
    missing: Counter[Reason] = field(default_factory=Counter)


class ItemPictures:
    """Pictures by item. The caller closes it."""

    def __init__(self, way: PictureWay = "fetch", trusted: Collection[str] = ()) -> None:
        """With `fetch`, pictures are fetched and made small: see PictureFetcher for `trusted`.

        With `link`, the provider of the model gets their addresses.
        """
        self._fetcher = PictureFetcher(trusted=trusted) if way == "fetch" else None

    async def of(self, items: Iterable[Item]) -> ItemsShown:
        """The pictures of these items; those without `image_url` are not counted as missing."""
        addresses = {item.id: item.image_url for item in items if item.image_url}
        if self._fetcher is None:
            found = _links(addresses.values())
        else:
            found = await self._fetcher.fetch_all(addresses.values())
        by_item = {
            item_id: found.pictures[address]
            for item_id, address in addresses.items()
            if address in found.pictures
        }
        return ItemsShown(by_item, Counter(found.missing))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._fetcher is not None:
            await self._fetcher.aclose()


def _links(addresses: Iterable[str]) -> Fetched:
    links: dict[str, str] = {}
    missing: Counter[Reason] = Counter()
    for address in dict.fromkeys(addresses):
        try:
            links[address] = linked(address)
        except NoPicture as error:
            missing[error.reason] += 1
    return Fetched(links, missing)
