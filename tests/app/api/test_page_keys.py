"""Keys that are limited: those of pages in browsers, rates, rows."""

import time
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import httpx2
import pytest

from tests.app.api.keyed import ROOT, SHOP, bearer, created, holder
from tests.app.api.support import assert_problem, pointers


@pytest.fixture(scope="module")
def page_key(root: httpx2.Client) -> str:
    return created(root, "recommend", "events", origins=[SHOP, "http://localhost:3000"])["key"]


def test_a_page_of_its_origins_may_use_a_key_and_no_other_page(root, keyed_url, page_key):
    address = f"{keyed_url}/v1/catalogs/a/recommend"
    for origin in (SHOP, "http://localhost:3000"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = httpx2.options(address, headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == origin
        allowed = preflight.headers["access-control-allow-headers"].lower()
        assert {"authorization", "content-type"} <= set(allowed.split(", "))
        assert "Origin" in preflight.headers["vary"]
        reply = httpx2.post(address, json={}, headers={**bearer(page_key), "Origin": origin})
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in reply.headers
    for origin in ("https://evil.example", "null", f"{SHOP}.evil.example", "http://shop.example"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = httpx2.options(address, headers=asked)
        assert_problem(preflight, 403, "forbidden_origin")
        reply = httpx2.post(address, json={}, headers={**bearer(page_key), "Origin": origin})
        assert_problem(reply, 403, "forbidden_origin")
        for refused in (preflight, reply):
            assert "access-control-allow-origin" not in refused.headers
            assert "Origin" in refused.headers["vary"]
    assert httpx2.post(address, json={}, headers=bearer(page_key)).status_code == 200
    page = {**bearer(page_key), "Origin": SHOP}
    unknown = httpx2.post(address, json={"limit": 0}, headers=page)
    assert_problem(unknown, 422, "invalid_request")
    assert unknown.headers["access-control-allow-origin"] == SHOP


def test_a_beacon_brings_its_key_in_its_body(root, keyed_url, page_key):
    address = f"{keyed_url}/v1/catalogs/a/events"
    event = {
        "user_id": 42, "item_id": "i", "type": "click", "value": 2.5,
        "at": time.time_ns() // 1_000_000, "recommendation_id": f"rec_{token_hex(8)}", "rank": 1,
    }  # fmt: skip

    def sent(body: object, origin: str | None = SHOP, path: str = address) -> httpx2.Response:
        headers = {"Content-Type": "text/plain;charset=UTF-8"}
        headers |= {"Origin": origin} if origin else {}
        content = (
            body if isinstance(body, bytes) else httpx2.Request("POST", path, json=body).read()
        )
        return httpx2.post(path, content=content, headers=headers)

    reply = sent({"key": page_key, "events": [event]})
    assert reply.status_code == 200
    assert [row["status"] for row in reply.json()["results"]] == ["counted"]
    (bad, twice) = sent({"key": page_key, "events": [{**event, "rank": 0}, event]}).json()[
        "results"
    ]
    assert pointers(bad["problem"]) == ["/events/0/rank"]
    assert twice["status"] == "duplicate"
    assert reply.headers["access-control-allow-origin"] == SHOP
    for origin in ("https://evil.example", "null", None):
        refused = sent({"key": page_key, "events": [event]}, origin)
        assert_problem(refused, 403, "forbidden_origin")
    assert_problem(sent({"events": [event]}), 401, "missing_key")
    assert_problem(sent({"key": 1, "events": [event]}), 401, "missing_key")
    assert_problem(sent({"key": page_key + "x", "events": []}), 401, "unknown_key")
    assert_problem(sent({"key": ROOT, "events": []}), 403, "forbidden_origin")
    assert_problem(sent(b"[1]"), 401, "missing_key")
    assert_problem(sent(b"{"), 400, "unparsable_body")
    assert_problem(sent(b" " * 70_000), 413, "body_too_large")
    more = sent({"key": page_key, "events": [event], "more": 1})
    assert_problem(more, 422, "invalid_request")
    assert page_key not in more.text
    elsewhere = sent({"key": page_key}, path=f"{keyed_url}/v1/catalogs/a/recommend")
    assert_problem(elsewhere, 401, "missing_key")


# -- limits


def test_a_rate_is_kept_to_the_request(root):
    with holder(root, "recommend", rate_per_minute=20) as client, ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(client.get, "/v1/catalogs/a") for _ in range(60)]
        replies = [one.result() for one in sent]
    fine = [reply for reply in replies if reply.status_code == 200]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert (len(fine), len(refused)) == (20, 40)
    left = sorted(int(reply.headers["ratelimit"].split(";")[1][2:]) for reply in fine)
    assert left == list(range(20))
    for reply in refused:
        assert_problem(reply, 429, "rate_limited")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert reply.headers["ratelimit-policy"] == '"key";q=20;w=60'


def test_rows_count_towards_a_rate(root):
    """Ten requests: a read, then 100 rows as one, 101 as two, and so on."""
    catalog = "/v1/catalogs/a"

    def events(client, count):
        rows = [
            {"event_id": f"{n}", "user_id": f"rated{count}", "item_id": "x"} for n in range(count)
        ]
        return client.post(f"{catalog}/events", json={"events": rows})

    def left(reply):
        assert reply.status_code == 200, reply.text
        assert len(reply.headers.get_list("ratelimit")) == 1
        return int(reply.headers["ratelimit"].split(";")[1][2:])

    with holder(root, "ingest", "events", rate_per_minute=10) as client:
        assert left(client.get(catalog)) == 9
        assert left(events(client, 100)) == 8
        assert left(events(client, 101)) == 6
        batch = {"upserts": [{"id": "rated", "title": "R"}] * 100, "deletes": ["rated"]}
        assert left(client.post(f"{catalog}/items:batch", json=batch)) == 4
        erased = {"user_ids": ["rated100"] * 101}
        assert left(client.post(f"{catalog}/users:erase", json=erased)) == 2
        many = {"upserts": [{"id": f"many{n}", "title": "M"} for n in range(300)]}
        refused = client.post(f"{catalog}/items:batch", json=many)
        assert "fewer rows" in assert_problem(refused, 429, "rate_limited")["detail"]
        assert refused.headers.get_list("ratelimit")[0].startswith('"key";r=1;')
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert left(client.get(catalog)) == 0
    assert root.get(f"{catalog}/items/many0").status_code == 404
