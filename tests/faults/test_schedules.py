"""Random schedules of writes, rebuilds, activations and crashes, with hypothesis."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.schedules import Schedules, Server

ANY_DURATION = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    asyncio.run(server.running.stop())


def test_any_schedule_leaves_every_replica_with_the_model(server):
    run_state_machine_as_test(
        lambda: Schedules(server),  # type: ignore[arg-type]  # anything that makes one
        settings=settings(ANY_DURATION, max_examples=12, stateful_step_count=30),
    )


@pytest.mark.long("Monday")
@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_many_long_schedules_do_too(server, part):
    def opened() -> Schedules:
        return Schedules(server)

    run_state_machine_as_test(
        seed(part)(opened) if settings().derandomize else opened,  # type: ignore[arg-type]
        settings=settings(ANY_DURATION, max_examples=38, stateful_step_count=60),
    )
