"""Recommendations over HTTP."""

import json

import pytest

from tests.app.api.support import assert_problem, item_path, pointers


def recommended(api, catalog, **request) -> list[str]:
    reply = api.post(f"{catalog}/recommend", json=request)
    assert reply.status_code == 200, reply.text
    return [item["item_id"] for item in reply.json()["items"]]


def test_a_reader_gets_what_is_near_to_their_history(api, films):
    reply = api.post(
        f"{films}/recommend",
        json={"history": [{"item_id": "f0"}, {"item_id": "f2"}], "limit": 5, "diversity": 0},
    )
    answer = reply.json()
    assert reply.headers["content-type"] == "application/json"
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5]
    assert all(int(item["item_id"][1:]) % 2 == 0 for item in answer["items"])
    assert not {"f0", "f2"} & {item["item_id"] for item in answer["items"]}
    assert all(item["path"] and item["reason"] for item in answer["items"])
    assert (answer["degraded"], answer["usage"]["calls"]) == (False, 0)
    assert answer["timing_ms"]["total"] > 0


def test_a_wish_in_words_is_a_need_too(api, films):
    found = recommended(api, films, instruction="two people in one small town", limit=5)
    assert all(int(item_id[1:]) % 2 == 1 for item_id in found)


def test_a_reader_of_whom_nothing_is_known_gets_something(api, films):
    assert len(recommended(api, films)) == 10
    assert len(recommended(api, films, user_id="nobody", limit=100)) == 40


def test_an_answer_can_be_traced(api, films):
    answer = api.post(f"{films}/recommend", json={"profile": "distant stars"}).json()
    path = f"{films}/recommendations/{answer['recommendation_id']}"
    trace = api.get(path).json()
    assert trace["recommendation_id"] == answer["recommendation_id"]
    assert [item["item_id"] for item in trace["items"]] == [
        item["item_id"] for item in answer["items"]
    ]
    assert_problem(api.get(f"{films}/recommendations/rec_none"), 410, "recommendation_gone")


def test_unknown_history_is_reported_and_no_error(api, films):
    history = [{"item_id": "nowhere"}, {"item_id": "f1"}, {"title": "Something else"}]
    answer = api.post(f"{films}/recommend", json={"history": history}).json()
    assert answer["absent_items"] == ["nowhere"]
    assert answer["items"]


def test_a_history_may_be_long(api, films):
    history = [{"item_id": f"x{number}"} for number in range(8_000)]
    answer = api.post(f"{films}/recommend", json={"history": history}).json()
    assert len(answer["absent_items"]) == 8_000
    history = [{"item_id": "f1"}] * 10_000
    assert recommended(api, films, history=history)
    refused = api.post(f"{films}/recommend", json={"history": [*history, {"item_id": "f1"}]})
    assert pointers(assert_problem(refused, 422, "invalid_request")) == ["/history"]


def test_what_is_excluded_filtered_or_hidden_does_not_come(api, films):
    api.patch(item_path(films, "f4"), json={"hidden": True})
    api.patch(item_path(films, "f6"), json={"expires_at": "2020-01-01T00:00:00Z"})
    api.delete(item_path(films, "f8"))
    found = recommended(
        api,
        films,
        limit=100,
        exclude_items=["f10"],
        filter={"all": [{"field": "year", "lt": 2000}]},
    )
    assert sorted(found) == sorted(
        f"f{number}" for number in range(20) if number not in (4, 6, 8, 10)
    )
    assert recommended(api, films, domains=["books"]) == []


def test_an_item_is_recommended_as_soon_as_it_is_there_and_no_longer(api, films):
    wish = "a lighthouse keeper counts whales"
    path = item_path(films, "whales")
    api.put(path, json={"title": "Whales", "description": wish})
    assert recommended(api, films, instruction=wish, limit=1) == ["whales"]
    api.delete(path)
    assert "whales" not in recommended(api, films, instruction=wish, limit=100)


