"""With `fsync everysec`, a power loss costs what was acknowledged in the last second at most."""

import asyncio
import random
import time

from redis.asyncio import Redis

from tests.faults.aof import Life, Writing, left_of_cut
from tree.redis.embedded_server import EmbeddedServer

SEED = 20
EVERYSEC_S = 2.0  # the promise is one second; the machine may be busy


async def test_everysec_costs_a_second_at_most(tmp_path):
    life = Life(tmp_path / "life")
    on_disk = 0
    server = await EmbeddedServer.start(life.folder)
    async with Redis.from_url(server.connect_url, single_connection_client=True) as client:
        writing = Writing(client, life, SEED)
        await writing.start()
        for _ in range(3):
            for _ in range(5):
                await writing.step()
            acknowledged = time.monotonic()
            while server.flushed_at < acknowledged:
                assert time.monotonic() - acknowledged < EVERYSEC_S
                await asyncio.sleep(0.01)
            on_disk = len(life.states) - 1
            await writing.step()  # what a power loss may now cost
    await server.stop()
    size = life.log.stat().st_size
    for seed in range(5):
        cut = random.Random(seed).randint(life.states[on_disk].size, size)
        left = await left_of_cut(life, tmp_path / f"cut {seed}", cut)
        assert left.findings == left.violations == ()
        assert any(left.holds(state) for state in life.states[on_disk:])
