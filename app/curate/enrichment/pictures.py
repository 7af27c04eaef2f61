"""`PictureFetcher`: pictures of items from addresses that anybody may have written.

An address in a catalogue must not make this service open connections inside its own network.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from yarl import URL

from app.curate.enrichment.thumbnails import HEAD, NotAPicture, is_picture, thumbnail
from app.hosts import is_public

if TYPE_CHECKING:  # takes 0.2 s, which only who fetches pictures pays
    import aiohttp
    from aiohttp.abc import AbstractResolver

Reason: TypeAlias = Literal[
    "link",  # not a usable https address
    "host",  # the name has no address
    "private",  # an address that is not of the public internet
    "connection",  # refused or broken, or the certificate is wrong
    "redirects",  # too many
    "status",  # not 200
    "size",  # too many bytes
    "type",  # not a JPEG, PNG, WebP or GIF
    "broken",  # cannot be decoded, or an unusual size
    "time",  # not complete in time
]

_HEADERS = {
    "accept": "image/jpeg, image/png, image/webp, image/gif",
    "accept-encoding": "identity",  # nothing is decompressed, so that the bytes that come count
    "user-agent": "unillmrec",
}
_REDIRECTS = (
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
)
_PIECE = 65_536
_ADDRESS_REFUSED = "the address is not of the public internet"


class NoPicture(Exception):
    """An item has no picture that can be shown. Its message holds no part of the address."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"no picture: {reason}")
        self.reason: Reason = reason


class _NotPublic(OSError):
    """A connection that is not made. Of one text, as aiohttp joins errors of several texts."""

    def __init__(self) -> None:
        super().__init__(_ADDRESS_REFUSED)


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What one picture may take, and how many are fetched at once."""

    size_bytes: int = 8_000_000
    redirects: int = 3
    timeout_s: float = 10.0  # from the lookup of the host to the last byte
    at_once: int = 8


@dataclass(frozen=True, slots=True)
class Fetched:
    """`pictures` maps addresses to data: URLs; the others are counted by what was wrong."""

    pictures: Mapping[str, str]
    missing: Mapping[Reason, int]


class PictureFetcher:
    """Fetches pictures over https from public addresses; a context manager, or see `aclose`.

    Hosts are looked up once per connection, and the address that was found is checked when the
    socket to it is opened: redirects, numbers in place of names and names whose address changes
    all end there. Authorities (host:port) in `trusted` are exempt: http is allowed there, and
    private addresses (as "10.1.2.3:443"). No proxy of the environment, no cookies and no
    credentials are used, and nothing is logged.
    """

    def __init__(
        self,
        limits: PictureLimits = PictureLimits(),
        *,
        trusted: Collection[str] = (),
        resolver: "AbstractResolver | None" = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._trusted = frozenset(trusted)
        self._resolver = resolver
        self._tls = tls
        self._free = asyncio.Semaphore(limits.at_once)
        # One thread, so that one decoded picture is in memory; the shared threads stay free.
        self._decoder = ThreadPoolExecutor(1, "pictures")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; the next fetch opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch_all(self, addresses: Iterable[str]) -> Fetched:
        """The pictures at these addresses, each fetched once."""
        asked = list(dict.fromkeys(addresses))
        found = await asyncio.gather(*(self._outcome(address) for address in asked))
        pictures = {
            address: outcome
            for address, (outcome, reason) in zip(asked, found, strict=True)
            if reason is None
        }
        return Fetched(pictures, Counter(reason for _, reason in found if reason is not None))

    async def _outcome(self, address: str) -> tuple[str, Reason | None]:
        try:
            return await self.fetch(address), None
        except NoPicture as error:
            return "", error.reason

    async def fetch(self, address: str) -> str:
        """A small JPEG of the picture as a data: URL: see `thumbnail`. Raises NoPicture."""
        import aiohttp

        async with self._free:
            try:
                async with asyncio.timeout(self._limits.timeout_s):
                    content = await self._content(address)
            except TimeoutError as error:
                raise NoPicture("time") from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise NoPicture(_reason(error)) from error
            try:
                loop = asyncio.get_running_loop()
                jpeg = await loop.run_in_executor(self._decoder, thumbnail, content)
            except NotAPicture as error:
                raise NoPicture("broken") from error
        return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"

    async def _content(self, address: str) -> bytes:
        url = _parsed(address)
        for _ in range(self._limits.redirects + 1):
            self._check(url)
            async with self._opened().get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await self._body(response)
                url = url.join(_parsed(response.headers.get("location", "")))
        raise NoPicture("redirects")

    def _opened(self) -> "aiohttp.ClientSession":
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._limits.at_once,
                resolver=self._resolver,
                use_dns_cache=False,
                ssl=self._tls or True,
                socket_factory=self._open_socket,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,
            )
        return self._session

    async def _body(self, response: "aiohttp.ClientResponse") -> bytes:
        if response.status != HTTPStatus.OK:
            raise NoPicture("status")
        if (response.content_length or 0) > self._limits.size_bytes:
            raise NoPicture("size")
        content = bytearray()
        checked = False
        async for piece in response.content.iter_chunked(_PIECE):
            content += piece
            if len(content) > self._limits.size_bytes:
                raise NoPicture("size")
            if not checked and len(content) >= HEAD:
                if not is_picture(content):
                    raise NoPicture("type")
                checked = True
        if not checked:
            raise NoPicture("type")
        return bytes(content)

    def _check(self, url: URL) -> None:
        """Raises NoPicture for what is not worth a connection."""
        secure = url.scheme == "https" or (
            url.scheme == "http" and f"{url.host}:{url.port}" in self._trusted
        )
        if not secure or not url.host or url.user is not None or url.password is not None:
            raise NoPicture("link")

    def _open_socket(self, found: "aiohttp.AddrInfoType") -> socket.socket:
        """A socket for an address that may be connected to. Raises _NotPublic."""
        family, kind, protocol, _, address = found
        host, port = str(address[0]), address[1]
        if not is_public(host) and f"{host}:{port}" not in self._trusted:
            raise _NotPublic
        return socket.socket(family, kind, protocol)


def linked(address: str) -> str:
    """The address itself, for a provider that fetches pictures; nothing is fetched here.

    Raises NoPicture for what is no https link, or holds credentials.
    """
    url = _parsed(address)
    if url.scheme != "https" or not url.host or url.user is not None or url.password is not None:
        raise NoPicture("link")
    return str(url)


def _parsed(address: str | URL) -> URL:
    try:
        return URL(address)
    except ValueError as error:
        raise NoPicture("link") from error


def _reason(error: Exception) -> Reason:
    import aiohttp

    match error:
        case aiohttp.ClientConnectorDNSError():
            return "host"
        case aiohttp.ClientConnectorError(os_error=_NotPublic()):
            return "private"
        case aiohttp.InvalidURL():
            return "link"
        case aiohttp.ClientError() | OSError():
            return "connection"
        case _:
            return "link"
