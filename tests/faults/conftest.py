"""A store that has written to disk whatever it acknowledged."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.fleet import Store, stored


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """In a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        async with stored(Path(folder)) as store:
            yield store