def test_an_empty_catalogue_recommends_nothing(api, catalog):
    assert recommended(api, catalog, instruction="anything") == []
    api.put(item_path(catalog, "one"), json={"title": "One"})
    assert recommended(api, catalog, instruction="anything") == ["one"]


def test_items_that_are_all_alike_are_recommended_too(api, catalog):
    rows = [{"id": str(number), "title": "Same", "categories": ["C"]} for number in range(100)]
    api.post(f"{catalog}/items:batch", json={"upserts": rows})
    assert len(recommended(api, catalog, instruction="same", limit=100)) == 1
    assert len(recommended(api, catalog, instruction="same", limit=100, fold=False)) == 100


def test_one_thing_in_many_forms_takes_one_place(api, catalog):
    rows = [
        {"id": f"m{at}", "title": f"Mug Owl, {size} ml", "attributes": {"brand": "Night"}}
        for at, size in enumerate((250, 300, 400))
    ]
    rows += [
        {"id": f"p{at}", "title": f"Poster {name}", "attributes": {"brand": brand}}
        for at, (name, brand) in enumerate([("Fox", "Day"), ("Cat", "day"), ("Sun", "Dusk")])
    ]
    api.post(f"{catalog}/items:batch", json={"upserts": rows})
    asked = {"instruction": "mug with an owl", "limit": 4, "diversity": 0}
    first, *rest = api.post(f"{catalog}/recommend", json=asked).json()["items"]
    assert sorted([first["item_id"], *first["folded"]]) == ["m0", "m1", "m2"]
    assert sorted(item["item_id"] for item in rest) == ["p0", "p1", "p2"]
    assert len(recommended(api, catalog, **asked, group_by="brand")) == 3
    found = api.get(f"{catalog}/similar", params={"item_id": "m0", "limit": 2}).json()
    assert all(item["item_id"].startswith("p") for item in found["items"])
    assert sorted(found["folded"]) == ["m1", "m2"]
    params = {"item_id": "m0", "limit": 2, "fold": False}
    found = api.get(f"{catalog}/similar", params=params).json()
    assert {item["item_id"] for item in found["items"]} == {"m1", "m2"}


