"""A chat server that writes signs, and a tree without names of its own."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.llm.client import OpenAIChat
from tests.app.conftest import built
from tests.app.curate.labels.support import (
    signs_json,
)
from tests.app.recommend.with_model.support import connected
from tests.servers.hostile import MODEL, HostileServer
from tree.item import Item
from tree.snapshot import SemanticTree


@pytest.fixture
async def chat(hostile_server: HostileServer) -> AsyncIterator[OpenAIChat]:
    hostile_server.content = signs_json
    async with connected(hostile_server.base_url, MODEL) as chat:
        yield chat


@pytest.fixture(scope="module")
def plain_tree(demo_items: list[Item]) -> SemanticTree:
    """The catalogue without categories: no node has a name of its own."""
    bare = [item.model_copy(update={"categories": (), "domain": ""}) for item in demo_items]
    return asyncio.run(built(bare))
