"""What is deleted, hidden or expired is gone from the very next request on another replica."""

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import httpx2
import pytest

from app.settings import Settings
from tests.app.api.support import assert_problem, delete_catalog, served
from tests.app.recommend.with_model.support import sensible
from tests.servers.hostile import MODEL, Behaviour, HostileServer

PATH = "/v1/catalogs/default"
FILMS = 200
WAIT_S = 20
KINDS = (("Space", "a ship between distant stars"), ("Love", "two people in one small town"))


@dataclass(frozen=True)
class Pair:
    """Two services over one store: what is written here is read there."""

    here: httpx2.Client
    there: httpx2.Client


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, embedded_url: str, _hostile_server: HostileServer
) -> Iterator[Pair]:
    """Two services that ask one model and keep its answers, over a catalogue of films."""
    prefix = f"test-{token_hex(6)}"

    def settings(name: str) -> Settings:
        return Settings(
            data_dir=tmp_path_factory.mktemp(name),
            redis_url=embedded_url,
            key_prefix=prefix,
            llm_base_url=_hostile_server.base_url,
            llm_api_key="key",
            llm_model=MODEL,
            llm_reply_mode="json_schema",
            llm_labels=False,
            llm_examination=False,
            slate_cache_ttl_s=600,
        )

    films = [
        {
            "id": f"f{number}",
            "title": f"Film {number} of {KINDS[number % 2][0]}",
            "description": KINDS[number % 2][1],
            "categories": [KINDS[number % 2][0]],
            "domain": "films",
        }
        for number in range(FILMS)
    ]
    with (
        served(settings("here")) as here_url,
        served(settings("there")) as there_url,
        httpx2.Client(base_url=here_url, timeout=30) as here,
        httpx2.Client(base_url=there_url, timeout=30) as there,
    ):
        written = here.post(f"{PATH}/items:batch", json={"upserts": films})
        assert {row["status"] for row in written.json()["results"]} == {"created"}
        until_rebuilt(here)
        yield Pair(here, there)
        assert delete_catalog(here, PATH).status_code == 204


