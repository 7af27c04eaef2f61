"""Whatever the body is: a problem, never a 500."""

import json

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.app.api.support import assert_problem, item_path

JSON = {"Content-Type": "application/json"}
UNPARSABLE = [
    b"",
    b"{",
    b"nonsense",
    b'{"a": 1,}',
    b"\xff\xfe",
    b'{"profile": "\xff"}',
    b'{"profile": "\\ud800"}',
    b'{"profile": "\\udc00 \\ud800"}',
    b'{"limit": ' + b"9" * 5_000 + b"}",
    b"[" * 10_000,
    b'{"profile": ' * 1_000,
]
ROUTES = [
    ("POST", "/recommend"),
    ("POST", "/items:batch"),
    ("POST", "/tree/rebuilds"),
    ("PUT", "/items/x"),
    ("PATCH", "/items/x"),
    ("PATCH", "/tree/nodes/0"),
]


@pytest.mark.parametrize("body", UNPARSABLE, ids=lambda body: repr(body[:20]))
@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_a_body_that_is_no_json_is_a_400(api, catalog, method, route, body):
    if not body and route == "/tree/rebuilds":
        return  # where a body may be left out
    reply = api.request(method, catalog + route, content=body, headers=JSON)
    assert_problem(reply, 400, "unparsable_body")


@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'"text"', b"true"])
@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_a_body_that_is_no_object_is_a_422(api, catalog, method, route, body):
    reply = api.request(method, catalog + route, content=body, headers=JSON)
    assert_problem(reply, 422, "invalid_request")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_json_does_not_have_are_refused(api, catalog, literal):
    bodies = [
        ("/recommend", f'{{"diversity": {literal}}}'),
        ("/recommend", f'{{"max_cost_usd": {literal}}}'),
        ("/recommend", f'{{"filter": {{"all": [{{"field": "year", "gte": {literal}}}]}}}}'),
    ]
    for route, body in bodies:
        reply = api.post(catalog + route, content=body, headers=JSON)
        assert reply.status_code in (200, 400, 422), body
    for number in ("popularity", "attributes"):
        value = literal if number == "popularity" else f'{{"year": {literal}}}'
        body = f'{{"title": "A", "{number}": {value}}}'
        reply = api.put(item_path(catalog, "a"), content=body, headers=JSON)
        assert reply.status_code in (400, 422), body
        row = f'{{"upserts": [{{"id": "a", "title": "A", "{number}": {value}}}]}}'
        batch = api.post(f"{catalog}/items:batch", content=row, headers=JSON)
        assert batch.status_code == 400 or batch.json()["results"][0]["status"] == "rejected"
    assert_problem(api.get(item_path(catalog, "a")), 404, "unknown_item")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
@pytest.mark.parametrize(("method", "route"), [*ROUTES, ("POST", "/imports")])
def test_a_body_of_another_type_is_a_415(api, catalog, method, route, kind):
    headers = {"Content-Type": kind} if kind else {}
    reply = api.request(method, catalog + route, content=b'{"title": "A"}', headers=headers)
    problem = assert_problem(reply, 415, "unsupported_media_type")
    assert "send application/" in problem["detail"]


def test_a_type_may_have_parameters(api, catalog):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert api.post(f"{catalog}/recommend", content=b"{}", headers=headers).status_code == 200


def test_only_imports_may_be_compressed(api, catalog):
    headers = {**JSON, "Content-Encoding": "gzip"}
    reply = api.post(f"{catalog}/recommend", content=b"{}", headers=headers)
    assert_problem(reply, 415, "unsupported_encoding")
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "br"}
    reply = api.post(f"{catalog}/imports", content=b"{}", headers=headers)
    assert_problem(reply, 415, "unsupported_encoding")


