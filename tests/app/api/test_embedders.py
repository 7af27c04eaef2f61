"""A service whose catalogues are embedded by an endpoint, while that answers and while not."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx2
import pytest

from app.composition import ServiceTimes
from app.embedders import EndpointTimes
from app.main import create_app
from app.settings import Settings
from tests.app.api.support import (
    assert_problem,
    delete_catalog,
    ended,
    item_path,
    pointers,
    served,
)
from tests.servers.hostile import MODEL, Behaviour, HostileServer
from tree.errors import EmbedderUnusable
from tree.item import Item

CATALOG = "/v1/catalogs/default"
HISTORY = [{"item_id": "book-dune"}, {"item_id": "film-solaris"}]
KEY = "sk-a-secret"
JSONL = {"content-type": "application/x-ndjson"}
OPENAI = f"openai:{MODEL}"
TIMES = ServiceTimes(start_s=1.0, embeddings=EndpointTimes(pause_s=0.5))
_WAIT_S = 30


@contextmanager
def client_of(settings: Settings) -> Iterator[httpx2.Client]:
    with served(settings, times=TIMES) as url, httpx2.Client(base_url=url, timeout=60) as client:
        yield client


def metric(client: httpx2.Client, name: str) -> float:
    """The figure of a metric of the embedder."""
    text = client.get("/metrics").text
    [line] = [line for line in text.splitlines() if line.startswith(f'{name}{{model="{MODEL}"}} ')]
    return float(line.split()[-1])


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, embedded_url: str, _hostile_server: HostileServer
) -> Settings:
    return Settings(
        data_dir=tmp_path_factory.mktemp("embedded"),
        redis_url=embedded_url,
        key_prefix=f"test-{token_hex(6)}",
        embedder=OPENAI,
        embedder_base_url=_hostile_server.base_url,
        embedder_api_key=KEY,
        embedder_timeout_s=1.0,
    )


@pytest.fixture(scope="module")
def api(
    settings: Settings, _hostile_server: HostileServer, demo_items: list[Item]
) -> Iterator[httpx2.Client]:
    """The bundled catalogue, imported and so built."""
    _hostile_server.reset()
    with client_of(settings) as client:
        lines = b"\n".join(item.record() for item in demo_items)
        job = ended(client, client.post(f"{CATALOG}/imports", content=lines, headers=JSONL))
        assert job["state"] == "succeeded", job
        yield client


@pytest.fixture
def hostile(hostile_server: HostileServer, api: httpx2.Client) -> Iterator[HostileServer]:
    """Afterwards the endpoint is back for the service, too."""
    yield hostile_server
    hostile_server.reset()
    until(lambda: not asked(api, instruction=f"words {token_hex(4)}")["degraded"])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def asked(api: httpx2.Client, **request: Any) -> dict:
    reply = api.post(f"{CATALOG}/recommend", json=request)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ids(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def new_item(title: str = "A tale of dunes") -> tuple[str, dict]:
    """One whose text nobody has read before."""
    name = f"new-{token_hex(4)}"
    return item_path(CATALOG, name), {"title": f"{title} {name}", "domain": "books"}


# -- while it answers


def test_words_are_found_by_the_endpoint(api, hostile):
    path, item = new_item("Zyxomma and the quokka")
    assert api.put(path, json=item).status_code == 201
    assert api.patch(path, json={"keywords": ["wombat"]}).status_code == 200
    answer = asked(api, instruction="quokka wombat zyxomma", limit=1)
    assert ids(answer) == [path.rpartition("/")[2]]
    assert not answer["degraded"]
    sent = [text for body in hostile.requests for text in body["input"]]
    assert "quokka wombat zyxomma" in sent
    assert hostile.keys == {KEY}


def test_a_write_whose_catalog_is_deleted_under_it_is_told_so(api, hostile, demo_items):
    brief = f"/v1/catalogs/brief-{token_hex(4)}"
    assert api.put(brief).status_code == 201
    lines = b"\n".join(item.record() for item in demo_items)
    ended(api, api.post(f"{brief}/imports", content=lines, headers=JSONL))  # and so embedded
    hostile.counts.clear()
    hostile.together = 2
    with ThreadPoolExecutor(1) as other:
        put = other.submit(api.put, item_path(brief, "late"), json={"title": "Late"})
        until(lambda: hostile.counts.total() == 1)
        assert delete_catalog(api, brief).status_code == 204
        assert not asked(api, instruction="both texts are embedded now")["degraded"]
        assert_problem(put.result(), 404, "unknown_catalog")


def test_all_words_of_a_request_are_one_call(api, hostile):
    title, wish = f"Title {token_hex(4)}", f"wish {token_hex(4)}"
    answer = asked(api, history=[{"title": title}], instruction=wish)
    assert not answer["degraded"]
    sent = [body["input"] for body in hostile.requests]
    texts = [texts for texts in sent if {title, wish} & set(texts)]
    assert texts == [[title, wish]]


def test_metrics_count_what_the_endpoint_was_asked_for(api, hostile):
    before = [metric(api, f"unillmrec_embedder_{name}_total") for name in ("texts", "tokens")]
    api.put(item_path(CATALOG, "counted"), json={"title": "three words here"})
    after = [metric(api, f"unillmrec_embedder_{name}_total") for name in ("texts", "tokens")]
    sent = [text for body in hostile.requests for text in body["input"]]
    assert after[0] - before[0] == len(sent) > 0
    assert after[1] - before[1] == sum(len(text.split()) for text in sent)
    assert metric(api, "unillmrec_embedder_cost_usd_total") == 0  # no price is set


def test_history_alone_asks_nobody(api, hostile):
    assert ids(asked(api, history=HISTORY))
    assert not hostile.counts


def test_a_catalogue_gets_what_is_offered_and_nothing_else(api):
    assert api.get(CATALOG).json()["settings"]["embedder"] == OPENAI
    for asked_for in (None, OPENAI, "lexical"):
        body = {} if asked_for is None else {"embedder": asked_for}
        path = f"/v1/catalogs/test-{token_hex(4)}"
        made = api.put(path, json=body)
        assert made.status_code == 201
        assert made.json()["settings"]["embedder"] == (asked_for or OPENAI)
        assert api.put(path, json=body).status_code == 200
        assert delete_catalog(api, path).status_code == 204
    for refused in ("sentence-transformers:/etc", "openai:other", "openai", "lexical:x", ""):
        path = f"/v1/catalogs/test-{token_hex(4)}"
        problem = assert_problem(api.put(path, json={"embedder": refused}), 422, "invalid_request")
        assert pointers(problem) == ["/embedder"]
        assert OPENAI in problem["errors"][0]["message"]
        assert api.get(path).status_code == 404
    other = api.put(CATALOG, json={"embedder": "lexical"})
    assert_problem(other, 409, "settings_fixed")


def texts_sent(hostile: HostileServer) -> list[str]:
    return [text for body in hostile.requests for text in body["input"]]


def test_items_of_one_text_cost_one_text_and_those_that_keep_theirs_none(api, hostile):
    name = token_hex(4)
    rows = [{"id": f"row-{n}-{name}", "title": f"A title {name}"} for n in range(20)]
    assert api.post(f"{CATALOG}/items:batch", json={"upserts": rows}).status_code == 200
    assert texts_sent(hostile).count(f"A title {name} ") == 1
    before = len(hostile.requests)
    again = [{**row, "popularity": 2.0} for row in rows]
    assert api.post(f"{CATALOG}/items:batch", json={"upserts": again}).status_code == 200
    assert len(hostile.requests) == before
    answer = asked(api, instruction=f"A title {name}", limit=5, fold=False)
    assert all(found.endswith(name) for found in ids(answer))


# -- while it does not


def test_what_keeps_its_text_is_written_without_it(api, hostile):
    path, item = new_item()
    assert api.put(path, json=item).status_code == 201
    hostile.play(repeat(Behaviour.UNAUTHORIZED))
    imported = item_path(CATALOG, "film-alien")
    assert api.patch(imported, json={"hidden": False}).status_code == 200
    assert api.patch(path, json={"hidden": True}).status_code == 200
    assert api.put(path, json={**item, "popularity": 3.0}).status_code in (200, 204)
    assert_problem(api.patch(path, json={"title": token_hex(4)}), 503, "embedder_unavailable")
    assert api.delete(path).status_code == 204


def test_an_import_that_breaks_off_keeps_what_it_has_read(api, hostile, demo_items):
    catalog = f"/v1/catalogs/test-{token_hex(4)}"
    assert api.put(catalog, json={}).status_code == 201

    def imported(records: Iterable[bytes]) -> dict:
        lines = b"\n".join(records)
        return ended(api, api.post(f"{catalog}/imports", content=lines, headers=JSONL))

    assert imported(item.record() for item in demo_items)["state"] == "succeeded"
    more = [item.model_copy(update={"id": f"n{n}", "title": f"{item.title} {n}"})
            for n, item in enumerate(demo_items[:600])]  # fmt: skip
    hostile.reset()
    hostile.play(chain(repeat(Behaviour.WELL_FORMED, 2), repeat(Behaviour.OUT_OF_QUOTA)))
    assert imported(item.record() for item in more)["problem"]["code"] == "embedder_unavailable"
    kept = api.get(catalog).json()["items"] - len(demo_items)
    assert 0 < kept < len(more)
    hostile.reset()
    assert imported([b'{"id": "last", "title": "The last"}'])["state"] == "succeeded"
    assert api.get(catalog).json()["items"] == len(demo_items) + len(more) + 1
    sent = [text for text in texts_sent(hostile) if "quick brown fox" not in text]  # the probe
    assert len(sent) == len(more) - kept + 1
    assert delete_catalog(api, catalog).status_code == 204


@pytest.mark.parametrize("behaviour", [Behaviour.BROKEN, Behaviour.HANG, Behaviour.UNAUTHORIZED])
def test_without_it_an_answer_is_that_of_the_history(api, hostile, behaviour):
    plain = asked(api, history=HISTORY)
    hostile.play(repeat(behaviour))
    began = time.monotonic()
    words = {"instruction": token_hex(6), "profile": token_hex(6)}  # words that no item has
    answer = asked(api, history=[*HISTORY, {"title": token_hex(6)}], **words)
    assert time.monotonic() - began < 3
    assert ids(answer)[0] == ids(plain)[0]  # a wish lessens the weight of the history's words
    assert len(set(ids(answer)) & set(ids(plain))) > len(ids(plain)) / 2
    assert (answer["degraded"], answer["degraded_reason"]) == (True, "embedder_unavailable")
    trace = api.get(f"{CATALOG}/recommendations/{answer['recommendation_id']}").json()
    assert trace["items"]


def test_words_alone_get_what_nobody_gets_who_says_nothing(api, hostile):
    nothing = asked(api)
    hostile.play(repeat(Behaviour.BROKEN))
    answer = asked(api, instruction=token_hex(6))  # a word that no item has
    assert ids(answer) == ids(nothing)
    assert answer["degraded_reason"] == "embedder_unavailable"


def test_who_wants_no_answer_without_it_gets_none(api, hostile):
    hostile.play(repeat(Behaviour.BROKEN))
    request = {"instruction": f"something {token_hex(4)}", "on_degraded": "error"}
    reply = api.post(f"{CATALOG}/recommend", json=request)
    assert_problem(reply, 503, "degraded")
    assert reply.headers["retry-after"]


def test_an_outage_costs_only_some_requests_a_wait(api, hostile):
    hostile.play(repeat(Behaviour.HANG))
    took = []
    for _ in range(12):
        began = time.monotonic()
        assert asked(api, history=HISTORY, instruction=token_hex(4))["degraded"]
        took.append(time.monotonic() - began)
    assert sum(one > 0.5 for one in took) <= 6
    assert sorted(took)[4] < 0.5


def test_others_do_not_wait_for_those_who_wait(api, hostile):
    hostile.play(repeat(Behaviour.HANG))
    with ThreadPoolExecutor(20) as crowd:
        waiting = [
            crowd.submit(asked, api, instruction=token_hex(4), timeout_ms=3_000) for _ in range(20)
        ]
        path, item = new_item()
        put = crowd.submit(api.put, path, json=item)
        began, alive = time.monotonic(), []
        while time.monotonic() - began < 1:
            sent = time.monotonic()
            assert api.get("/livez").status_code == 200
            assert not asked(api, history=HISTORY)["degraded"]
            alive.append(time.monotonic() - sent)
        assert sorted(alive)[len(alive) // 2] < 0.3
        assert all(one.result()["degraded"] for one in waiting)
        hostile.reset()  # drops what hangs
        assert put.result().status_code in (201, 503)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour.OUT_OF_QUOTA, 503, "embedder_unavailable"),
        (Behaviour.BROKEN, 503, "embedder_unavailable"),
        (Behaviour.UNAUTHORIZED, 503, "embedder_unavailable"),  # it has worked before
    ],
)
def test_nothing_is_written_without_it(api, hostile, behaviour, status, code):
    hostile.play(repeat(behaviour))
    version = api.get(CATALOG).json()["tree_version"]
    path, item = new_item()
    rows = [{"id": f"row-{n}-{token_hex(4)}", "title": f"Row {n}"} for n in range(20)]
    for reply in (
        api.put(path, json=item),
        api.patch(item_path(CATALOG, "book-dune"), json={"title": "Dune once more"}),
        api.post(f"{CATALOG}/items:batch", json={"upserts": rows}),
    ):
        problem = assert_problem(reply, status, code)
        assert ("retry-after" in reply.headers) == (status == 503)
        assert KEY not in problem["detail"]
    assert api.get(path).status_code == 404
    assert api.get(item_path(CATALOG, "book-dune")).json()["title"] == "Dune"
    assert api.get(CATALOG).json()["tree_version"] == version
    # What needs no vectors goes on.
    assert api.delete(path).status_code == 204


def test_a_rebuild_fails_and_the_tree_stays(api, hostile):
    before = api.get(CATALOG).json()
    hostile.play(repeat(Behaviour.OUT_OF_QUOTA))
    job = ended(api, api.post(f"{CATALOG}/tree/rebuilds", json={}))
    assert (job["state"], job["problem"]["code"]) == ("failed", "embedder_unavailable")
    assert "used up" in job["problem"]["detail"]
    assert api.get(CATALOG).json() == before
    hostile.reset()
    job = ended(api, api.post(f"{CATALOG}/tree/rebuilds", json={}))
    assert job["state"] == "succeeded"
    assert api.get(CATALOG).json()["items"] == before["items"]


# -- another deployment


def test_a_deployment_without_it_serves_what_it_can(api, settings, hostile, demo_items, caplog):
    """Beside the other one, over the same store."""
    caplog.set_level("INFO", "app.main")
    without = settings.model_copy(
        update={"embedder": "lexical", "embedder_base_url": None, "embedder_api_key": None}
    )
    with client_of(without) as other:
        assert f"keeps its embedder {OPENAI}" in caplog.text
        assert other.get(CATALOG).json()["settings"]["embedder"] == OPENAI
        assert ids(asked(other, history=HISTORY)) == ids(asked(api, history=HISTORY))
        answer = asked(other, history=HISTORY, instruction="something short")
        assert answer["degraded_reason"] == "embedder_unavailable"
        path, item = new_item()
        problem = assert_problem(other.put(path, json=item), 502, "embedder_unusable")
        assert "UNILLMREC_EMBEDDER_BASE_URL" in problem["detail"]
        assert other.put(CATALOG, json={"embedder": OPENAI}).status_code == 200
        fresh = other.put(f"/v1/catalogs/test-{token_hex(4)}", json={})
        assert fresh.json()["settings"]["embedder"] == "lexical"


def test_one_that_hangs_holds_up_a_start_for_seconds(api, settings, hostile):
    hostile.play(repeat(Behaviour.HANG))
    began = time.monotonic()
    with client_of(settings) as other:
        assert TIMES.start_s <= time.monotonic() - began < TIMES.start_s + 5
        assert ids(asked(other, history=HISTORY)) == ids(asked(api, history=HISTORY))
        hostile.reset()


async def test_who_has_asked_already_does_not_wait_again(settings, api, hostile):
    hostile.play(repeat(Behaviour.HANG))
    app = create_app(settings, checked=True)
    began = time.monotonic()
    async with app.router.lifespan_context(app):
        assert time.monotonic() - began < 4
        hostile.reset()


async def test_a_wrong_key_stops_the_start(tmp_path: Path, embedded_url: str, hostile_server):
    hostile_server.play(repeat(Behaviour.UNAUTHORIZED))
    app = create_app(
        Settings(
            data_dir=tmp_path,
            redis_url=embedded_url,
            key_prefix=f"test-{token_hex(6)}",
            embedder=OPENAI,
            embedder_base_url=hostile_server.base_url,
        )
    )
    with pytest.raises(EmbedderUnusable, match="UNILLMREC_EMBEDDER_API_KEY"):
        async with app.router.lifespan_context(app):
            raise AssertionError("the service has started")
