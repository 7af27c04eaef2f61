"""Events in the order of their times: what an evaluation with a clock knows, and when."""

import pytest

from app.evaluation.case import Query, Training
from app.evaluation.dataset import DataError, DatasetUser
from app.evaluation.systems import EvalContext, systems
from app.evaluation.systems.replay import Replay
from app.settings import Settings

DAY_S = 86_400


def user(name: str, items: list[str], *days: float) -> DatasetUser:
    return DatasetUser(name, tuple(items), tuple(day * DAY_S for day in days))


async def counts(replay: Replay) -> dict[str, float]:
    return {
        item: count.users async for page in replay.feedback.counts() for item, count in page.items()
    }


async def test_the_future_is_never_known(demo_items):
    users = [user("u", ["a", "b"], 1, 3), user("v", ["b"], 2), user("w", ["c"], 4)]
    replay = Replay(Training(demo_items, users), DAY_S)
    await replay.go_on(1 * DAY_S)
    assert await counts(replay) == {}, "not the present itself either"
    await replay.go_on(2.5 * DAY_S)
    assert await counts(replay) == {"a": 1, "b": 1}
    await replay.go_on(9 * DAY_S)
    assert await counts(replay) == {"a": 1, "b": pytest.approx(1.5), "c": 1}
    replay.restart()
    assert await counts(replay) == {}


def test_events_without_times_cannot_be_replayed(demo_items):
    users = [DatasetUser("u", ("a",))]
    with pytest.raises(DataError, match="time of each event"):
        Replay(Training(demo_items, users), None)


async def test_what_is_read_now_comes_first_while_it_is(demo_items):
    """Two items are news, one after the other: each is first in its days, in any order asked."""
    old, new = (item.id for item in demo_items[-2:])
    users = [user(f"o{n}", [old], 1 + n / 100) for n in range(40)]
    users += [user(f"n{n}", [new], 20 + n / 100) for n in range(20)]
    context = EvalContext(Settings())
    [system] = systems(["embedded:half_life_days=1,popularity_weight=1"], context)
    await system.fit(Training(demo_items, users))
    queries = [Query("x", (), at=day * DAY_S) for day in (21, 3, 0.5)]
    late, early, before = await system.rank(queries, 20)
    assert [late[0], early[0]] == [new, old]
    assert new not in early[:10], "it is not known yet"
    assert old not in before[:10]
    await system.aclose()


async def test_a_query_without_a_time_is_refused(demo_items):
    [system] = systems(["embedded:half_life_days=0"], EvalContext(Settings()))
    await system.fit(Training(demo_items, [user("u", [demo_items[0].id], 1)]))
    with pytest.raises(DataError, match="when its queries are asked"):
        await system.rank([Query("x", ())], 5)
    await system.aclose()
