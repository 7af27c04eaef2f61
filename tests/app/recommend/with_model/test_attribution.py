"""Answers are counted by what really ranked them."""

from app.attribution import Attributor, report, today
from app.llm import ReplyMode
from app.storage.attribution import MemoryAttribution
from tests.app.recommend.with_model.support import HISTORY, Shelf, ask, connected, over, sensible
from tests.servers.hostile import MODEL, HostileServer


async def lists(store: MemoryAttribution, by: str) -> dict[str, int]:
    found = report(await store.tallies(today(), today()), by)  # type: ignore[arg-type]
    return {row.label: row.lists for row in found.rows}


async def test_answers_count_by_what_really_ranked_them(
    demo: Shelf, hostile_server: HostileServer
) -> None:
    hostile_server.content = sensible
    store = MemoryAttribution()
    async with connected(hostile_server.base_url, MODEL) as chat:
        recommender = over(
            demo, chat, ReplyMode.JSON_SCHEMA, attributor=Attributor("shop", store, 60)
        )
        first = await recommender.recommend(ask(history=HISTORY))
        assert not first.degraded
        await recommender.recommend(ask(history=HISTORY, cursor=first.next_cursor))
        assert await lists(store, "strategy") == {"beam": 2}, "the model has ranked both pages"
        assert await lists(store, "effort") == {"economy": 2}
        await recommender.recommend(ask())
        await recommender.recommend(ask(history=HISTORY, strategy="embedded"))
        assert await lists(store, "strategy") == {"beam": 2, "embedded": 2}
        assert await lists(store, "effort") == {"economy": 2, "-": 2}
        poor = await recommender.recommend(ask(history=HISTORY, max_cost_usd=0, effort="balanced"))
        degraded = {"yes": 1, "no": 4} if poor.degraded else {"no": 5}
        assert await lists(store, "degraded") == degraded
