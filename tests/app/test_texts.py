"""Vectors of large batches, from a process of its own and without it."""

import os
import signal
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from app.curate import TextReader
from tests.app.conftest import built
from tree.embedders import EmbedderCache, LexicalEmbedder, embedder_for
from tree.item import Item
from tree.node import Space

FEW = [f"text number {number} of a few" for number in range(20)]
MANY = [f"text number {number} of many" for number in range(400)]


class Noting(EmbedderCache):
    """See EmbedderCache; it notes from which threads of this process it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def of(self, space: Space):
        self.asked.append(threading.current_thread().name)
        return super().of(space)


@pytest.fixture
def embedders() -> Noting:
    return Noting()


@pytest.fixture
async def reader(embedders: Noting) -> AsyncIterator[TextReader]:
    reader = TextReader(embedders)
    yield reader
    await reader.aclose()


async def started(reader: TextReader) -> int:
    """The id of the other process, once it is there."""
    await reader.encode(LexicalEmbedder().space, MANY)
    assert reader._starting is not None
    await reader._starting
    (process,) = reader._pool._processes
    return process


async def test_every_space_is_read_as_its_embedder_reads_it(reader):
    fitted = (await built([Item(id=text, title=text) for text in MANY])).space
    await started(reader)
    for space in (fitted, LexicalEmbedder().space, fitted):
        for texts in (FEW, MANY, FEW[:0]):
            expected = embedder_for(space).encode(texts)
            assert np.array_equal(await reader.encode(space, texts), expected)


async def test_only_a_large_batch_goes_elsewhere_and_none_waits_for_it(reader, embedders):
    space = LexicalEmbedder().space
    await reader.encode(space, FEW)
    assert reader._pool is None
    await started(reader)
    assert len(embedders.asked) == 2  # the first large one did not wait for the other process
    await reader.encode(space, MANY)
    assert len(embedders.asked) == 2


async def test_a_lost_process_costs_no_batch_and_is_started_again(reader, caplog):
    space = LexicalEmbedder().space
    expected = LexicalEmbedder().encode(MANY)
    lost = await started(reader)
    os.kill(lost, signal.SIGKILL)
    assert np.array_equal(await reader.encode(space, MANY), expected)
    assert "was lost" in caplog.text
    assert await started(reader) != lost
    assert np.array_equal(await reader.encode(space, MANY), expected)
