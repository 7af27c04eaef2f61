"""An endpoint that refuses, and a client of it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.llm.client import OpenAIChat, connect
from tests.app.llm.endpoint.picky import PickyServer, picky_server


@pytest.fixture(scope="session")
def picky_endpoint() -> Iterator[PickyServer]:
    with picky_server() as server:
        yield server


@pytest.fixture
def picky(picky_endpoint: PickyServer) -> PickyServer:
    picky_endpoint.reset()
    return picky_endpoint


@pytest.fixture
async def chat(picky: PickyServer) -> AsyncIterator[OpenAIChat]:
    async with connect(picky.base_url, "sk-secret-key") as client:
        yield OpenAIChat(client, "m")
