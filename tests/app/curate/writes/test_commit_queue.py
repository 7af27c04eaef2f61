"""Changes that share commits: which ones, in which order, and what becomes of each."""

import asyncio
from collections.abc import Sequence

import pytest

from app.curate.writes import TooManyWrites
from app.curate.writes.commit_queue import CommitQueue
from tree.errors import InvalidEdit, StoreUnreachable
from tree.worker import Closed

Change = tuple[str, frozenset[str]]
"""A name, and the ids of the items that it changes."""


def change(name: str, *ids: str) -> Change:
    return name, frozenset(ids)


def large(name: str, size: int = 1_500) -> Change:
    return name, frozenset(f"{name} {number}" for number in range(size))


class Commits:
    """What a queue has committed: the names of each group. A change named "bad" fails."""

    def __init__(self, error: Exception) -> None:
        self.groups: list[list[str]] = []
        self.go = asyncio.Event()
        self._error = error

    async def __call__(self, changes: Sequence[Change]) -> dict[str, bool]:
        self.groups.append([name for name, _ in changes])
        await self.go.wait()
        if "bad" in self.groups[-1]:
            raise self._error
        return {item: name != "absent" for name, ids in changes for item in ids}


@pytest.fixture
def commits() -> Commits:
    commits = Commits(InvalidEdit("it does not fit"))
    commits.go.set()
    return commits


async def add_all(queue: CommitQueue[Change], *changes: Change) -> list[object]:
    return await asyncio.gather(
        *(queue.add(change, change[1]) for change in changes), return_exceptions=True
    )


async def test_changes_that_arrive_together_share_a_commit_and_get_their_own_results(commits):
    queue = CommitQueue[Change](commits, 0.01)
    done = await add_all(queue, change("one", "a", "b"), change("absent", "c"), change("nothing"))
    assert done == [{"a": True, "b": True}, {"c": False}, {}]
    assert commits.groups == [["one", "absent", "nothing"]]


async def test_changes_of_one_item_keep_their_order_in_commits_of_their_own(commits):
    queue = CommitQueue[Change](commits, 0.01)
    await add_all(queue, change("1", "a"), change("2", "a", "b"), change("3", "b"))
    assert commits.groups == [["1"], ["2"], ["3"]]


async def test_small_and_large_changes_take_turns(commits):
    later: list[asyncio.Task[list[object]]] = []

    async def commit(changes: Sequence[Change]) -> dict[str, bool]:
        """Another small change arrives during each of the first commits."""
        if len(later) < 8:
            name = f"later {len(later)}"
            later.append(asyncio.create_task(add_all(queue, change(name, name))))
            await asyncio.sleep(0.01)
        return await commits(changes)

    queue = CommitQueue[Change](commit, 0.01)
    await add_all(queue, large("first"), change("small", "a"), large("second"))
    await asyncio.gather(*later)
    assert commits.groups[:2] == [["small"], ["first"]]
    assert any("second" in group for group in commits.groups[2:4])


async def test_a_small_change_does_not_overtake_an_older_one_of_its_item(commits):
    queue = CommitQueue[Change](commits, 0.01)
    await add_all(queue, large("first"), large("second"), change("small", "second 7"))
    assert commits.groups == [["first"], ["second"], ["small"]]


async def test_a_change_that_fails_fails_alone(commits):
    queue = CommitQueue[Change](commits, 0.01)
    one, bad, other = await add_all(
        queue, change("one", "a"), change("bad", "b"), change("other", "c")
    )
    assert (one, other) == ({"a": True}, {"c": True})
    assert isinstance(bad, InvalidEdit)
    assert commits.groups == [["one", "bad", "other"], ["one"], ["bad"], ["other"]]


async def test_when_the_store_is_gone_nobody_waits_for_another_try():
    commits = Commits(StoreUnreachable("no answer"))
    commits.go.set()
    queue = CommitQueue[Change](commits, 0.01)
    done = await add_all(queue, change("bad", "a"), change("same item", "a"), large("large"))
    assert [type(one) for one in done] == [StoreUnreachable] * 3
    assert commits.groups == [["bad"]]


async def test_what_is_prepared_counts_as_waiting(commits):
    queue = CommitQueue[Change](commits, 0.01)
    with queue.announce(15_000), queue.announce(6_000):
        assert queue.announced == 21_000
        with pytest.raises(TooManyWrites, match="21,000 items wait"), queue.announce(1):
            raise AssertionError("it was refused")
    assert queue.announced == 0
    with queue.announce(1):
        pass


async def test_a_caller_who_leaves_does_not_stop_its_change(commits):
    commits.go.clear()
    queue = CommitQueue[Change](commits, 0.0)
    caller = asyncio.create_task(queue.add(change("one", "a"), {"a"}))
    async with asyncio.timeout(5):
        while not commits.groups:
            await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    commits.go.set()
    await queue.aclose(5)
    assert commits.groups == [["one"]]


async def test_the_end_commits_what_waits_as_far_as_time_allows(commits):
    queue = CommitQueue[Change](commits, 60)
    done = queue.submit(change("one", "a"), {"a"})
    await queue.aclose(5)
    assert done.result() == {"a": True}
    with pytest.raises(Closed):
        queue.submit(change("late", "b"), {"b"})


async def test_what_the_end_cuts_short_fails(commits):
    commits.go.clear()
    queue = CommitQueue[Change](commits, 0.0)
    waiting = asyncio.create_task(add_all(queue, change("one", "a"), change("same item", "a")))
    async with asyncio.timeout(5):
        while not commits.groups:
            await asyncio.sleep(0)
    await queue.aclose(0)
    assert [type(one) for one in await waiting] == [Closed, Closed]
