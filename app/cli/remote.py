"""The client that commands with `--url` use for a running service."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import urlsplit

import typer

from app.cli.session import Failed, err
from app.hosts import is_loopback

if TYPE_CHECKING:
    import httpx2

UrlOption: TypeAlias = Annotated[
    str | None, typer.Option("--url", help="A running service. Default: the store itself.")
]
KeyFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        exists=True,
        dir_okay=False,
        help="A file with the key for --url. Default: UNILLMREC_API_KEY. There is no option for "
        "the key itself, because all users of a machine can read the arguments of commands.",
    ),
]


@asynccontextmanager
async def service(url: str, key_file: Path | None) -> AsyncIterator["httpx2.AsyncClient"]:
    """A client of a running service. Raises Failed when it does not answer."""
    import httpx2

    key = _key(key_file)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if key and _is_open(url):
        err.print(f"warning: others in the network can read the key on its way to {url}: use https")
    try:
        timeout = httpx2.Timeout(30.0, write=None)
        async with httpx2.AsyncClient(base_url=url, timeout=timeout, headers=headers) as client:
            yield client
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Failed(f"{url} does not answer ({str(error) or type(error).__name__})") from error


def refusal(reply: "httpx2.Response") -> str:
    """The reason in the error of a service."""
    try:
        problem = reply.json()
        reason = f"the service refused: {problem['detail']}"
    except (ValueError, LookupError, TypeError):
        return f"the service answered {reply.status_code}: is this its address?"
    flaws = "; ".join(f"{flaw['pointer']} {flaw['message']}" for flaw in problem.get("errors", ()))
    hint = " (UNILLMREC_API_KEY or --key-file)" if problem["code"] == "missing_key" else ""
    return f"{reason}{hint}{f' ({flaws})' if flaws else ''}"


def _is_open(url: str) -> bool:
    """Whether others in the network could read the request."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.netloc)


def _key(file: Path | None) -> str:
    """The key, or "". Raises Failed when it cannot be a key."""
    if file is not None:
        key, where = file.read_text(encoding="utf-8", errors="replace").strip(), str(file)
    else:
        key, where = os.environ.get("UNILLMREC_API_KEY", "").strip(), "UNILLMREC_API_KEY"
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise Failed(f"{where} holds no key: a key is one line of ASCII characters without spaces")
    return key
