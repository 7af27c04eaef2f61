"""A store that has written to disk whatever it acknowledged."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.fleet import Store


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """On a socket in a folder of its own, whose path is short enough for one."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        store = Store(Path(folder), {})
        store.start()
        try:
            await store.answering()
            yield store
        finally:
            store.stop()
