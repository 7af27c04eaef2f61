"""Work in the background: errors, bounds, and the end."""

import asyncio
import time
from contextlib import suppress

import pytest

from tree.errors import StoreUnavailable
from tree.worker import Background, Closed, SingleFlight, Worker, result_of, together, undivided

PATIENCE_S = 10


class Stubborn:
    """Work that swallows its cancellation, as a client library may."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def work(self) -> None:
        while self.times:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3_600)
            self.times -= 1


async def test_an_item_that_fails_is_told_once_and_does_not_stop_the_others(caplog):
    done: list[int] = []

    async def work(items: list[int]) -> None:
        if items == [1]:
            raise StoreUnavailable("the store is away")
        done.extend(items)

    worker = Worker("a test", work, most=10)
    worker.put([0, 1, 2])
    async with asyncio.timeout(PATIENCE_S):
        await worker.settled()
        worker.put([3])
        await worker.settled()
    assert done == [0, 2, 3]
    assert [record.message for record in caplog.records] == ["a test: the store is away"]


async def test_what_fails_again_and_again_costs_next_to_nothing(caplog):
    tries = 0

    async def work(items: list[int]) -> None:
        nonlocal tries
        tries += 1
        raise StoreUnavailable("the store is away")

    worker = Worker("a test", work, most=100_000)
    worker.put(range(100_000))
    await asyncio.sleep(1)
    assert 2 <= tries <= 6
    assert len(worker) == 100_000 - tries
    assert len(caplog.records) == 1
    began = time.monotonic()
    await worker.aclose(2.0)
    assert time.monotonic() - began < PATIENCE_S


async def test_our_own_mistakes_are_told_with_all_that_is_known(caplog):
    async def work(items: list[int]) -> None:
        raise KeyError("nobody")

    worker, background = Worker("a worker", work, most=1), Background("a chore")
    worker.put([1])
    background.start(work([]))
    await worker.settled()
    await background.settled()
    await asyncio.sleep(0)  # for what is called when a task has ended
    assert {record.message for record in caplog.records} == {"a worker failed", "a chore failed"}
    assert caplog.text.count("KeyError: 'nobody'") == 2


async def test_a_cancellation_that_comes_from_below_does_not_end_the_worker():
    done: list[int] = []

    async def work(items: list[int]) -> None:
        if items == [1]:
            raise asyncio.CancelledError  # of a future within
        done.extend(items)

    worker = Worker("a test", work, most=10)
    worker.put([1, 2])
    async with asyncio.timeout(PATIENCE_S):
        await worker.settled()
    assert done == [2]


@pytest.mark.parametrize(
    ("full", "taken", "left"), [("drop", True, [2, 3]), ("refuse", False, [1, 2])]
)
async def test_a_full_queue(full, taken, left):
    done: list[int] = []
    go = asyncio.Event()

    async def work(items: list[int]) -> None:
        await go.wait()
        done.extend(items)

    worker = Worker("a test", work, most=2, full=full)
    worker.put([0])
    await asyncio.sleep(0.01)  # it is at work, and no longer in the queue
    assert worker.put([1, 2, 3]) is taken
    go.set()
    async with asyncio.timeout(PATIENCE_S):
        await worker.settled()
    assert done == [0, *left]


async def test_what_is_put_while_the_last_is_finished_is_worked_on():
    done: list[int] = []

    async def work(items: list[int]) -> None:
        done.extend(items)

    worker = Worker("a test", work, most=50)
    for number in range(50):
        worker.put([number])
        for _ in range(number % 7):
            await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await worker.settled()
    assert done == list(range(50))


async def test_the_end_lets_work_finish_and_takes_no_more():
    done: list[int] = []

    async def work(items: list[int]) -> None:
        await asyncio.sleep(0.01)
        done.extend(items)

    worker = Worker("a test", work, most=10)
    worker.put([1, 2, 3])
    await worker.aclose(PATIENCE_S)
    assert done == [1, 2, 3]
    assert not worker.put([4])
    assert len(worker) == 0


@pytest.mark.parametrize("times", [1, 5, 1_000_000])
async def test_the_end_comes_whatever_becomes_of_a_cancellation(times, caplog):
    stubborn, background = Stubborn(times), Background("a test")
    task = background.start(stubborn.work())
    began = time.monotonic()
    await background.aclose(0.1)
    assert time.monotonic() - began < 3
    assert task.done() == (times <= 5)
    assert ("left running" in caplog.text) == (times > 5)
    stubborn.times = 1
    task.cancel()  # the loop of this test is to end, too


async def test_persistent_work_is_begun_again(caplog):
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 4:
            raise StoreUnavailable("the store is away")
        await asyncio.sleep(3_600)

    background = Background("a test")
    background.persist(work)
    async with asyncio.timeout(PATIENCE_S):
        while begun < 4:
            await asyncio.sleep(0.01)
    await background.aclose()
    assert len(background) == 0
    assert len(caplog.records) == 1


async def test_a_single_flight_is_shared_and_outlives_who_gives_up(caplog):
    begun = 0
    go = asyncio.Event()

    async def work() -> int:
        nonlocal begun
        begun += 1
        await go.wait()
        return begun

    flight = SingleFlight("a test", work)
    waiting = [asyncio.create_task(result_of(flight.begin())) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    with pytest.raises(TimeoutError):
        await result_of(flight.begin(), 0.01)
    go.set()
    async with asyncio.timeout(PATIENCE_S):
        assert await asyncio.gather(*waiting[1:]) == [1, 1]
    assert await result_of(flight.begin(anew=False)) == 1
    go.clear()
    task = flight.begin()
    await flight.aclose()
    with pytest.raises(Closed):
        await result_of(task)


async def test_of_several_the_first_error_is_raised_and_none_is_left():
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.append("slow")

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable, match="away"):
        await together([slow(), fails(), slow()])
    assert ended == ["slow", "slow"]


async def test_what_is_undivided_is_waited_for_however_often_it_is_cancelled():
    go = asyncio.Event()
    unwanted: list[int] = []

    async def work() -> int:
        await go.wait()
        return 7

    task = asyncio.create_task(undivided(work(), unwanted.append))
    for _ in range(3):
        await asyncio.sleep(0.01)
        task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unwanted == [7]


async def test_time_that_is_up_is_told_at_once_however_deaf_the_work_is():
    background = Background("deaf")
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await background.within(0.05, deaf())
    assert time.monotonic() - began < 1
    await asyncio.wait_for(background.settled(), 5)  # it is cancelled until it ends
    assert await background.within(5, asyncio.sleep(0, "in time")) == "in time"


async def deaf() -> None:
    """Loses two cancellations."""
    for _ in range(3):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3_600)
