"""What holds for every route: its answers' headers, HEAD, and parameters that nobody reads."""

import re

import pytest

from app.main import create_app
from tests.app.api.support import assert_problem, pointers

ROUTES = [
    (method.upper(), re.sub(r"\{(node_id|version)\}", "1", path).replace("{", "").replace("}", ""))
    for path, methods in create_app().openapi()["paths"].items()
    for method in methods
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_parameter_that_a_route_does_not_have_is_refused(api, method, path):
    reply = api.request(method, path, params={"no~such": "1"})
    problem = assert_problem(reply, 422, "invalid_request")
    assert ("query", "/no~0such") in [(one["source"], one["pointer"]) for one in problem["errors"]]


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/v1/catalogs", "/nowhere"]
)
def test_head_is_get_without_the_body(api, path):
    get, head = api.get(path), api.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_ends_where_a_body_would_not(api, films):
    assert api.head(f"{films}/exports/items").status_code == 200
    assert api.head(f"{films}/exports/items").content == b""
    refused = api.request("POST", "/livez")
    assert_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET, HEAD"


def test_every_answer_says_what_a_browser_may_do_with_it(api, films):
    replies = [
        api.get("/livez"),
        api.get("/nowhere"),
        api.get(f"{films}/items/f1"),
        api.get(f"{films}/exports/items"),
        api.post(f"{films}/recommend", json={"limit": 0}),
        api.post(f"{films}/recommend/stream", json={"limit": 1}),
        api.get(f"{films}/items/%0a"),
    ]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["cache-control"] in ("no-store", "no-cache")


@pytest.mark.parametrize("path", ["/livez%0a", "/v1/catalogs/a%0d%0ab", "/v1/catalogs/a/items/%ff"])
def test_a_path_that_routes_do_not_tell_apart_is_refused(api, path):
    assert pointers(assert_problem(api.get(path), 422, "invalid_request")) == ["/"]


def test_the_docs_need_no_other_server(api):
    page = api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 4
    for address in addresses:
        asset = api.get(f"/{address}")
        assert asset.status_code == 200
        assert "max-age" in asset.headers["cache-control"]
    assert "openapi.json" in api.get("/docs/start.js").text
    assert_problem(api.get("/docs/nothing.js"), 404, "unknown_route")
    assert_problem(api.get("/redoc"), 404, "unknown_route")
