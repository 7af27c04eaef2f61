"""Bodies that hold as much as their size allows: refused in short, and the others are served."""

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

import app.limits
from app.api.body_memory import BYTES_A_SECOND, FIRST_S, LARGEST
from app.api.jobs import MOST_STREAMS
from app.api.problems import SHOWN_ERRORS
from app.http_connection import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_URL_BYTES,
    MAX_WAITING,
    HttpConnection,
)
from app.limits import (
    BATCH_VALUES,
    FIELDS,
    ITEM_VALUES,
    RECOMMEND_VALUES,
    SMALL_BYTES,
    TooMuch,
    check_text,
)
from app.settings import Settings
from tests.app.api.support import ended, pointers
from tests.commands import ROOT

PATH = "/v1/catalogs/default"
JSON = {"Content-Type": "application/json"}
SIZE = 4_000_000  # just below the limit of a body
_LONGEST_WAIT_S = 0.5  # 100 ms on a machine that does nothing else
_LONGEST_ANSWER = 300_000


def fields(count: int, value: bytes = b"0") -> bytes:
    return b",".join(b'"f%d":%s' % (number, value) for number in range(count))


def many(one: bytes, count: int) -> bytes:
    return b",".join([one] * count)


def filled(start: bytes, one: bytes, end: bytes) -> bytes:
    return start + b",".join([one] * ((SIZE - len(start + end)) // (len(one) + 1))) + end


LISTS = filled(b'{"x":[', b"[]", b"]}")
WIDE = b'{"title":"A",' + fields(320_000) + b"}"
ATTRIBUTES = b'{"title":"A","attributes":{' + fields(11_000, b"null") + b"}}"
ROWS = b'{"upserts":[' + many(b'{"id":"a",' + fields(5_000) + b"}", 50) + b"]}"
FEW_ROWS = b'{"upserts":[' + many(b'{"id":"a",' + fields(185) + b"}", 1_000) + b"]}"
WANTED = b'{"field":"a","in":[' + many(b"null", 1_000) + b"]}"
HEAVY = {
    "lists in an item": ("PUT", "/items/a", LISTS),
    "fields of an item": ("PUT", "/items/a", WIDE),
    "attributes of an item": ("PUT", "/items/a", ATTRIBUTES),
    "values of an attribute": (
        "PUT", "/items/a", b'{"title":"A","attributes":{"a":[' + b"0," * 11_000 + b"0]}}",
    ),
    "lists in a patch": ("PATCH", "/items/a", LISTS),
    "lists in a batch": ("POST", "/items:batch", filled(b'{"upserts":[', b"[[[]]]", b"]}")),
    "fields in a batch": ("POST", "/items:batch", ROWS),
    "flaws in a batch": ("POST", "/items:batch", FEW_ROWS),
    "deletes": ("POST", "/items:batch", filled(b'{"deletes":[', b'""', b"]}")),
    "events": ("POST", "/events", filled(b'{"events":[', b"{}", b"]}")),
    "flaws in events": (
        "POST", "/events", b'{"events":[' + many(b"{" + fields(28) + b"}", 1_000) + b"]}",
    ),
    "a history": ("POST", "/recommend", b'{"history":[' + many(b"{}", 10_000) + b"]}"),
    "a wide history": ("POST", "/recommend", filled(b'{"history":[', b"{}", b"]}")),
    "fields of a request": ("POST", "/recommend", b"{" + fields(100_000) + b"}"),
    "wanted values": (
        "POST", "/recommend", b'{"filter":{"all":[' + many(WANTED, 50) + b"]}}",
    ),
    "escapes": ("POST", "/recommend", b'{"profile":"' + b'\\"' * 1_990_000 + b'"}'),
    "a user": ("PUT", "/users/u", LISTS),
    "settings": ("PUT", "", LISTS),
    "a node": ("PATCH", "/tree/nodes/0", LISTS),
    "a rebuild": ("POST", "/tree/rebuilds", LISTS),
}  # fmt: skip


@pytest.fixture(scope="module")
def service(process_url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=process_url, timeout=30) as client:
        yield client


@pytest.fixture
def longest_wait(process_url: str) -> Iterator[list[float]]:
    """How long /livez took at most while the test ran, at its end."""
    ended, waits = threading.Event(), [0.0]

    def ask() -> None:
        with httpx2.Client(base_url=process_url, timeout=30) as client:
            while not ended.is_set():
                began = time.perf_counter()
                assert client.get("/livez").status_code == 200
                waits[0] = max(waits[0], time.perf_counter() - began)

    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask)
        yield waits
        ended.set()
        asking.result()


@pytest.mark.parametrize("kind", HEAVY)
def test_a_heavy_body_is_answered_in_short_and_others_are_served(service, longest_wait, kind):
    method, path, body = HEAVY[kind]
    reply = service.request(method, PATH + path, content=body, headers=JSON)
    answer = reply.json()
    if reply.status_code == 200:
        assert {row["status"] for row in answer["results"]} == {"rejected"}
        assert all(len(row["problem"]["errors"]) <= 10 for row in answer["results"])
    else:
        assert (reply.status_code, answer["code"]) == (422, "invalid_request")
        assert len(answer["errors"]) <= 100
    assert len(reply.content) < _LONGEST_ANSWER * (10 if reply.status_code == 200 else 1)
    assert longest_wait[0] < _LONGEST_WAIT_S


def test_flaws_that_are_not_listed_are_counted(service):
    small = b'{"title":"A",' + fields(250) + b"}"
    answer = service.put(f"{PATH}/items/a", content=small, headers=JSON).json()
    assert (len(answer["errors"]), answer["detail"]) == (
        100, "the request has 250 flaws: the first 100 are listed",
    )  # fmt: skip
    row = b'{"upserts":[{"id":"a",' + fields(250) + b"}]}"
    batch = service.post(f"{PATH}/items:batch", content=row, headers=JSON).json()
    (result,) = batch["results"]
    assert (len(result["problem"]["errors"]), result["problem"]["errors_not_shown"]) == (10, 241)
    long = service.put(f"{PATH}/items/a", json={"title": "A", "x" * 100_000: 1}).json()
    assert [len(pointer) for pointer in pointers(long)] == [102]


def test_a_heavy_line_of_an_import_is_rejected(service, longest_wait):
    lists = b'{"id":"a","title":"A","x":[' + b"[]," * 340_000 + b"[]]}"
    wide = b'{"id":"a","title":"A",' + fields(60_000) + b"}"
    body = b"\n".join([*[lists, wide] * 4, b'{"id":"fine","title":"Fine"}'])
    kind = {"Content-Type": "application/x-ndjson"}
    job = ended(service, service.post(f"{PATH}/imports", content=body, headers=kind))
    assert (job["result"]["accepted"], job["result"]["rejected"]) == (1, 8)
    assert all("more than 12,000 values" in one["problem"] for one in job["result"]["errors"])
    assert longest_wait[0] < _LONGEST_WAIT_S


def test_the_docs_tell_the_limits():
    limits = [value for name, value in vars(app.limits).items() if name.endswith("_VALUES")]
    limits += [MAX_HEADERS, MAX_WAITING, FIELDS, SHOWN_ERRORS, Settings().max_connections]
    limits += [
        int(HttpConnection.header_s),
        int(HttpConnection.stall_s),
        int(HttpConnection.unread_s),
    ]
    limits += [LARGEST, int(FIRST_S), MOST_STREAMS]
    text = (ROOT / "docs" / "http.md").read_text(encoding="utf-8").replace("as five", "as 5")
    for limit in limits:
        assert re.search(rf"(?<![\d,]){limit:,}(?![\d,])", text), limit
    for size, unit in (
        (MAX_URL_BYTES, "KiB"), (MAX_HEADER_BYTES, "KiB"), (SMALL_BYTES, "KiB"),
        (BYTES_A_SECOND, "KiB"), (LARGEST * Settings().max_body_bytes, "MiB"),
        (Settings().max_body_bytes, "MiB"), (Settings().max_import_bytes, "GiB"),
    ):  # fmt: skip
        assert f"{size >> {'KiB': 10, 'MiB': 20, 'GiB': 30}[unit]} {unit}" in text


def test_what_callers_really_send_is_not_too_much():
    words = 'a, b, c [d] {e} \\ " ' * 900
    item = {
        "title": "A",
        "description": words,
        "categories": [words[:200]] * 16,
        "keywords": ["k, k"] * 64,
        "attributes": {f"a{n}": ["x, y", "z"] for n in range(64)},
    }
    check_text(json.dumps(item).encode(), ITEM_VALUES)
    batch = {"upserts": [item] * 150}
    check_text(json.dumps(batch).encode(), BATCH_VALUES)
    row: dict[str, object] = {
        "id": "a",
        "title": "A",
        "categories": ["a", "b"],
        "keywords": ["k"] * 20,
    }
    check_text(
        json.dumps(
            {"upserts": [row | {"attributes": {str(n): n for n in range(40)}}] * 1_000}
        ).encode(),
        BATCH_VALUES,
    )
    history = [{"item_id": f"item {number}", "domain": "d"} for number in range(10_000)]
    asked = {"history": history, "exclude_items": ["x, y"] * 10_000}
    check_text(json.dumps(asked).encode(), RECOMMEND_VALUES)
    with pytest.raises(TooMuch):
        check_text(LISTS, BATCH_VALUES)
