"""Every kind of endpoint is answered by its model, in every effort of everyday use."""

import asyncio
from collections.abc import Iterator
from typing import get_args

import pytest

from app.options import EffortName
from tests.servers.endpoints import KINDS
from tests.servers.endpoints.kind import Kind
from tests.servers.endpoints.server import EndpointServer
from tests.servers.endpoints.trial import tried
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore

EFFORTS = get_args(EffortName)
HISTORY = ["book-dune", "film-solaris", "film-alien", "film-cabaret"]


@pytest.fixture(scope="module")
def server() -> Iterator[EndpointServer]:
    with EndpointServer.opened() as server:
        yield server


@pytest.fixture(scope="module")
def shelf(demo_items: list[Item], demo_tree: SemanticTree) -> MemoryTreeStore:
    store = MemoryTreeStore(space=demo_tree.space, settings=demo_tree.settings)

    async def stock() -> None:
        await store.stage(demo_items)
        await store.replace(demo_tree, base=0)

    asyncio.run(stock())
    return store


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_kind_is_answered_by_its_model(
    server: EndpointServer, shelf: MemoryTreeStore, kind: Kind
) -> None:
    trial = await tried(server, kind, shelf, HISTORY, EFFORTS)
    assert trial.faults == dict.fromkeys(EFFORTS, "")


def test_each_kind_has_a_name_of_its_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(kind.source for kind in KINDS)
