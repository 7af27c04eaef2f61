"""Which pictures a model is shown of some items."""

from collections.abc import Iterator

import pytest

from app.curate.enrichment.item_pictures import ItemPictures
from tests.servers.pictures import PictureServer, picture
from tree.item import Item


@pytest.fixture
def server() -> Iterator[PictureServer]:
    server = PictureServer()
    server.serve("/vase.png", picture("PNG"))
    yield server
    server.stop()


def item(name: str, address: str) -> Item:
    return Item(id=name, title=name.title(), image_url=address)


async def test_pictures_are_fetched_once_for_all_items_that_have_them(
    server: PictureServer,
) -> None:
    address = f"http://{server.authority}/vase.png"
    items = [item("vase", address), item("copy", address), item("bare", ""), item("gone", "x:y")]
    pictures = ItemPictures(trusted=[server.authority])
    shown = await pictures.of(items)
    await pictures.aclose()
    assert sorted(shown.pictures) == ["copy", "vase"]
    assert shown.pictures["vase"] == shown.pictures["copy"]
    assert shown.pictures["vase"].startswith("data:image/jpeg;base64,")
    assert shown.missing == {"link": 1}
    assert len(server.asked) == 1
    assert await pictures.of(items) == shown  # new connections are opened
    await pictures.aclose()


async def test_a_provider_gets_links_and_nothing_is_fetched(server: PictureServer) -> None:
    inside = f"http://{server.authority}/vase.png"
    pictures = ItemPictures("link")
    shown = await pictures.of([item("vase", "https://photos.test/vase.png"), item("b", inside)])
    assert shown.pictures == {"vase": "https://photos.test/vase.png"}
    assert shown.missing == {"link": 1}
    assert server.asked == []
