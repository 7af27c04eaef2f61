"""A service without keys answers this machine alone."""

from typing import Any

import pytest

from tests.app.api.support import assert_problem

TEXT = {"Content-Type": "text/plain"}


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:8000", "localhost.:1", "127.0.0.1", "127.1.2.3:80", "[::1]",
        "[::1]:8000", "[0:0:0:0:0:0:0:1]:9",
    ],
)  # fmt: skip
def test_without_keys_names_of_this_machine_are_answered(api, host):
    assert api.get("/v1/catalogs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8000",
        "0.0.0.0", "10.0.0.1", "[::2]", "[fe80::1]:80", "::1", "localhost@evil.example",
        "evil.example#localhost", "localhost:80:80", "[::1", "2130706433",
    ],
)  # fmt: skip
def test_without_keys_other_names_are_not(api, host):
    for path in ("/v1/catalogs", "/livez", "/openapi.json"):
        reply = api.get(path, headers={"Host": host})
        assert_problem(reply, 421, "foreign_host")


def test_without_keys_no_page_of_another_origin_writes(api, catalog):
    own = str(api.base_url).rstrip("/")
    writes: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{catalog}/tree/rebuilds", {}),
        ("POST", f"{catalog}/items:batch", {"content": b"{}", "headers": TEXT}),
        ("PUT", f"{catalog}/items/i", {"json": {"title": "I"}}),
        ("DELETE", f"{catalog}/items/i", {}),
    ]  # fmt: skip
    foreign = [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": own},
    ]
    for method, path, more in writes:
        for page in foreign:
            headers = {**more.get("headers", {}), **page}
            reply = api.request(method, path, **{**more, "headers": headers})
            assert_problem(reply, 403, "foreign_origin")
            assert "access-control-allow-origin" not in reply.headers
    for page in ({}, {"Origin": own}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}):
        reply = api.put(f"{catalog}/items/i", json={"title": "I"}, headers=page)
        assert reply.status_code in (200, 201)
    assert api.get("/v1/catalogs", headers={"Origin": "https://evil.example"}).status_code == 200


def test_without_keys_none_can_be_made(api):
    body = {"name": "later", "scopes": ["admin"], "catalogs": "*"}
    assert_problem(api.post("/v1/keys", json=body), 409, "keys_off")
    assert api.get("/v1/keys").json()["keys"] == []
