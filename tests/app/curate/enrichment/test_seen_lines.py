"""Lines by a model that sees pictures: only where the owner wants it and the model can."""

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise

import pytest

from app.curate import EnrichmentOptions, EnrichmentParams, OwnerSettings
from app.curate.enrichment.item_pictures import ItemPictures
from app.curate.enrichment.line_writer import Lines, LineWriter
from app.jobs import Job, JobReport
from app.llm import ChatModel, Sighted
from app.llm.tokens import PICTURE_TOKENS
from tests.app.curate.enrichment.support import (
    PRICE,
    assert_right,
    enrichment_of,
    lines_json,
    models_of,
    written,
)
from tests.servers.hostile import Behaviour, pictures_of
from tests.servers.pictures import PictureServer, picture
from tree.item import Item


@pytest.fixture(scope="module")
def one_server() -> Iterator[PictureServer]:
    server = PictureServer()
    yield server
    server.stop()


@pytest.fixture
def photos(one_server: PictureServer) -> PictureServer:
    one_server.asked.clear()
    for number, colour in enumerate(["red", "green", "blue"]):
        one_server.serve(f"/{number}.png", picture("PNG", (64, 64), colour=colour))
    return one_server


@pytest.fixture
def items(demo_items: list[Item], photos: PictureServer) -> list[Item]:
    """Three items with a picture, one whose picture is gone, and others without."""
    addresses = [f"http://{photos.authority}/{number}.png" for number in range(4)]
    return [
        item.model_copy(update={"image_url": address})
        for item, address in zip(demo_items, [*addresses, "", ""], strict=False)
    ]


@pytest.fixture
async def sighted(shop, chat, hostile_server) -> AsyncIterator[Sighted]:
    """A model that is asked first whether it sees."""
    hostile_server.content = lambda prompt: lines_json(prompt) if "Items:" in prompt else "Green."
    model = Sighted(chat, shop.documents)
    yield model
    await model.aclose()


@pytest.fixture
async def pictures(photos: PictureServer) -> AsyncIterator[ItemPictures]:
    pictures = ItemPictures(trusted=[photos.authority])
    yield pictures
    await pictures.aclose()


def writer(chat: ChatModel, shop, pictures: ItemPictures) -> LineWriter:
    return LineWriter(models_of(chat, shop.documents), shop.documents, pictures, timeout_s=5.0)


def tags_and_pictures(body: dict) -> list[tuple[str, str]]:
    """Each picture of a request with the caption before it."""
    parts = body["messages"][-1]["content"]
    return [
        (before["text"], part["image_url"]["url"])
        for before, part in pairwise(parts)
        if part["type"] == "image_url"
    ]


async def seen(writer: LineWriter, items: Sequence[Item], **options: object) -> Lines:
    return await written(writer, items, images=True, **options)


async def test_the_model_sees_the_pictures_of_its_items(
    shop, chat, hostile_server, photos, pictures, items
):
    lines = await seen(writer(chat, shop, pictures), items)
    assert_right(lines.of, items)
    assert len(lines.of) == 6
    [body] = hostile_server.requests
    found = tags_and_pictures(body)
    assert len({url for _, url in found}) == 3
    for number, (caption, url) in enumerate(found, 1):
        assert str(number) in caption
        assert url.startswith("data:image/jpeg;base64,")
    assert lines.unseen == {"status": 1}


async def test_no_picture_is_fetched_unless_the_owner_wants_it(
    shop, chat, hostile_server, photos, pictures, items
):
    assert len((await written(writer(chat, shop, pictures), items)).of) == 6
    assert photos.asked == []
    assert pictures_of(hostile_server.requests[0]) == []


async def test_an_item_is_asked_about_again_when_its_picture_counts(
    shop, chat, hostile_server, photos, pictures, items
):
    one = writer(chat, shop, pictures)
    await written(one, items)
    again = await seen(one, items)
    assert again.kept == 2  # those without a picture
    assert (await seen(one, items)).kept == 6
    assert len(hostile_server.requests) == 2


async def test_a_blind_model_costs_no_fetch(shop, sighted, hostile_server, photos, pictures, items):
    hostile_server.play([Behaviour.NO_PICTURES] * 20)
    lines = await seen(writer(sighted, shop, pictures), items)
    assert_right(lines.of, items)
    assert len(lines.of) == 6
    assert photos.asked == []


async def test_a_picture_that_the_model_refuses_costs_no_line(
    shop, sighted, hostile_server, photos, pictures, items
):
    hostile_server.play([Behaviour.WELL_FORMED, Behaviour.NO_PICTURES])
    lines = await seen(writer(sighted, shop, pictures), items)
    assert_right(lines.of, items)
    assert len(lines.of) == 6


async def test_a_job_tells_why_pictures_are_missing(demo, chat, hostile_server, photos, items):
    await demo.curator.put(items)

    async def options() -> EnrichmentOptions:
        return EnrichmentOptions(images=True)

    owner = OwnerSettings("en", options)
    hosts = [photos.authority]
    models = models_of(chat, demo.documents, price=PRICE)
    blind = await run(enrichment_of(demo, models), dry_run=True)
    enrichment = enrichment_of(demo, models, owner, llm_picture_hosts=hosts)
    try:
        estimate = await run(enrichment, dry_run=True)
        result = await run(enrichment)
    finally:
        await enrichment.aclose()
    assert result["pictures_missing"] == {"status": 1}
    assert result["failed"] == {}
    shown = [url for body in hostile_server.requests for url in pictures_of(body)]
    assert len(shown) == 3
    more = estimate["estimate"]["input_tokens"] - blind["estimate"]["input_tokens"]
    assert 4 * PICTURE_TOKENS < more < 5 * PICTURE_TOKENS  # of four items with an address


async def run(enrichment, **params: object) -> dict:
    body = EnrichmentParams.model_validate(params).model_dump(mode="json")
    job = Job.new("enrichment", "shop", body)
    return await enrichment.run(job, JobReport(job))
