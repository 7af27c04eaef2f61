"""Recommendations of a service that asks a model, over HTTP and as a stream."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx2
import pytest

from app.llm import ModelRejected
from app.main import create_app
from app.settings import Settings
from tests.app.api.modelled import CATALOG, with_model
from tests.app.api.support import assert_problem, pointers, served
from tests.app.recommend.with_model.support import TITLES, sensible
from tests.servers import llama
from tests.servers.hostile import MODEL, Behaviour, HostileServer
from tree.item import Item

HISTORY = [{"item_id": "book-dune"}, {"item_id": "film-solaris"}, {"item_id": "film-cabaret"}]
_BACK_S = 60
_WAIT_S = 10


@contextmanager
def client_of(settings: Settings) -> Iterator[httpx2.Client]:
    with served(settings) as url, httpx2.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def modelled(
    tmp_path_factory: pytest.TempPathFactory,
    embedded_url: str,
    _hostile_server: HostileServer,
    demo_items: list[Item],
) -> Iterator[httpx2.Client]:
    """A service over the hostile server, whose default catalogue is the bundled one."""
    settings = with_model(
        tmp_path_factory.mktemp("modelled"),
        embedded_url,
        _hostile_server.base_url,
        llm_prices={MODEL: {"input": 2.0, "output": 8.0}},
    )
    with client_of(settings) as client:
        upserts = [item.model_dump(mode="json", exclude_defaults=True) for item in demo_items]
        reply = client.post(f"{CATALOG}/items:batch", json={"upserts": upserts})
        assert {row["status"] for row in reply.json()["results"]} == {"created"}
        yield client


@pytest.fixture
def hostile(hostile_server: HostileServer) -> HostileServer:
    hostile_server.reset()  # without what a start has asked
    hostile_server.content = sensible
    return hostile_server


def events(reply: httpx2.Response) -> Iterator[tuple[str, dict]]:
    """The events of a stream, as they come."""
    name = ""
    for line in reply.iter_lines():
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            yield name, json.loads(line.removeprefix("data:"))


def streamed(client: httpx2.Client, **request: Any) -> list[tuple[str, dict]]:
    with client.stream("POST", f"{CATALOG}/recommend/stream", json=request) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        return list(events(reply))


def trace_of(client: httpx2.Client, recommendation_id: str) -> dict:
    """The trace, once it is there: one of an answer that nobody waited for may take a moment."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        reply = client.get(f"{CATALOG}/recommendations/{recommendation_id}")
        if reply.status_code == 200:
            return reply.json()
        assert time.monotonic() < deadline, reply.text
        time.sleep(0.02)


def user() -> str:
    return f"user-{token_hex(4)}"


def test_a_stream_tells_what_happens_in_its_order(
    modelled: httpx2.Client, hostile: HostileServer
) -> None:
    wish = f"something for {user()}"
    told = streamed(modelled, history=HISTORY, instruction=wish, strategy="walk", limit=7)
    names = [name for name, _ in told]
    nodes = names.count("node")
    assert nodes > 0
    assert sorted(names[1 : 2 + nodes]) == [*["node"] * nodes, "profile"]
    assert [names[0], *names[2 + nodes :]] == [
        "start", "candidates", *["item"] * 7, "usage", "done",
    ]  # fmt: skip
    by_name = dict(told)
    done, start = by_name["done"], by_name["start"]
    assert start["recommendation_id"] == done["recommendation_id"]
    assert start["task"] == "recommend"
    assert by_name["profile"]["by"] == "model"
    assert by_name["profile"]["expected"] == TITLES
    assert all(data["label"] and data["items"] for name, data in told if name == "node")
    assert by_name["candidates"]["count"] > 50
    items = [data for name, data in told if name == "item"]
    assert [item["rank"] for item in items] == list(range(1, 8))
    assert len({item["item_id"] for item in items}) == 7
    assert "items" not in done
    assert done["usage"] == by_name["usage"]
    assert done["usage"]["calls"] == hostile.counts.total()
    assert (done["degraded"], done["degraded_reason"]) == (False, None)

    plain = modelled.post(
        f"{CATALOG}/recommend", json={"history": HISTORY, "instruction": wish, "limit": 7}
    ).json()
    assert plain["usage"]["stages"]["profile"]["calls"] == 0  # remembered from the stream
    assert len(plain["items"]) == 7


