"""Pictures of items are fetched from the public internet only, and within limits."""

import asyncio
import io
import logging
import socket
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from PIL import Image

from app.curate.enrichment.pictures import (
    NoPicture,
    PictureFetcher,
    PictureLimits,
    linked,
)
from app.curate.enrichment.thumbnails import SIDE
from tests.servers.pictures import CERTIFICATE, PictureServer, picture

VASE = (SIDE, SIDE * 3 // 4)  # what is shown of the picture of a server
LIMITS = PictureLimits(size_bytes=3_000_000, timeout_s=20)


class Names(AbstractResolver):
    """Answers each lookup of a name with its next addresses; the last ones stay."""

    def __init__(self, **addresses: list[list[str]]) -> None:
        self._addresses = {name.replace("_", "."): left for name, left in addresses.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        left = self._addresses[host]
        found = left.pop(0) if len(left) > 1 else left[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def one_server() -> Iterator[PictureServer]:
    server = PictureServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def another_server() -> Iterator[PictureServer]:
    """Which no fetcher trusts."""
    server = PictureServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def secure_server() -> Iterator[PictureServer]:
    server = PictureServer(secure=True)
    yield server
    server.stop()


@pytest.fixture
def server(one_server: PictureServer) -> PictureServer:
    one_server.asked.clear()
    one_server.headers.clear()
    one_server.sent = one_server.most_together = 0
    one_server.serve("/vase.jpg", picture())
    return one_server


@pytest.fixture
async def fetcher(server: PictureServer) -> AsyncIterator[PictureFetcher]:
    async with PictureFetcher(LIMITS, trusted=[server.authority]) as fetcher:
        yield fetcher


def decoded(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(b64decode(data)))


async def reason(fetcher: PictureFetcher, address: str) -> str:
    """Why there is no picture at an address."""
    with pytest.raises(NoPicture) as caught:
        await fetcher.fetch(address)
    assert "/" not in str(caught.value)  # nothing of the address
    return caught.value.reason


# -- what a model is shown


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
async def test_a_picture_is_shown_small(
    fetcher: PictureFetcher, server: PictureServer, form: str
) -> None:
    server.serve("/it", picture(form, (2_000, 1_000)))
    shown = decoded(await fetcher.fetch(f"http://{server.authority}/it"))
    assert shown.size == (SIDE, SIDE // 2)
    pixel = shown.getpixel((100, 100))
    assert isinstance(pixel, tuple)
    assert max(abs(a - b) for a, b in zip(pixel, (0, 128, 128), strict=True)) < 6


async def test_a_small_picture_stays_as_large_as_it_is(
    fetcher: PictureFetcher, server: PictureServer
) -> None:
    server.serve("/it", picture("PNG", (60, 40)))
    assert decoded(await fetcher.fetch(f"http://{server.authority}/it")).size == (60, 40)


async def test_transparency_is_white(fetcher: PictureFetcher, server: PictureServer) -> None:
    server.serve("/it", picture("PNG", (64, 64), "RGBA", "#ff000000"))
    shown = decoded(await fetcher.fetch(f"http://{server.authority}/it"))
    assert shown.getpixel((5, 5)) == (255, 255, 255)


async def test_a_photo_stands_upright_and_says_nothing_of_its_place(
    fetcher: PictureFetcher, server: PictureServer
) -> None:
    written = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    exif[0x010F] = "A camera"
    Image.new("RGB", (400, 200), "teal").save(written, "JPEG", exif=exif)
    server.serve("/it", written.getvalue())
    shown = decoded(await fetcher.fetch(f"http://{server.authority}/it"))
    assert shown.size == (200, 400)
    assert not shown.getexif()


async def test_the_header_does_not_say_what_a_picture_is(
    fetcher: PictureFetcher, server: PictureServer
) -> None:
    server.serve("/it", picture(), "text/html")
    assert decoded(await fetcher.fetch(f"http://{server.authority}/it")).size == VASE


# -- what is no picture

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"></svg>'


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"<!doctype html><title>Sign in</title>", "image/jpeg", "type"),
        (SVG, "image/svg+xml", "type"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "image/jpeg", "type"),
        (lambda: picture("BMP"), "image/jpeg", "type"),
        (lambda: picture("TIFF"), "image/png", "type"),
        (b"", "image/jpeg", "type"),
        (b"\xff\xd8\xff", "image/jpeg", "type"),
        (b"\xff\xd8\xff" + b"x" * 500, "image/jpeg", "broken"),
        (b"RIFF\x24\x00\x00\x00WEBP" + b"\x00" * 40, "image/webp", "broken"),
        (lambda: picture("PNG")[:200], "image/png", "broken"),
        (lambda: picture()[: len(picture()) // 2], "image/jpeg", "broken"),
        (lambda: picture("GIF", (1, 1)), "image/gif", "broken"),
        (lambda: picture("PNG", (3_000, 20)), "image/png", "broken"),
        (lambda: picture("PNG", (6_000, 6_000), "L", "white"), "image/png", "broken"),
        (lambda: picture("PNG", (15_000, 15_000), "1", "white"), "image/png", "broken"),  # a bomb
    ],
)
async def test_what_cannot_be_shown_has_a_reason(
    fetcher: PictureFetcher,
    server: PictureServer,
    content: bytes | Callable[[], bytes],
    kind: str,
    expected: str,
) -> None:
    server.serve("/it", content if isinstance(content, bytes) else content(), kind)
    assert await reason(fetcher, f"http://{server.authority}/it") == expected


async def test_a_page_that_is_missing(fetcher: PictureFetcher, server: PictureServer) -> None:
    assert await reason(fetcher, f"http://{server.authority}/nowhere.jpg") == "status"


@pytest.mark.parametrize(
    "address",
    [
        "", "vase.jpg", "//photos.test/vase.jpg", "ftp://photos.test/vase.jpg", "file:///etc/passwd",
        "data:image/png;base64,AAAA", "javascript:alert(1)", "http://photos.test/vase.jpg",
        "https://", "https://[::1/vase.jpg", "https://photos.test:99999/vase.jpg",
        "https://me:secret@photos.test/vase.jpg", "https://me@photos.test/vase.jpg",
        "https://2130706433/vase.jpg", "https://127.1/vase.jpg", "https://0x7f.0.0.1/vase.jpg",
    ],
)  # fmt: skip
async def test_what_is_no_link(fetcher: PictureFetcher, address: str) -> None:
    assert await reason(fetcher, address) in {"link", "private"}


# -- only the public internet


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "[::1]", "localhost", "10.0.0.1", "169.254.169.254",
        "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "0.0.0.0", "[fe80::1]",
    ],
)  # fmt: skip
async def test_no_connection_inside_the_network(
    fetcher: PictureFetcher, another_server: PictureServer, host: str
) -> None:
    address = f"https://{host}:{another_server.port}/vase.jpg"
    assert await reason(fetcher, address) == "private"


@pytest.mark.parametrize("found", [["10.0.0.1"], ["169.254.169.254", "::1"], ["::ffff:10.0.0.1"]])
async def test_a_name_of_a_private_address(found: list[str]) -> None:
    async with PictureFetcher(LIMITS, resolver=Names(photos_test=[found])) as fetcher:
        assert await reason(fetcher, "https://photos.test/vase.jpg?token=secret") == "private"


async def test_a_name_without_an_address() -> None:
    async with PictureFetcher(LIMITS, resolver=Names()) as fetcher:
        assert await reason(fetcher, "https://photos.test/vase.jpg") == "host"


async def test_a_redirect_into_the_network_ends_there(
    fetcher: PictureFetcher, server: PictureServer, another_server: PictureServer
) -> None:
    another_server.serve("/secret.jpg", picture())
    inside = f"{another_server.authority}/secret.jpg"
    for to, expected in [
        (f"https://{inside}", "private"),
        (f"http://{inside}", "link"),
        (f"http://localhost:{server.port}/vase.jpg", "link"),
        ("file:///etc/passwd", "link"),
        ("https://169.254.169.254/latest/meta-data/", "private"),
        (f"http://me:secret@{server.authority}/vase.jpg", "link"),
    ]:
        server.redirect("/moved", to)
        assert await reason(fetcher, f"http://{server.authority}/moved") == expected
    assert another_server.asked == []


async def test_an_address_that_changes_after_the_lookup(server: PictureServer) -> None:
    """The connection goes to the address that was checked, without a second lookup."""
    names = Names(photos_test=[["127.0.0.1"], ["10.0.0.1"]])
    trusted = [server.authority, f"photos.test:{server.port}"]
    async with PictureFetcher(LIMITS, trusted=trusted, resolver=names) as fetcher:
        address = f"http://photos.test:{server.port}/vase.jpg"
        assert decoded(await fetcher.fetch(address)).size == VASE
        assert names.asked == ["photos.test"]
        assert server.asked == [(f"photos.test:{server.port}", "/vase.jpg")]
    async with PictureFetcher(LIMITS, trusted=trusted, resolver=names) as fetcher:
        assert await reason(fetcher, address) == "private"


async def test_redirects_are_followed_three_times(
    fetcher: PictureFetcher, server: PictureServer
) -> None:
    for number in range(1, 5):
        server.redirect(f"/{number}", f"/{number - 1}" if number > 1 else "/vase.jpg")
    assert decoded(await fetcher.fetch(f"http://{server.authority}/3")).size == VASE
    assert await reason(fetcher, f"http://{server.authority}/4") == "redirects"
    server.redirect("/round", "/round")
    assert await reason(fetcher, f"http://{server.authority}/round") == "redirects"


# -- https


def by_name(server: PictureServer, name: str, **more: Any) -> PictureFetcher:
    names = Names(**{name.replace(".", "_"): [["127.0.0.1"]]})
    return PictureFetcher(LIMITS, trusted=[server.authority], resolver=names, **more)


async def test_the_certificate_is_that_of_the_name(secure_server: PictureServer) -> None:
    secure_server.serve("/vase.jpg", picture())
    tls = ssl.create_default_context(cafile=CERTIFICATE)
    port = secure_server.port
    async with by_name(secure_server, "photos.test", tls=tls) as fetcher:
        assert decoded(await fetcher.fetch(f"https://photos.test:{port}/vase.jpg")).size == VASE
    async with by_name(secure_server, "other.test", tls=tls) as fetcher:
        assert await reason(fetcher, f"https://other.test:{port}/vase.jpg") == "connection"
    async with by_name(secure_server, "photos.test") as fetcher:
        assert await reason(fetcher, f"https://photos.test:{port}/vase.jpg") == "connection"


# -- limits


async def test_an_endless_picture_is_read_up_to_the_limit(
    fetcher: PictureFetcher, server: PictureServer
) -> None:
    assert await reason(fetcher, f"http://{server.authority}/endless") == "size"
    assert server.sent < 40_000_000  # the rest fills buffers of the system


async def test_a_header_of_ten_gigabytes_is_believed(
    fetcher: PictureFetcher, server: PictureServer
) -> None:
    assert await reason(fetcher, f"http://{server.authority}/boast") == "size"


async def test_nothing_is_decompressed(fetcher: PictureFetcher, server: PictureServer) -> None:
    assert await reason(fetcher, f"http://{server.authority}/packed") == "type"


@pytest.mark.parametrize("path", ["slow", "hang"])
async def test_a_picture_has_to_be_complete_in_time(server: PictureServer, path: str) -> None:
    limits = replace(LIMITS, timeout_s=0.3)
    async with PictureFetcher(limits, trusted=[server.authority]) as fetcher:
        assert await reason(fetcher, f"http://{server.authority}/{path}") == "time"


async def test_a_connection_that_breaks(fetcher: PictureFetcher, server: PictureServer) -> None:
    assert await reason(fetcher, f"http://{server.authority}/short") == "connection"


async def test_a_server_that_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        authority = f"127.0.0.1:{listening.getsockname()[1]}"
    async with PictureFetcher(LIMITS, trusted=[authority]) as fetcher:
        assert await reason(fetcher, f"http://{authority}/vase.jpg") == "connection"


async def test_so_many_at_once(server: PictureServer) -> None:
    limits = replace(LIMITS, at_once=2)
    addresses = [f"http://{server.authority}/{number}.jpg" for number in range(10)]
    for number in range(10):
        server.serve(f"/{number}.jpg", picture())
    async with PictureFetcher(limits, trusted=[server.authority]) as fetcher:
        found = await fetcher.fetch_all(addresses)
    assert set(found.pictures) == set(addresses)
    assert 1 <= server.most_together <= 2


# -- many


async def test_many_pictures_and_why_some_are_missing(
    fetcher: PictureFetcher, server: PictureServer
) -> None:
    good = f"http://{server.authority}/vase.jpg"
    missing = f"http://{server.authority}/nowhere"
    found = await fetcher.fetch_all([good, missing, good, "ftp://x", missing + "2", ""])
    assert list(found.pictures) == [good]
    assert found.missing == {"status": 2, "link": 2}
    assert [path for _, path in server.asked].count("/vase.jpg") == 1


async def test_what_is_sent_names_no_user_and_no_log_the_address(
    fetcher: PictureFetcher, server: PictureServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await fetcher.fetch(f"http://{server.authority}/vase.jpg?token=secret")
    [sent] = server.headers
    assert not {"cookie", "authorization", "referer"} & set(sent)
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not [record for record in ours if "secret" in record.getMessage()]


async def test_a_fetch_that_is_cancelled_frees_its_place(server: PictureServer) -> None:
    limits = replace(LIMITS, at_once=1)
    async with PictureFetcher(limits, trusted=[server.authority]) as fetcher:
        stuck = asyncio.create_task(fetcher.fetch(f"http://{server.authority}/hang"))
        while "/hang" not in [path for _, path in server.asked]:
            await asyncio.sleep(0.01)
        stuck.cancel()
        assert decoded(await fetcher.fetch(f"http://{server.authority}/vase.jpg")).size == VASE


# -- links for a provider


def test_a_link_is_handed_on_as_it_is() -> None:
    address = "https://photos.test/vase.jpg?width=300&token=a%20b"
    assert linked(address) == address


@pytest.mark.parametrize("address", ["", "http://photos.test/a", "https://me:x@photos.test/a"])
def test_what_is_no_link_is_not_handed_on(address: str) -> None:
    with pytest.raises(NoPicture):
        linked(address)
