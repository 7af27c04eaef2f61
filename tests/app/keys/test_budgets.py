"""What a key may spend on models in a day, over HTTP."""

import httpx2

from tests.app.api.modelled import CATALOG, with_model
from tests.app.api.support import served
from tests.app.recommend.with_model.support import sensible
from tests.servers.hostile import MODEL

ROOT = {"Authorization": "Bearer root-" + "r" * 32}


def test_a_spent_budget_is_answered_by_the_embedded_ranker(
    tmp_path, embedded_url, hostile_server, demo_items
):
    hostile_server.content = sensible
    prices = {MODEL: {"input": 2.0, "output": 8.0}}
    secret = ROOT["Authorization"].partition(" ")[2]
    settings = with_model(
        tmp_path, embedded_url, hostile_server.base_url, llm_prices=prices, admin_key=secret
    )
    items = [item.model_dump(mode="json", exclude_defaults=True) for item in demo_items[:200]]
    asked = {"history": [{"item_id": items[0]["id"]}], "limit": 5, "timeout_ms": 30_000}
    with served(settings) as url, httpx2.Client(base_url=url, timeout=60) as client:
        done = client.post(f"{CATALOG}/items:batch", json={"upserts": items}, headers=ROOT)
        assert done.status_code == 200

        def answers(limit: float, count: int) -> list[dict]:
            body = {
                "name": "shop", "scopes": ["recommend"], "catalogs": ["default"],
                "max_cost_usd_per_day": limit,
            }  # fmt: skip
            key = client.post("/v1/keys", json=body, headers=ROOT).json()["key"]
            own = {"X-API-Key": key}
            return [
                client.post(f"{CATALOG}/recommend", json=asked, headers=own).json()
                for _ in range(count)
            ]

        (enough,) = answers(1.0, 1)
        assert (enough["degraded"], len(enough["items"])) == (False, 5)
        cost = enough["usage"]["cost_usd"]
        assert cost > 0
        (nothing,) = answers(0.0, 1)
        assert (nothing["degraded_reason"], len(nothing["items"])) == ("budget", 5)
        assert nothing["usage"]["calls"] == 0
        spent = answers(3 * cost, 6)
        assert sum(one["usage"]["cost_usd"] for one in spent) <= 3 * cost
        assert spent[-1]["degraded_reason"] == "budget"
        assert {len(one["items"]) for one in spent} == {5}