def test_what_the_owner_says_is_in_the_next_prompt(
    modelled: httpx2.Client, hostile: HostileServer
) -> None:
    said = {"guidance": "A small shop.", "objective": "Prefer old films."}
    request = {"history": HISTORY, "effort": "economy"}
    for patch in (said, {"guidance": None, "objective": None}):
        modelled.patch(CATALOG, json=patch)
        modelled.post(f"{CATALOG}/recommend", json=request)
        sent = json.dumps(hostile.requests[-1])
        assert all((words in sent) == (patch is said) for words in said.values())


def test_a_stream_without_a_walk_names_the_interests_all_the_same(
    modelled: httpx2.Client, hostile: HostileServer
) -> None:
    names = [name for name, _ in streamed(modelled, history=HISTORY, effort="economy", limit=2)]
    assert names == ["start", "profile", "candidates", "item", "item", "usage", "done"]
    names = [name for name, _ in streamed(modelled, strategy="embedded", limit=2)]
    assert names == ["start", "item", "item", "usage", "done"]


def test_an_invalid_body_is_no_stream(modelled: httpx2.Client, hostile: HostileServer) -> None:
    refused = modelled.post(f"{CATALOG}/recommend/stream", json={"limit": 0})
    assert pointers(assert_problem(refused, 422, "invalid_request")) == ["/limit"]
    unknown = modelled.post("/v1/catalogs/nowhere/recommend/stream", json={})
    assert_problem(unknown, 404, "unknown_catalog")
    assert hostile.counts.total() == 0


def test_a_key_that_is_rejected_after_it_has_worked_degrades_answers(
    modelled: httpx2.Client, hostile: HostileServer
) -> None:
    for behaviour, reason in ((Behaviour.UNAUTHORIZED, "401"), (Behaviour.UNKNOWN_MODEL, "404")):
        request = {"history": HISTORY, "instruction": user(), "limit": 5}
        hostile.play(repeat(behaviour))
        answer = modelled.post(f"{CATALOG}/recommend", json=request).json()
        assert (answer["degraded_reason"], len(answer["items"])) == ("llm_unavailable", 5)
        *_, (name, done) = streamed(modelled, **request)
        assert (name, done["degraded_reason"]) == ("done", "llm_unavailable")
        metrics = modelled.get("/metrics").text
        assert f'unillmrec_llm_failures_total{{model="{MODEL}",reason="{reason}"}}' in metrics
        hostile.reset()
        hostile.content = sensible
        began = time.monotonic()
        while reason_of(modelled, request) == "llm_unavailable":  # a pause after failures
            assert time.monotonic() - began < _BACK_S, "the model is not asked again"
            time.sleep(0.1)


def reason_of(client: httpx2.Client, request: dict[str, Any]) -> str | None:
    reason: str | None = client.post(f"{CATALOG}/recommend", json=request).json()["degraded_reason"]
    return reason


def test_a_lesser_answer_is_marked_or_refused(
    modelled: httpx2.Client, hostile: HostileServer
) -> None:
    request = {"history": HISTORY, "instruction": user(), "effort": "economy", "limit": 9}
    hostile.play([Behaviour.OUT_OF_QUOTA])
    answer = modelled.post(f"{CATALOG}/recommend", json=request).json()
    assert (answer["degraded"], answer["degraded_reason"]) == (True, "llm_unavailable")
    assert len({item["item_id"] for item in answer["items"]}) == 9

    hostile.play([Behaviour.OUT_OF_QUOTA])
    strict = {**request, "on_degraded": "error"}
    refused = modelled.post(f"{CATALOG}/recommend", json=strict)
    assert_problem(refused, 503, "degraded")
    assert refused.headers["retry-after"]
    hostile.play([Behaviour.OUT_OF_QUOTA])
    (_, start), *_, (name, problem) = streamed(modelled, **strict)
    assert (name, problem["code"], problem["status"]) == ("error", "degraded", 503)
    trace = trace_of(modelled, start["recommendation_id"])
    assert trace["outcome"] == "AnswerDegraded"
    assert trace["degraded_reason"] == "llm_unavailable"

    poor = modelled.post(f"{CATALOG}/recommend", json={**request, "max_cost_usd": 1e-6}).json()
    assert (poor["degraded_reason"], poor["usage"]["calls"]) == ("budget", 0)
    assert len(poor["items"]) == 9


