"""Lists for many users in one request."""

from tests.app.api.keyed import holder
from tests.app.api.support import assert_problem, pointers


def batched(api, catalog, *requests: object) -> list[dict]:
    reply = api.post(f"{catalog}/recommend:batch", json={"requests": list(requests)})
    assert reply.status_code == 200, reply.text
    return reply.json()["results"]


def test_each_request_of_a_batch_gets_the_answer_that_it_gets_alone(api, films):
    api.put(f"{films}/users/u1", json={"history": ["f0", "f2"]})
    asked: list[dict] = [
        {"user_id": "u1", "limit": 5},
        {"instruction": "two people in one small town", "limit": 3},
        {"history": [{"item_id": "f1"}], "filter": {"all": [{"field": "year", "lt": 1990}]}},
    ]
    rows = batched(api, films, *asked)
    assert [row["problem"] for row in rows] == [None] * 3
    for row, one in zip(rows, asked, strict=True):
        alone = api.post(f"{films}/recommend", json=one).json()
        assert row["answer"]["items"] == alone["items"]
        assert row["answer"]["items"]
    trace = api.get(f"{films}/recommendations/{rows[0]['answer']['recommendation_id']}").json()
    assert trace["user_id"] == "u1"


def test_a_request_that_fails_does_not_fail_the_others(api, films):
    bad, wrong, good, late = batched(
        api, films, {"limit": 0, "fold": "yes"}, 7, {"limit": 2}, {"timeout_ms": 1}
    )
    assert (bad["problem"]["status"], bad["problem"]["code"]) == (422, "invalid_request")
    assert pointers(bad["problem"]) == ["/requests/0/limit", "/requests/0/fold"]
    assert pointers(wrong["problem"]) == ["/requests/1"]
    assert bad["answer"] is wrong["answer"] is None
    assert len(good["answer"]["items"]) == 2
    assert (late["problem"] or {"code": "deadline_exceeded"})["code"] == "deadline_exceeded"


def test_a_batch_holds_at_most_two_hundred_requests(api, films):
    assert len(batched(api, films, *([{"limit": 1}] * 200))) == 200
    assert batched(api, films) == []
    many = api.post(f"{films}/recommend:batch", json={"requests": [{}] * 201})
    assert pointers(assert_problem(many, 422, "invalid_request")) == ["/requests"]


def test_each_request_of_a_batch_counts_for_the_rate_of_a_key(root):
    with holder(root, "recommend", rate_per_minute=10) as client:
        path = "/v1/catalogs/a/recommend:batch"
        reply = client.post(path, json={"requests": [{}] * 8})
        assert reply.status_code == 200
        assert reply.headers["ratelimit"].split(";")[1] == "r=2"
        refused = client.post(path, json={"requests": [{}] * 3})
        assert "fewer requests" in assert_problem(refused, 429, "rate_limited")["detail"]
