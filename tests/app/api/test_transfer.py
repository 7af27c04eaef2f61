"""Imports, exports and jobs over HTTP."""

import gzip
import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.app.api.support import assert_problem, ended, item_path

JSONL = {"Content-Type": "application/x-ndjson"}


def lines(count: int, start: int = 0) -> bytes:
    rows = (
        {"id": f"i{number}", "title": f"Item {number}", "categories": [f"C{number % 5}"]}
        for number in range(start, start + count)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def exported(api, catalog) -> dict[str, dict]:
    reply = api.get(f"{catalog}/exports/items")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-ndjson")
    rows = [json.loads(line) for line in reply.text.splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def test_what_is_imported_can_be_recommended_and_exported(api, catalog):
    job = ended(api, api.post(f"{catalog}/imports", content=lines(300), headers=JSONL))
    assert (job["state"], job["type"], job["problem"]) == ("succeeded", "import", None)
    assert (job["result"]["accepted"], job["result"]["rejected"]) == (300, 0)
    assert job["finished_at"] >= job["created_at"]
    assert api.get(catalog).json()["items"] == 300
    assert api.post(f"{catalog}/recommend", json={"profile": "Item 7"}).json()["items"]
    assert exported(api, catalog).keys() == {f"i{number}" for number in range(300)}


def test_an_export_can_be_imported_again(api, catalog, films):
    whole = api.get(f"{films}/exports/items").content
    job = ended(api, api.post(f"{catalog}/imports", content=whole, headers=JSONL))
    assert job["result"]["accepted"] == 40
    assert exported(api, catalog) == exported(api, films)


@pytest.mark.parametrize(
    "headers",
    [
        {**JSONL, "Content-Encoding": "gzip"},
        {"Content-Type": "application/gzip"},
        {"Content-Type": "application/octet-stream"},
        JSONL,
    ],
)
def test_an_import_may_be_zipped(api, catalog, headers):
    content = gzip.compress(lines(20))
    job = ended(api, api.post(f"{catalog}/imports", content=content, headers=headers))
    assert job["result"]["accepted"] == 20


def test_an_import_may_come_in_pieces(api, catalog):
    whole = lines(50)
    pieces = iter([whole[start : start + 7] for start in range(0, len(whole), 7)])
    job = ended(api, api.post(f"{catalog}/imports", content=pieces, headers=JSONL))
    assert job["result"]["accepted"] == 50


def test_bad_lines_are_reported_and_sink_nothing(api, catalog):
    bad = [
        b"{",
        b'{"id": "no title"}',
        b'{"id": "a", "title": ""}',
        b'{"id": "a", "title": "x", "extra": 1}',
        b'{"id": "a", "title": "\\ud800"}',
        b'{"id": "a", "title": "\xff"}',
        b'{"id": "a", "title": "\\u0000"}',
        b'{"id": "a", "title": "' + b"x" * 1_200_000 + b'"}',
        b'{"id": "a", "title": "x", "categories": [' + b",".join([b'"c"'] * 200) + b"]}",
        b"[" * 10_000,
        b"[]",
        b"null",
        b"7",
    ]
    content = lines(5) + b"\n\n".join(bad) + b"\n" + lines(5, start=5)
    job = ended(api, api.post(f"{catalog}/imports", content=content, headers=JSONL))
    result = job["result"]
    assert (job["state"], result["accepted"], result["rejected"]) == ("succeeded", 10, len(bad))
    assert [error["line"] for error in result["errors"]] == list(range(6, 6 + 2 * len(bad), 2))
    assert all(error["problem"] for error in result["errors"])
    assert exported(api, catalog).keys() == {f"i{number}" for number in range(10)}


def test_of_two_lines_with_one_id_the_later_stays(api, catalog):
    content = b'{"id": "a", "title": "First"}\n{"id": "a", "title": "Second"}\n'
    ended(api, api.post(f"{catalog}/imports", content=content, headers=JSONL))
    assert api.get(item_path(catalog, "a")).json()["title"] == "Second"
    assert api.get(catalog).json()["items"] == 1


@pytest.mark.parametrize("query", [{"on_error": "abort"}, {"dry_run": True}])
def test_an_import_can_be_all_or_nothing_or_only_a_check(api, catalog, query):
    content = lines(3) + b"nonsense\n"
    reply = api.post(f"{catalog}/imports", content=content, headers=JSONL, params=query)
    job = ended(api, reply)
    assert job["state"] == ("succeeded" if "dry_run" in query else "failed")
    assert (job["result"]["accepted"], job["result"]["rejected"]) == (3, 1)
    assert job["result"]["stored"] is False
    assert exported(api, catalog) == {}


def test_an_empty_import_and_an_empty_export(api, catalog):
    job = ended(api, api.post(f"{catalog}/imports", content=b"", headers=JSONL))
    assert (job["state"], job["result"]["accepted"]) == ("succeeded", 0)
    assert exported(api, catalog) == {}


TAILS = {
    "garbage": (b"garbage\n", "unreadable"),
    "half": (gzip.compress(b"\n" * 9_000)[:-9], "unreadable"),
    "bomb": (gzip.compress(b"\n" * 80_000_000), "unpacked_too_large"),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("on_error", ["skip", "abort"])
def test_a_result_tells_what_stays_of_a_damaged_import(api, catalog, tail, on_error):
    more, code = TAILS[tail]
    content = gzip.compress(lines(60)) + gzip.compress(b"nonsense\n" * (on_error == "skip")) + more
    reply = api.post(
        f"{catalog}/imports", content=content, headers=JSONL, params={"on_error": on_error}
    )
    job = ended(api, reply)
    assert (job["state"], job["problem"]["code"]) == ("failed", code)
    result = job["result"]
    assert (result["accepted"], result["rejected"]) == (60, int(on_error == "skip"))
    assert result["stored"] is (on_error == "skip")
    assert len(exported(api, catalog)) == (60 if result["stored"] else 0)


def test_an_upload_whose_client_hangs_up_leaves_nothing(
    api, catalog, service_url, service_settings
):
    def until(there: bool) -> None:
        deadline = time.monotonic() + 30
        while bool(list(service_settings.uploads.glob("*"))) is not there:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    until(there=False)
    address = urlsplit(service_url)
    head = f"POST {catalog}/imports HTTP/1.1\r\nHost: {address.netloc}\r\n"
    head += "Content-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + lines(100))
        until(there=True)
    until(there=False)
    name = catalog.rpartition("/")[2]
    assert api.get("/v1/jobs", params={"catalog": name}).json()["jobs"] == []


def test_an_import_that_makes_no_sense_is_refused(api, catalog):
    for query in ({"on_error": "ignore"}, {"dry_run": "perhaps"}, {"wait": "true"}):
        reply = api.post(f"{catalog}/imports", content=b"", headers=JSONL, params=query)
        assert_problem(reply, 422, "invalid_request")
    nowhere = api.post("/v1/catalogs/nowhere/imports", content=lines(1), headers=JSONL)
    assert_problem(nowhere, 404, "unknown_catalog")


def test_jobs_are_listed_by_catalogue(api, catalog):
    job = ended(api, api.post(f"{catalog}/imports", content=lines(1), headers=JSONL))
    name = catalog.rpartition("/")[2]
    mine = api.get("/v1/jobs", params={"catalog": name}).json()["jobs"]
    assert [found["id"] for found in mine] == [job["id"]]
    assert job["id"] in {found["id"] for found in api.get("/v1/jobs").json()["jobs"]}
    assert api.get("/v1/jobs", params={"catalog": "nowhere"}).json()["jobs"] == []


def test_a_job_that_has_ended_is_cancelled_no_more(api, catalog):
    job = ended(api, api.post(f"{catalog}/imports", content=lines(1), headers=JSONL))
    assert api.post(f"/v1/jobs/{job['id']}:cancel").json() == job


@pytest.mark.parametrize("job_id", ["nowhere", "claim", "%20", "\U0001f600"])
def test_an_unknown_job_is_a_404(api, job_id):
    assert_problem(api.get(f"/v1/jobs/{job_id}"), 404, "unknown_job")
    assert_problem(api.post(f"/v1/jobs/{job_id}:cancel"), 404, "unknown_job")