def test_who_hangs_up_stops_the_calls_and_what_was_spent_is_kept(
    modelled: httpx2.Client, hostile: HostileServer
) -> None:
    hostile.play([Behaviour.WELL_FORMED, *repeat(Behaviour.HANG, 20)])
    request = {"history": HISTORY, "instruction": user(), "timeout_ms": 60_000}
    began = time.monotonic()
    with modelled.stream("POST", f"{CATALOG}/recommend/stream", json=request) as reply:
        told = events(reply)
        name, start = next(told)
        assert name == "start"
        while next(told)[0] != "candidates":
            pass
        while hostile.counts[Behaviour.HANG] == 0:
            assert time.monotonic() - began < _WAIT_S
            time.sleep(0.01)
    trace = trace_of(modelled, start["recommendation_id"])
    assert time.monotonic() - began < _WAIT_S
    assert trace["outcome"] == "CancelledError"
    assert "items" not in trace
    outcomes = [call["outcome"] for call in trace["calls"]]
    assert outcomes[0] == "answered"
    assert outcomes[1:] == ["cancelled"] * hostile.counts[Behaviour.HANG]
    assert trace["usage"]["calls"] == len(outcomes) == hostile.counts.total()
    assert trace["usage"]["stages"]["profile"]["output_tokens"] > 0
    assert trace["usage"]["cost_usd"] > 0


@pytest.mark.parametrize("batched", [False, True])
def test_who_hangs_up_without_a_stream_stops_the_calls_too(
    modelled: httpx2.Client, hostile: HostileServer, *, batched: bool
) -> None:
    hostile.play([Behaviour.WELL_FORMED, *repeat(Behaviour.HANG, 20)])
    request = {"history": HISTORY, "instruction": user(), "timeout_ms": 60_000}
    path, body = ("recommend:batch", {"requests": [request]}) if batched else ("recommend", request)
    with pytest.raises(httpx2.ReadTimeout):
        modelled.post(f"{CATALOG}/{path}", json=body, timeout=2)
    assert hostile.counts[Behaviour.HANG] > 0
    began = time.monotonic()
    while hostile.hanging:
        assert time.monotonic() - began < _WAIT_S, "the model is asked for nobody"
        time.sleep(0.01)


def test_a_request_that_hangs_is_answered_in_time(
    modelled: httpx2.Client, hostile: HostileServer
) -> None:
    hostile.play(repeat(Behaviour.HANG, 20))
    began = time.monotonic()
    request = {"history": HISTORY, "instruction": user(), "timeout_ms": 1_000, "limit": 50}
    answer = modelled.post(f"{CATALOG}/recommend", json=request).json()
    assert time.monotonic() - began < 1 + 0.25
    assert (answer["degraded_reason"], len(answer["items"])) == ("llm_timeout", 50)


