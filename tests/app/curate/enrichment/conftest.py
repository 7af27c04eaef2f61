"""A chat server that writes lines."""

from collections.abc import AsyncIterator

import pytest

from app.llm.client import OpenAIChat
from tests.app.curate.enrichment.support import lines_json
from tests.app.recommend.with_model.support import connected
from tests.servers.hostile import MODEL, HostileServer


@pytest.fixture
async def chat(hostile_server: HostileServer) -> AsyncIterator[OpenAIChat]:
    hostile_server.content = lines_json
    async with connected(hostile_server.base_url, MODEL) as chat:
        yield chat
