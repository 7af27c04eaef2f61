"""`connect`: a client for the address of an endpoint, as people write it."""

import re
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from openai import AsyncOpenAI, DefaultAioHttpClient

_ROUTE = re.compile(r"/(?:chat/completions|completions|embeddings|responses|models)$")
_AZURES = "api-version"  # whose deployments take keys in a header of their own
_READ_S = 60.0


def connect(base_url: str | None, api_key: str | None) -> AsyncOpenAI:
    """A client for an endpoint; no connection is made yet. The caller closes it.

    The query of the address (Azure's `?api-version=`) goes on every call. A route at its end, such
    as `/chat/completions`, is left out.

    The transport is aiohttp: a third of the CPU time of the default one. Retries are made by
    `ask`, which knows the request's deadline and budget. Redirects are not followed: they could
    send keys and prompts to any address.
    """
    address, query = (None, {}) if base_url is None else _parts(base_url)
    # Local servers accept any key, and the client requires one.
    key = (api_key or "").strip() or "none"
    return AsyncOpenAI(
        base_url=address,
        api_key=key,
        default_query=query,
        default_headers={"api-key": key} if _AZURES in query else {},
        max_retries=0,
        timeout=_READ_S,
        http_client=DefaultAioHttpClient(follow_redirects=False),
    )


def _parts(base_url: str) -> tuple[str, dict[str, object]]:
    """The address without its query, and the query."""
    parts = urlsplit(base_url.strip())
    path = _ROUTE.sub("", parts.path.rstrip("/")).rstrip("/")
    query: dict[str, object] = dict(parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit((parts.scheme, parts.netloc, path, "", "")), query