def test_the_trace_tells_of_every_call(modelled: httpx2.Client, hostile: HostileServer) -> None:
    hostile.play([Behaviour.WELL_FORMED, Behaviour.EMPTY, Behaviour.BUSY_RETRY_SOON])
    request = {"history": HISTORY, "instruction": user(), "user_id": "u1", "scenario": "home"}
    request |= {"strategy": "walk"}
    answer = modelled.post(f"{CATALOG}/recommend", json=request).json()
    trace = trace_of(modelled, answer["recommendation_id"])
    assert (trace["outcome"], trace["user_id"], trace["scenario"]) == ("done", "u1", "home")
    assert (trace["strategy"], trace["effort"]) == ("walk", "auto")
    assert trace["reply_mode"] == "json_schema"
    assert trace["perspective"] == "interest"
    assert trace["usage"] == answer["usage"]
    assert trace["nodes"]
    assert all({"node", "label", "items", "score"} == node.keys() for node in trace["nodes"])
    assert trace["candidates"] > 50
    assert [item["item_id"] for item in trace["items"]] == [
        item["item_id"] for item in answer["items"]
    ]
    calls = trace["calls"]
    assert len(calls) == answer["usage"]["calls"] == hostile.counts.total()
    assert {call["model"] for call in calls} == {MODEL}
    assert {call["form"] for call in calls} == {"JsonSchema"}
    assert calls[0]["stage"] == "profile"
    assert all(call["duration_ms"] > 0 for call in calls)
    assert sum(call["outcome"] == "answered" for call in calls) == len(calls) - 1
    assert sum(call["outcome"].startswith("ModelUnavailable") for call in calls) == 1
    assert answer["usage"]["stages"]["search"]["invalid_replies"] == {"wrong_format": 1}
    assert not answer["degraded"]


def test_many_readers_at_once(modelled: httpx2.Client, hostile: HostileServer) -> None:
    def one(number: int) -> dict:
        request = {"history": HISTORY, "instruction": f"{user()} {number}", "max_cost_usd": 0.02}
        return modelled.post(f"{CATALOG}/recommend", json=request).json()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(24)))
    assert all(len({item["item_id"] for item in answer["items"]}) == 10 for answer in answers)
    assert all(answer["usage"]["cost_usd"] <= 0.02 for answer in answers)
    assert sum(answer["usage"]["calls"] for answer in answers) == hostile.counts.total()


@pytest.mark.parametrize("mode", ["auto", "json_schema"])
async def test_a_rejected_key_stops_the_start(
    tmp_path: Path, embedded_url: str, hostile: HostileServer, mode: str
) -> None:
    for behaviour in (Behaviour.UNAUTHORIZED, Behaviour.UNKNOWN_MODEL):
        hostile.play(repeat(behaviour))
        settings = with_model(tmp_path, embedded_url, hostile.base_url, llm_reply_mode=mode)
        app = create_app(settings)
        with pytest.raises(ModelRejected, match=r"40[14]"):
            async with app.router.lifespan_context(app):
                pass


def test_an_outage_does_not_stop_the_start(
    tmp_path: Path, embedded_url: str, hostile: HostileServer
) -> None:
    hostile.play([Behaviour.UNAVAILABLE] * 2)  # the start, and the first request
    settings = with_model(tmp_path, embedded_url, hostile.base_url)
    with client_of(settings) as client:
        for number in range(8):
            client.put(f"{CATALOG}/items/i{number}", json={"title": f"Ship number {number}"})
        request = {"profile": "ships", "limit": 5}
        answer = client.post(f"{CATALOG}/recommend", json=request).json()
        assert (answer["degraded_reason"], len(answer["items"])) == ("llm_unavailable", 5)
        back = client.post(f"{CATALOG}/recommend", json=request).json()
        assert (back["degraded"], len(back["items"])) == (False, 5)


def test_a_real_server_through_the_real_service(
    tmp_path: Path, embedded_url: str, llama_url: str
) -> None:
    settings = with_model(tmp_path, embedded_url, llama_url, llama.MODEL)
    with client_of(settings) as client:
        for number in range(30):
            title = {"title": f"Ship number {number}", "categories": [f"Sea {number % 3}"]}
            client.put(f"{CATALOG}/items/i{number}", json=title)
        told = streamed(client, history=[{"item_id": "i3"}], limit=29, timeout_ms=30_000)
        items = {data["item_id"] for name, data in told if name == "item"}
        assert items == {f"i{number}" for number in range(30)} - {"i3"}
        name, done = told[-1]
        assert (name, bool(done["usage"]["calls"])) == ("done", True)
        trace = trace_of(client, done["recommendation_id"])
        assert trace["reply_mode"] == "json_schema"
        assert {call["outcome"] for call in trace["calls"]} == {"answered"}
