"""`ItemPictures`: the pictures of items, as a model is shown them."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Literal, TypeAlias

from app.curate.enrichment.pictures import NoPicture, PictureFetcher, Reason, linked
from tree.item import Item

PictureWay: TypeAlias = Literal["fetch", "link"]
"""Pictures are fetched here and sent with the prompt, or the provider gets their addresses."""


class ItemPictures:
    """Pictures by item; why others have none is counted in `missing`. The caller closes it."""

    def __init__(self, way: PictureWay = "fetch", trusted: Collection[str] = ()) -> None:
        """See PictureFetcher for `trusted`."""
        self._fetcher = PictureFetcher(trusted=trusted) if way == "fetch" else None
        self.missing: Counter[Reason] = Counter()

    async def of(self, items: Iterable[Item]) -> dict[str, str]:
        """The URLs of pictures that can be shown, by item id: data: URLs, or links.

        Items without `image_url` are left out, and not counted.
        """
        addresses = {item.id: item.image_url for item in items if item.image_url}
        if self._fetcher is None:
            shown = self._links(addresses.values())
        else:
            fetched = await self._fetcher.fetch_all(addresses.values())
            self.missing.update(fetched.missing)
            shown = dict(fetched.pictures)
        return {
            item_id: shown[address] for item_id, address in addresses.items() if address in shown
        }

    def _links(self, addresses: Iterable[str]) -> dict[str, str]:
        links = {}
        for address in dict.fromkeys(addresses):
            try:
                links[address] = linked(address)
            except NoPicture as error:
                self.missing[error.reason] += 1
        return links

    async def aclose(self) -> None:
        """Close the connections."""
        if self._fetcher is not None:
            await self._fetcher.aclose()
