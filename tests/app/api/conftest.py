"""The real service on a loopback port, in a thread of its own; a fresh catalogue per test."""

from collections.abc import Iterator
from secrets import token_hex

import httpx2
import pytest

from app.settings import Settings
from tests.app.api.keyed import ROOT, bearer
from tests.app.api.support import delete_catalog, served
from tests.commands import serving


@pytest.fixture(scope="session")
def service_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of the service."""
    return Settings(
        data_dir=tmp_path_factory.mktemp("service"),
        max_body_bytes=262_144,
        max_import_bytes=2_097_152,
    )


@pytest.fixture(scope="session")
def service_url(service_settings: Settings) -> Iterator[str]:
    """The service with its embedded store, as `unillmrec serve` runs it."""
    with served(service_settings) as url:
        yield url


@pytest.fixture(scope="session")
def process_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service in a process of its own, with the limits that it has by default."""
    with serving(tmp_path_factory.mktemp("process")) as (url, _):
        yield url


@pytest.fixture(scope="session")
def api(service_url: str) -> Iterator[httpx2.Client]:
    """A client of the service."""
    with httpx2.Client(base_url=service_url, timeout=60) as client:
        yield client


@pytest.fixture
def catalog(api: httpx2.Client) -> Iterator[str]:
    """The path of an empty catalogue."""
    path = f"/v1/catalogs/test-{token_hex(6)}"
    assert api.put(path).status_code == 201
    yield path
    assert delete_catalog(api, path).status_code == 204


@pytest.fixture
def films(api: httpx2.Client, catalog: str) -> str:
    """The path of a catalogue with forty films in two categories, ids f0 … f39."""
    kinds = (("Space", "a ship between distant stars"), ("Love", "two people in one small town"))
    films = [
        {
            "id": f"f{number}",
            "title": f"Film {number} of {kinds[number % 2][0]}",
            "description": kinds[number % 2][1],
            "categories": [kinds[number % 2][0]],
            "domain": "films",
            "attributes": {"year": 1980 + number},
        }
        for number in range(40)
    ]
    reply = api.post(f"{catalog}/items:batch", json={"upserts": films})
    assert {row["status"] for row in reply.json()["results"]} == {"created"}
    return catalog


@pytest.fixture(scope="module")
def keyed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service with a root key."""
    with served(Settings(data_dir=tmp_path_factory.mktemp("keyed"), admin_key=ROOT)) as url:
        yield url


@pytest.fixture(scope="module")
def root(keyed_url: str) -> Iterator[httpx2.Client]:
    """A client with the root key, and two catalogues `a` and `b` with an item each."""
    with httpx2.Client(base_url=keyed_url, timeout=60, headers=bearer(ROOT)) as client:
        for name in "ab":
            assert client.put(f"/v1/catalogs/{name}").status_code == 201
            item = client.put(f"/v1/catalogs/{name}/items/i", json={"title": f"Of {name}"})
            assert item.status_code == 201
        yield client
