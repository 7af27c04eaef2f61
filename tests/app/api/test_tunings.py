"""Tunings over HTTP."""

from tests.app.api.support import assert_problem, ended, pointers


def test_a_tuning_is_a_job_that_says_when_there_is_too_little_to_learn_from(api, films):
    reply = api.post(f"{films}/tunings", json={"dry_run": True})
    job = ended(api, reply)
    assert (job["type"], job["state"]) == ("tuning", "failed")
    assert job["params"] == {"dry_run": True, "users": 50_000}
    assert job["problem"]["code"] == "too_few_histories"


def test_what_is_no_tuning_is_refused(api, films):
    problem = assert_problem(
        api.post(f"{films}/tunings", json={"users": 0, "strength": 1}), 422, "invalid_request"
    )
    assert set(pointers(problem)) == {"/users", "/strength"}
