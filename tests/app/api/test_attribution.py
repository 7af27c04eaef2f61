"""Events that name a recommendation count for it, once, and metrics say what came of it."""

import json
import re
from secrets import token_hex

from tests.app.api.support import assert_problem, ended, pointers


def asked(api, films: str, **request) -> dict:
    reply = api.post(f"{films}/recommend", json={"limit": 3, **request})
    assert reply.status_code == 200, reply.text
    return reply.json()


def event(answer: dict, place: int, kind: str, **more) -> dict:
    return {
        "event_id": token_hex(6),
        "user_id": "u1",
        "item_id": answer["items"][place]["item_id"],
        "type": kind,
        "recommendation_id": answer["recommendation_id"],
        "rank": place + 1,
        **more,
    }


def sent(api, films: str, *events: dict) -> list[str | None]:
    reply = api.post(f"{films}/events", json={"events": list(events)})
    assert reply.status_code == 200, reply.text
    return [row["attribution"] for row in reply.json()["results"]]


def metrics(api, films: str, **query) -> dict[str, dict]:
    reply = api.get(f"{films}/metrics/recommendations", params=query)
    assert reply.status_code == 200, reply.text
    return {row["label"]: row for row in reply.json()["rows"]}


def figures(row: dict) -> list[float]:
    return [row[name] for name in ("lists", "impressions", "clicks", "conversions", "value")]


def test_what_comes_of_an_answer_is_told_by_variant_strategy_and_scenario(api, films):
    own = {"subscription": {"weight": 1}, "shared": {"weight": 0.5}}
    changes = {"variants": {"bold": {"share": 0.5, "diversity": 0.5}}, "event_types": own}
    assert api.patch(films, json=changes).status_code == 200
    first = asked(api, films, variant="bold", scenario="home", user_id="u1")
    asked(api, films, variant="default", user_id="u2")
    events = [
        *(event(first, place, "impression") for place in range(3)),
        event(first, 0, "view"),
        event(first, 0, "click"),
        event(first, 1, "cart"),
        event(first, 1, "purchase", value=20),
        event(first, 2, "subscription", value=5.5),
        event(first, 2, "shared"),
    ]
    seen = ["attributed"] * 3
    assert sent(api, films, *events) == [
        *seen, "attributed", "repeated", None, "attributed", "attributed", None
    ]  # fmt: skip
    assert set(sent(api, films, *events)) == {"repeated", None}, "a batch may be sent again"

    by_variant = metrics(api, films)
    assert figures(by_variant["bold"]) == [1, 3, 1, 2, 25.5]
    assert figures(by_variant["default"]) == [1, 0, 0, 0, 0]
    assert by_variant["bold"]["ctr"]["value"] == 1 / 3
    assert by_variant["default"]["ctr"] is None
    difference = by_variant["bold"]["against_control"]["clicks_per_list"]
    assert (difference["value"], difference["sequence"], difference["verdict"]) == (1, None, "open")
    assert figures(metrics(api, films, by="strategy")["embedded"]) == [2, 3, 1, 2, 25.5]
    assert list(metrics(api, films, by="scenario")) == ["-", "home"]
    [today] = metrics(api, films, by="day").values()
    assert today["lists"] == 2
    name = films.rpartition("/")[2]
    scraped = api.get("/metrics").text
    measure = f'unillmrec_attributed_events_total{{catalog="{name}",measure="clicks"'
    assert f'{measure},outcome="attributed"}} 1.0' in scraped
    assert f'catalog="{name}",outcome="counted",type="purchase"}} 1.0' in scraped


def test_forged_events_count_for_nothing(api, films):
    answer = asked(api, films, user_id="u1")
    shown = {item["item_id"] for item in answer["items"]}
    other = next(f"f{number}" for number in range(40) if f"f{number}" not in shown)
    forged = [
        event(answer, 0, "click", recommendation_id="rec_madeup"),
        event(answer, 0, "click", recommendation_id=answer["recommendation_id"][:-1] + "_"),
        event(answer, 0, "click", item_id=other),
        event(answer, 0, "click", item_id="no such item"),
    ]
    assert sent(api, films, *forged) == ["unknown", "unknown", "not_shown", "not_shown"]
    reply = api.get(f"{films}/metrics/recommendations").json()
    assert reply["unattributed"] == {"late": 0, "unknown": 2, "not_shown": 2}
    assert figures(reply["rows"][0]) == [1, 0, 0, 0, 0]


def test_own_types_with_the_name_of_a_measure_do_not_stand_in_for_it(api, films):
    own = {"clicks": {"weight": 1}, "impressions": {"weight": 1}}
    assert api.patch(films, json={"event_types": own}).status_code == 200
    answer = asked(api, films)
    kinds = ("clicks", "click", "impressions", "impression")
    assert sent(api, films, *(event(answer, 0, kind) for kind in kinds)) == ["attributed"] * 4
    assert figures(metrics(api, films)["default"]) == [1, 1, 1, 2, 0]


def test_what_came_of_an_item_counts_after_the_item_was_removed(api, films):
    answer = asked(api, films)
    sold = event(answer, 0, "purchase", value=30)
    assert api.delete(f"{films}/items/{sold['item_id']}").status_code in (200, 204)
    reply = api.post(f"{films}/events", json={"events": [sold]}).json()["results"]
    assert (reply[0]["status"], reply[0]["attribution"]) == ("unknown_item", "attributed")
    assert figures(metrics(api, films)["default"]) == [1, 0, 0, 1, 30]


def test_a_list_of_a_run_counts_once_an_event_names_it(api, films):
    body = b'{"user_id": "u1"}\n{"user_id": "u2"}\n'
    headers = {"Content-Type": "application/x-ndjson"}
    run = api.post(f"{films}/recommendation-runs", content=body, headers=headers)
    lines = api.get(f"/v1/jobs/{ended(api, run)['id']}/result").content.splitlines()
    assert metrics(api, films) == {}, "nobody has seen them"
    answer = json.loads(lines[0])["answer"]
    assert sent(api, films, event(answer, 0, "click"), event(answer, 1, "click")) == [
        "attributed",
        "attributed",
    ]
    assert figures(metrics(api, films)["default"]) == [1, 0, 2, 0, 0]


def test_metrics_count_jobs_by_type_and_state(api, films):
    assert ended(api, api.post(f"{films}/tree/rebuilds"))["state"] == "succeeded"
    scraped = api.get("/metrics").text
    found = re.search(r'unillmrec_jobs_ended_total{state="succeeded",type="rebuild"} (.*)', scraped)
    assert found is not None
    assert float(found[1]) >= 1


def test_days_must_be_in_order_and_known(api, catalog):
    path = f"{catalog}/metrics/recommendations"
    assert api.get(path).json()["rows"] == []
    for query in ({"since": "2026-02-01", "until": "2026-01-01"}, {"since": "2020-01-01"}):
        reply = api.get(path, params=query)
        assert pointers(assert_problem(reply, 422, "invalid_request")) == ["/since"]
        assert "at most 399 days" in reply.json()["errors"][0]["message"]
    for query in (
        {"until": "0001-01-01"},
        {"until": "0001-01-29", "since": "0001-01-01"},
        {"until": "9999-12-31"},
        {"until": "9999-12-31", "since": "9998-11-27"},
    ):
        reply = api.get(path, params=query)
        assert (reply.status_code, reply.json()["rows"]) == (200, []), query
    assert api.get(path, params={"since": "9999-12-31"}).status_code == 422
    reply = api.get(path, params={"by": "user"})
    assert pointers(assert_problem(reply, 422, "invalid_request")) == ["/by"]
