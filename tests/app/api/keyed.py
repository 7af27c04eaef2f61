"""Keys for tests of a service that has a root key: see the fixture `root`."""

from typing import Any

import httpx2

ROOT = "root-" + "r" * 32
SHOP = "https://shop.example"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def created(root: httpx2.Client, *scopes: str, **more: Any) -> dict:
    body = {"name": "test", "scopes": list(scopes), "catalogs": ["a"], **more}
    reply = root.post("/v1/keys", json=body)
    assert reply.status_code == 201, reply.text
    return reply.json()


def holder(root: httpx2.Client, *scopes: str, **more: Any) -> httpx2.Client:
    """A client with a key of its own."""
    key = created(root, *scopes, **more)["key"]
    return httpx2.Client(base_url=root.base_url, timeout=60, headers=bearer(key))
