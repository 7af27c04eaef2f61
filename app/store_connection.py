"""Connections to the store that the settings name."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

from app.settings import Settings
from tree.errors import StoreUnavailable
from tree.redis.connection import Client, connect
from tree.redis.data_folder import holds_store, running_url
from tree.redis.embedded_server import EmbeddedServer
from tree.redis.pool import CONNECTIONS
from tree.redis.server_check import check_server


async def connected(url: str, stack: AsyncExitStack, connections: int = CONNECTIONS) -> Client:
    """A client of the store, which `stack` closes. Raises StoreUnavailable for another URL."""
    with _readable_url():
        client = connect(url, connections=connections)
    return await stack.enter_async_context(client)


async def checked(url: str) -> None:
    """Raises StoreUnavailable for a server that does not answer or is not suitable."""
    with _readable_url():
        client = connect(url)
    async with client:
        await check_server(client)


@contextmanager
def _readable_url() -> Iterator[None]:
    try:
        yield
    except ValueError:  # its message may quote a part of a password
        raise StoreUnavailable(
            "UNILLMREC_REDIS_URL is not the URL of a store, such as redis://host:6379; characters "
            "of a password that mean something in a URL are percent-encoded"
        ) from None


async def store_url(
    settings: Settings, stack: AsyncExitStack, *, attach: bool, create: bool
) -> str:
    """The URL of the store that the settings name; `stack` ends a server that was started for it.

    `attach` and `create` as in `services`. Raises StoreUnavailable.
    """
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    if attach and (url := running_url(settings.data_dir)) is not None:
        return url
    if not create and not holds_store(settings.data_dir):
        raise StoreUnavailable(
            f"there is no store in the folder {settings.data_dir.absolute()}: set "
            "UNILLMREC_DATA_DIR to the data folder of the service, or UNILLMREC_REDIS_URL to its "
            "store; `unillmrec serve`, `import` and `restore` make a new one"
        )
    server = await EmbeddedServer.start(settings.data_dir, fsync=settings.fsync)
    stack.push_async_callback(server.stop)
    return server.connect_url