@pytest.mark.parametrize(
    ("method", "route"), [*ROUTES, ("POST", "/imports")], ids=lambda part: part
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_a_413(service_url, catalog, method, route, chunked):
    size = 4_000_000 if route == "/imports" else 400_000
    whole = b'{"title": "' + b"x" * size + b'"}'
    content = iter([whole[:100_000], whole[100_000:]]) if chunked else whole
    with httpx2.Client(base_url=service_url, timeout=30) as client:
        reply = client.request(method, catalog + route, content=content, headers=JSON)
    assert_problem(reply, 413, "body_too_large")
    assert reply.headers["connection"] == "close"


def test_a_title_of_many_megabytes_in_a_batch_sinks_nothing_else(api, catalog):
    rows = [{"id": "long", "title": "x" * 200_000}, {"id": "short", "title": "Short"}]
    results = api.post(f"{catalog}/items:batch", json={"upserts": rows}).json()["results"]
    assert [row["status"] for row in results] == ["rejected", "created"]


def test_whole_numbers_have_no_end(api, catalog):
    path = item_path(catalog, "a")
    body = b'{"title": "A", "attributes": {"big": ' + b"9" * 4_000 + b"}}"
    assert api.put(path, content=body, headers=JSON).status_code in (201, 422)
    assert api.get(path).status_code in (200, 404)
    wish = b'{"filter": {"all": [{"field": "big", "gte": 1.5}]}, "fields": ["big"]}'
    assert api.post(f"{catalog}/recommend", content=wish, headers=JSON).status_code == 200


# -- at random

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([
    "id", "title", "description", "categories", "keywords", "domain", "attributes", "popularity",
    "published_at", "expires_at", "hidden", "history", "profile", "instruction", "limit", "filter",
    "exclude_items", "diversity", "fields", "explain", "timeout_ms", "domains", "user_id",
    "upserts", "deletes", "label", "locked", "mode", "root", "dry_run", "item_id", "all", "field",
])  # fmt: skip
bodies = st.recursive(
    st.dictionaries(names | texts, values, max_size=5),
    lambda inner: st.dictionaries(names, inner | st.lists(inner, max_size=3), max_size=4),
    max_leaves=6,
)
items = st.fixed_dictionaries(
    {"title": texts},
    optional={
        "description": texts,
        "categories": st.lists(texts, max_size=4),
        "keywords": st.lists(texts, max_size=4),
        "domain": texts,
        "attributes": st.dictionaries(texts, scalars | st.lists(texts, max_size=3), max_size=3),
        "popularity": st.floats() | st.integers(),
        "expires_at": st.datetimes().map(str) | st.integers(),
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "history": st.lists(
            st.fixed_dictionaries({}, optional={"item_id": texts, "title": texts, "domain": texts}),
            max_size=4,
        ),
        "profile": texts,
        "instruction": texts,
        "limit": st.integers(-1, 102),
        "domains": st.lists(texts, max_size=3),
        "exclude_items": st.lists(texts, max_size=3),
        "diversity": st.floats(-0.1, 1.1),
        "fields": st.lists(names | texts, max_size=4),
        "explain": st.sampled_from(["none", "brief", "full", "more"]),
        "filter": st.fixed_dictionaries(
            {},
            optional={
                kind: st.lists(
                    st.dictionaries(
                        st.sampled_from(["field", "eq", "ne", "gt", "lte", "in"]),
                        names | scalars | st.lists(scalars, max_size=2),
                    ),
                    max_size=2,
                )
                for kind in ("all", "any", "none")
            },
        ),
    },
)
at_random = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def as_json(value: object) -> bytes:
    """JSON as Python writes it: NaN, lone surrogates and all."""
    return json.dumps(value).encode()


def assert_an_answer(reply: httpx2.Response) -> None:
    assert reply.status_code < 500, reply.text
    if reply.status_code >= 400:
        assert_problem(reply, reply.status_code, reply.json()["code"])


@at_random
@given(body=bodies | values, route=st.sampled_from(ROUTES))
def test_any_json_gets_an_answer(api, films, body, route):
    method, path = route
    assert_an_answer(api.request(method, films + path, content=as_json(body), headers=JSON))


@at_random
@given(body=st.binary(max_size=60), route=st.sampled_from(ROUTES))
def test_any_bytes_get_an_answer(api, films, body, route):
    method, path = route
    assert_an_answer(api.request(method, films + path, content=body, headers=JSON))


@at_random
@given(item_id=st.text(st.characters(codec="utf-8"), max_size=12), item=items)
def test_any_item_is_kept_as_it_is_or_refused(api, catalog, item_id, item):
    path = item_path(catalog, item_id)
    reply = api.put(path, content=as_json(item), headers=JSON)
    assert_an_answer(reply)
    if reply.status_code in (200, 201):
        assert api.get(path).json() == reply.json()
        assert reply.json()["id"] == item_id
        assert api.post(f"{catalog}/recommend", json={}).status_code == 200


@at_random
@given(request=requests)
def test_any_request_gets_an_answer(api, films, request):
    reply = api.post(f"{films}/recommend", content=as_json(request), headers=JSON)
    assert_an_answer(reply)
    if reply.status_code == 200:
        assert len(reply.json()["items"]) <= request.get("limit", 10)


@at_random
@given(
    route=st.sampled_from(["/items", "/similar", "/tree", "/imports", "/exports/items"]),
    query=st.dictionaries(
        st.sampled_from(["cursor", "limit", "q", "node", "item_id", "root", "depth", "format"])
        | st.text(st.characters(codec="utf-8"), max_size=5),
        st.text(st.characters(codec="utf-8"), max_size=8) | st.integers().map(str),
        max_size=3,
    ),
)
def test_any_query_gets_an_answer(api, films, route, query):
    assert_an_answer(api.get(films + route, params=query))