def test_a_field_to_group_by_that_no_item_has_is_a_warning(api, films):
    answer = api.post(f"{films}/recommend", json={"group_by": "brnad"}).json()
    assert [one["code"] for one in answer["warnings"]] == ["unknown_field"]
    assert len(answer["items"]) == 10


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        ({"limit": 0}, "/limit"),
        ({"limit": -1}, "/limit"),
        ({"fold": "yes"}, "/fold"),
        ({"group_by": ""}, "/group_by"),
        ({"group_by": 7}, "/group_by"),
        ({"group_by": ["brand"]}, "/group_by"),
        ({"limit": 101}, "/limit"),
        ({"limit": "10"}, "/limit"),
        ({"limit": 1.5}, "/limit"),
        ({"limit": True}, "/limit"),
        ({"limit": 10**400}, "/limit"),
        ({"divresity": 0.3}, "/divresity"),
        ({"diversity": 2}, "/diversity"),
        ({"diversity": False}, "/diversity"),
        ({"history": [{"item_id": "a", "title": "b"}]}, "/history/0"),
        ({"history": [{}]}, "/history/0"),
        ({"history": {"item_id": "a"}}, "/history"),
        ({"history": [{"item_id": ""}]}, "/history/0/item_id"),
        ({"filter": {"all": [{"field": "year"}]}}, "/filter/all/0"),
        ({"filter": {"every": []}}, "/filter/every"),
        ({"strategy": "magic"}, "/strategy"),
        ({"task": "magic"}, "/task"),
        ({"task": "search", "profile": "likes tea"}, "/task"),
        ({"task": "search", "instruction": "  "}, "/instruction"),
        ({"timeout_ms": 0}, "/timeout_ms"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(api, films, request_, pointer):
    problem = assert_problem(api.post(f"{films}/recommend", json=request_), 422, "invalid_request")
    assert pointers(problem) == [pointer]


def test_neighbours_of_an_item(api, films):
    found = api.get(f"{films}/similar", params={"item_id": "f0", "limit": 3}).json()
    assert len(found["items"]) == 3
    assert all(int(item["item_id"][1:]) % 2 == 0 for item in found["items"])
    assert "f0" not in {item["item_id"] for item in found["items"]}

    unknown = api.get(f"{films}/similar", params={"item_id": "nowhere"})
    assert_problem(unknown, 404, "unknown_item")
    for limit in (0, -1, 101, "x"):
        refused = api.get(f"{films}/similar", params={"item_id": "f0", "limit": limit})
        assert pointers(assert_problem(refused, 422, "invalid_request")) == ["/limit"]
    missing = assert_problem(api.get(f"{films}/similar"), 422, "invalid_request")
    assert (pointers(missing), missing["errors"][0]["source"]) == (["/item_id"], "query")


def test_pages_come_by_a_cursor_alone_streamed_and_batched(api, films):
    asked = {"instruction": "distant stars", "limit": 4}
    first = api.post(f"{films}/recommend", json=asked).json()
    asked["cursor"] = first["next_cursor"]
    second = api.post(f"{films}/recommend", json=asked).json()
    shown = {item["item_id"] for item in first["items"] + second["items"]}
    assert len(shown) == 8
    rows = api.post(f"{films}/recommend:batch", json={"requests": [asked]}).json()["results"]
    assert rows[0]["answer"]["items"] == second["items"]
    streamed = api.post(f"{films}/recommend/stream", json=asked).text
    done = json.loads(streamed.partition("event: done\ndata: ")[2].partition("\n")[0])
    asked["cursor"] = done["next_cursor"]
    third = api.post(f"{films}/recommend", json=asked).json()
    assert len(shown | {item["item_id"] for item in third["items"]}) == 12
    gone = api.post(f"{films}/recommend", json=asked | {"cursor": "rec_none"})
    assert_problem(gone, 410, "cursor_expired")
    others = api.post(f"{films}/recommend", json=asked | {"user_id": "u1"})
    assert_problem(others, 422, "invalid_cursor")


def test_similar_items_take_a_filter_fields_and_a_cursor(api, films):
    asked = {
        "item_id": "f0",
        "limit": 3,
        "fields": ["year"],
        "exclude_items": ["f2"],
        "filter": {"all": [{"field": "year", "lt": 1994}]},
    }
    shown, sizes = [], []
    while True:
        answer = api.post(f"{films}/similar", json=asked).json()
        assert all(list(item["fields"]) == ["year"] for item in answer["items"])
        shown += [item["item_id"] for item in answer["items"]]
        sizes.append(len(answer["items"]))
        if answer["next_cursor"] is None:
            break
        asked["cursor"] = answer["next_cursor"]
    assert sizes == [3, 3, 3, 3]
    assert sorted(shown) == sorted(f"f{at}" for at in range(14) if at not in (0, 2))
    assert len(shown) == len(set(shown))
    alone = api.get(f"{films}/similar", params={"item_id": "f0", "limit": 3}).json()
    alike = api.post(f"{films}/similar", json={"item_id": "f0", "limit": 3}).json()
    assert alike["items"] == alone["items"]
    other = api.post(f"{films}/similar", json=asked | {"item_id": "f1"})
    assert_problem(other, 422, "invalid_cursor")
    asked["cursor"] = "sim_none"
    assert_problem(api.post(f"{films}/similar", json=asked), 410, "cursor_expired")
    unknown = api.post(f"{films}/similar", json={"item_id": "nowhere"})
    assert_problem(unknown, 404, "unknown_item")
    warned = api.post(f"{films}/similar", json={"item_id": "f0", "fields": ["yaer"]}).json()
    assert warned["items"][0]["fields"] == {}
