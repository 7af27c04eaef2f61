"""What tests of the API ask again and again."""

import time
from urllib.parse import quote

import httpx2

_ENDED = ("succeeded", "failed", "cancelled")
_JOB_S = 60


def item_path(catalog: str, item_id: str) -> str:
    """The path of an item, with every byte of its id quoted."""
    return f"{catalog}/items/{quote(item_id, safe='')}"


def assert_problem(reply: httpx2.Response, status: int, code: str) -> dict:
    """The problem that `reply` is."""
    assert (reply.status_code, reply.headers["content-type"]) == (
        status, "application/problem+json",
    ), reply.text  # fmt: skip
    problem = reply.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in reply.text
    return problem


def pointers(problem: dict) -> list[str]:
    return [flaw["pointer"] for flaw in problem["errors"]]


def ended(api: httpx2.Client, started: httpx2.Response) -> dict:
    """The job that a 202 began, at its end."""
    assert started.status_code == 202, started.text
    assert started.headers["location"] == f"/v1/jobs/{started.json()['id']}"
    deadline = time.monotonic() + _JOB_S
    while True:
        job = api.get(started.headers["location"]).json()
        if job["state"] in _ENDED:
            return job
        assert time.monotonic() < deadline, f"the job does not end: {job}"
        time.sleep(0.02)