def until_rebuilt(api: httpx2.Client) -> None:
    """Until the first build of the tree, which so many items set off, is over."""
    deadline = time.monotonic() + WAIT_S
    while not any(job["state"] == "succeeded" for job in api.get("/v1/jobs").json()["jobs"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def hostile(pair: Pair, hostile_server: HostileServer) -> HostileServer:
    hostile_server.reset()
    hostile_server.content = sensible
    return hostile_server


# -- how an item leaves


def deleted(api: httpx2.Client, item_id: str) -> None:
    assert api.delete(f"{PATH}/items/{item_id}").status_code == 204


def hidden(api: httpx2.Client, item_id: str) -> None:
    assert api.patch(f"{PATH}/items/{item_id}", json={"hidden": True}).status_code == 200


def expired(api: httpx2.Client, item_id: str) -> None:
    past = {"expires_at": "2001-01-01T00:00:00Z"}
    assert api.patch(f"{PATH}/items/{item_id}", json=past).status_code == 200


every_way = pytest.mark.parametrize("leave", [deleted, hidden, expired])
Leave = Callable[[httpx2.Client, str], None]

# -- where it could be seen


def reader(**more: Any) -> dict[str, object]:
    """A request like no other; asked twice it gets the same answer while nothing changes."""
    return {
        "history": [{"item_id": "f0"}, {"item_id": "f1"}],
        "instruction": f"stars for {token_hex(4)}",
        "limit": 8,
        **more,
    }


def recommended(api: httpx2.Client, request: dict[str, object]) -> list[str]:
    reply = api.post(f"{PATH}/recommend", json=request)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    shown = [item["item_id"] for item in answer["items"]]
    trace = api.get(f"{PATH}/recommendations/{answer['recommendation_id']}").json()
    assert [item["item_id"] for item in trace["items"]] == shown
    assert len(shown) == request["limit"]
    return shown


def streamed(api: httpx2.Client, request: dict[str, object]) -> list[str]:
    with api.stream("POST", f"{PATH}/recommend/stream", json=request) as reply:
        lines = list(reply.iter_lines())
    assert "event: done" in lines
    told = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
    return [data["item_id"] for data in told if "item_id" in data]


Ask = Callable[[httpx2.Client, dict[str, object]], list[str]]
every_answer = pytest.mark.parametrize("ask", [recommended, streamed])


def warmed(
    api: httpx2.Client, request: dict[str, object], ask: Ask, hostile: HostileServer
) -> list[str]:
    """The answer, once it comes from what the model has said before."""
    deadline = time.monotonic() + WAIT_S
    while True:
        ask(api, request)
        asked = hostile.counts.total()
        shown = ask(api, request)
        if hostile.counts.total() == asked:
            return shown
        assert time.monotonic() < deadline, "every answer is asked for anew"


def similar(api: httpx2.Client, item_id: str) -> list[str]:
    reply = api.get(f"{PATH}/similar", params={"item_id": item_id, "limit": 10})
    assert reply.status_code == 200, reply.text
    return [item["item_id"] for item in reply.json()["items"]]


def listed(api: httpx2.Client, **query: Any) -> tuple[list[dict], str]:
    page = api.get(f"{PATH}/items", params={"limit": 100, **query}).json()
    return page["items"], page["next_cursor"]


# -- the next request


@every_way
@every_answer
@pytest.mark.parametrize("strategy", ["beam", "embedded"])
def test_the_next_answer_is_without_it(
    pair: Pair, hostile: HostileServer, leave: Leave, ask: Ask, strategy: str
) -> None:
    request = reader(strategy=strategy)
    before = warmed(pair.there, request, ask, hostile)
    assert (hostile.counts.total() > 0) == (strategy == "beam")
    leave(pair.here, before[0])
    after = ask(pair.there, request)
    assert before[0] not in after
    assert len(after) == len(before)


@every_way
@every_answer
def test_an_answer_without_the_model_is_without_it(
    pair: Pair, hostile: HostileServer, leave: Leave, ask: Ask
) -> None:
    request = reader(effort="economy")
    first = ask(pair.there, request)[0]
    leave(pair.here, first)
    hostile.play([Behaviour.OUT_OF_QUOTA])
    assert first not in ask(pair.there, request)
    assert hostile.counts[Behaviour.OUT_OF_QUOTA] == 1


def stays(api: httpx2.Client, item_id: str) -> None:
    """It does not leave: to see that it would have been in the answer."""


@pytest.mark.parametrize("leave", [stays, deleted, hidden, expired])
@every_answer
def test_an_answer_under_way_is_without_it(
    pair: Pair, hostile: HostileServer, leave: Leave, ask: Ask
) -> None:
    """It has its version of the tree, and the item on its slates, when the item leaves."""
    offered: queue.Queue[str] = queue.Queue()
    go = threading.Event()

    def in_no_hurry(prompt: str) -> str:
        first = re.match(r"Items:\n1\. Film (\d+) of", prompt)
        if first and not go.is_set():
            offered.put(f"f{first[1]}")
            assert go.wait(WAIT_S)
        return sensible(prompt)

    hostile.content = in_no_hurry
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(ask, pair.there, reader(effort="economy"))
        try:
            favourite = offered.get(timeout=WAIT_S)
            leave(pair.here, favourite)
        finally:
            go.set()
        assert (favourite in answer.result(WAIT_S)) == (leave is stays)


@every_way
def test_no_neighbour_of_an_item_is_it(pair: Pair, hostile: HostileServer, leave: Leave) -> None:
    subject, *_ = recommended(pair.there, reader(strategy="embedded"))
    nearest = similar(pair.there, subject)[0]
    leave(pair.here, nearest)
    assert nearest not in similar(pair.there, subject)


@every_way
def test_who_is_gone_has_no_neighbours(pair: Pair, hostile: HostileServer, leave: Leave) -> None:
    subject, *_ = recommended(pair.there, reader(strategy="embedded"))
    assert similar(pair.there, subject)
    leave(pair.here, subject)
    reply = pair.there.get(f"{PATH}/similar", params={"item_id": subject})
    problem = assert_problem(reply, 404, "unknown_item")
    assert problem["detail"] == (f"there is no item '{subject}', or it is hidden or expired")


def test_a_deleted_item_is_nowhere(pair: Pair, hostile: HostileServer) -> None:
    items, _ = listed(pair.there, limit=20)
    *_, before, first, second, third, fourth = [item["id"] for item in items]
    _, cursor = listed(pair.there, limit=16)
    assert listed(pair.there, cursor=cursor, limit=1)[0][0]["id"] == first, before
    deleted(pair.here, first)
    assert first not in [item["id"] for item in listed(pair.there, cursor=cursor)[0]]
    deleted(pair.here, second)
    assert f'"{second}"' not in pair.there.get(f"{PATH}/exports/items").text
    deleted(pair.here, third)
    assert pair.there.get(f"{PATH}/items/{third}").status_code == 404
    deleted(pair.here, fourth)
    assert pair.there.get(f"{PATH}/similar?item_id={fourth}").status_code == 404


@pytest.mark.parametrize("leave", [hidden, expired])
def test_what_only_may_not_be_shown_is_still_listed_as_such(
    pair: Pair, hostile: HostileServer, leave: Leave
) -> None:
    """The lists are for who curates."""
    gone = recommended(pair.there, reader(strategy="embedded"))[0]
    leave(pair.here, gone)
    record = pair.there.get(f"{PATH}/items/{gone}").json()
    assert record.get("hidden") or record["expires_at"] == "2001-01-01T00:00:00Z"
    assert record in listed(pair.there, q=record["title"])[0]
    assert json.dumps(gone) in pair.there.get(f"{PATH}/exports/items").text


@every_answer
def test_an_item_leaves_by_itself_when_its_time_has_come(
    pair: Pair, hostile: HostileServer, ask: Ask
) -> None:
    request = reader(strategy="embedded")
    first = ask(pair.there, request)[0]
    end = datetime.now(UTC) + timedelta(seconds=1.5)
    dated = pair.here.patch(f"{PATH}/items/{first}", json={"expires_at": end.isoformat()})
    assert dated.status_code == 200
    seen = 0
    deadline = time.monotonic() + WAIT_S
    while True:
        asked_at = datetime.now(UTC)
        there = first in ask(pair.there, request)
        seen += there
        assert not there or asked_at < end
        if asked_at > end:
            break
        assert time.monotonic() < deadline
    assert seen, "it was there until then"


def test_a_user_who_is_stored_just_after_the_catalogue_went_does_not_come_back_with_it(pair):
    path = "/v1/catalogs/brief"
    user = {"history": ["a"], "profile": "likes sand"}
    assert pair.here.put(path).status_code == 201
    assert pair.there.put(f"{path}/users/early", json=user).status_code == 200
    assert delete_catalog(pair.here, path).status_code == 204
    assert_problem(pair.there.put(f"{path}/users/late", json=user), 404, "unknown_catalog")
    assert pair.here.put(path).status_code == 201
    for name in ("early", "late"):
        assert_problem(pair.here.get(f"{path}/users/{name}"), 404, "unknown_user")
