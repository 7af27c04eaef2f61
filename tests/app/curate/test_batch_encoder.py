"""Vectors of large batches, from a process of its own and without it."""

import os
import signal
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from app.curate import BatchEncoder
from app.embedders import EmbedderCache, LexicalEmbedder, embedder_for
from tests.app.conftest import built
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
async def encoder(embedders: Noting) -> AsyncIterator[BatchEncoder]:
    encoder = BatchEncoder(embedders)
    yield encoder
    await encoder.aclose()


async def started(encoder: BatchEncoder) -> int:
    """The id of the other process, once it is there."""
    await encoder.encode_batch(LexicalEmbedder().space, MANY)
    assert encoder._starting is not None
    await encoder._starting
    assert encoder._processes is not None
    (process,) = encoder._processes.pool._processes
    return process


async def test_every_space_is_read_as_its_embedder_reads_it(encoder):
    fitted = (await built([Item(id=text, title=text) for text in MANY])).space
    await started(encoder)
    for space in (fitted, LexicalEmbedder().space, fitted):
        for texts in (FEW, MANY, FEW[:0]):
            expected = embedder_for(space).encode(texts)
            assert np.array_equal(await encoder.encode_batch(space, texts), expected)


async def test_only_a_large_batch_goes_elsewhere_and_none_waits_for_it(encoder, embedders):
    space = LexicalEmbedder().space
    await encoder.encode_batch(space, FEW)
    assert encoder._processes is None
    await started(encoder)
    assert len(embedders.asked) == 2  # the first large one did not wait for the other process
    await encoder.encode_batch(space, MANY)
    assert len(embedders.asked) == 2


async def test_a_lost_process_costs_no_batch_and_is_started_again(encoder, caplog):
    space = LexicalEmbedder().space
    expected = LexicalEmbedder().encode(MANY)
    lost = await started(encoder)
    os.kill(lost, signal.SIGKILL)
    assert np.array_equal(await encoder.encode_batch(space, MANY), expected)
    assert "was lost" in caplog.text
    assert await started(encoder) != lost
    assert np.array_equal(await encoder.encode_batch(space, MANY), expected)
