"""Many calls at half the price: nothing is paid twice, every request has a reply or a reason."""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import chain

import pytest
from openai import AsyncOpenAI

from app.llm.ask import Price, UsageTotals
from app.llm.batch_calls import Batch, BatchTimes
from app.llm.batch_lines import BatchLimits
from app.llm.batches import BatchApi
from app.llm.chat import JsonObject, Message, Picture, Reply, Text, Turn
from app.llm.client import OpenAIChat, connect
from app.llm.errors import ModelError, ModelRejected, ModelUnavailable, NoBatchApi
from tests.servers.batches import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    BatchServer,
    Body,
    answered,
    never_asked,
    refused,
)
from tests.servers.hostile import Behaviour, HostileServer

TIMES = BatchTimes(first_poll_s=0.01, longest_poll_s=0.02, outage_s=20, retry_s=0.01)
FILES, BATCHES = "POST /v1/files", "POST /v1/batches"


def turns(*ids: str, what: str = "") -> list[tuple[str, Turn]]:
    """A turn for each id, which asks for the id."""
    return [(one, Turn((Message("user", one + what),), JsonObject(), 40, 5.0)) for one in ids]


async def given(some: Iterable[tuple[str, Turn]]) -> AsyncIterator[tuple[str, Turn]]:
    for one in some:
        yield one


@pytest.fixture
async def client(batch_server: BatchServer) -> AsyncIterator[AsyncOpenAI]:
    async with connect(batch_server.base_url, "key") as client:
        yield client


@pytest.fixture
def api(client: AsyncOpenAI) -> BatchApi:
    return BatchApi(client, OpenAIChat(client, "tiny"), times=TIMES)


async def submitted(api: BatchApi, *ids: str, run: str = "run") -> list[Batch]:
    return [batch async for batch in api.submit(run, given(turns(*ids)))]


async def ended(api: BatchApi, batch: Batch) -> Batch:
    [*_, last] = [state async for state in api.follow(batch.id)]
    return last


async def outcomes(
    api: BatchApi, batch: Batch, *ids: str, **counting: object
) -> dict[str, Reply | ModelError]:
    """What `results` yields; each id must come once."""
    found = [one async for one in api.results(batch, ids, **counting)]  # type: ignore[arg-type]
    assert len({custom_id for custom_id, _ in found}) == len(found)
    return dict(found)


async def all_of(api: BatchApi, *ids: str) -> dict[str, Reply | ModelError]:
    """The outcomes of one batch of these ids."""
    [batch] = await submitted(api, *ids)
    return await outcomes(api, await ended(api, batch), *ids)


def texts(found: dict[str, Reply | ModelError]) -> dict[str, str]:
    return {one: reply.text for one, reply in found.items() if isinstance(reply, Reply)}


def kinds(found: dict[str, Reply | ModelError]) -> dict[str, str]:
    return {one: type(outcome).__name__ for one, outcome in found.items()}


# -- the way of a batch


async def test_every_request_gets_its_reply(api: BatchApi, batch_server: BatchServer) -> None:
    [batch] = await submitted(api, "a", "b", "c")
    assert not batch.ended
    states = [state async for state in api.follow(batch.id)]
    assert [state.status for state in states] == ["in_progress"] * 2 + ["finalizing", "completed"]
    assert [state.completed for state in states] == [1, 2, 2, 3]
    assert states[-1].total == 3
    found = await outcomes(api, states[-1], "a", "b", "c")
    assert texts(found) == {"a": "a", "b": "b", "c": "c"}


async def test_a_request_is_what_a_call_would_send(
    client: AsyncOpenAI, api: BatchApi, batch_server: BatchServer, hostile_server: HostileServer
) -> None:
    picture = Picture("Item 1:", "data:image/jpeg;base64,AAAA")
    turn = Turn((Message("system", "Be brief."), Message("user", "Hi", (picture,))), Text(), 40, 5)
    [batch] = [one async for one in api.submit("run", given([("a", turn)]))]
    [line] = batch_server.requests_of(batch_server.batches[batch.id])
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    async with connect(hostile_server.base_url, "key") as other:
        await OpenAIChat(other, "tiny").complete(turn)
    assert hostile_server.requests == [{**line["body"], "stream": False}]


async def test_parameters_that_the_endpoint_refuses_are_left_out(
    hostile_server: HostileServer,
) -> None:
    async with connect(hostile_server.base_url, "key") as client:
        chat = OpenAIChat(client, "tiny")
        [(_, turn)] = turns("a")
        assert "max_tokens" in chat.body_of(turn)
        hostile_server.play([Behaviour.NO_PICTURES])
        hostile_server.refusal = 400, {"error": {"message": "no", "param": "max_tokens"}}
        picture = Picture("A vase:", "data:image/png;base64,AAAA")
        await chat.complete(Turn((Message("user", "Hi", (picture,)),), Text(), 40, 5.0))
        assert chat.body_of(turn)["max_completion_tokens"] == 40
        assert "max_tokens" not in chat.body_of(turn)


async def test_another_process_goes_on_with_the_id_alone(
    client: AsyncOpenAI, api: BatchApi
) -> None:
    [batch] = await submitted(api, "a", "b")
    another = BatchApi(client, OpenAIChat(client, "tiny"), times=TIMES)
    [*_, last] = [state async for state in another.follow(batch.id)]
    assert texts(await outcomes(another, last, "a", "b")) == {"a": "a", "b": "b"}


async def test_nothing_stays_at_the_provider(api: BatchApi, batch_server: BatchServer) -> None:
    batch_server.errors = lambda requests: [refused(requests[-1])]
    batch_server.output = lambda requests: [answered(one) for one in requests[:-1]]
    [batch] = await submitted(api, "a", "b")
    last = await ended(api, batch)
    assert len(batch_server.files) == 3
    await outcomes(api, last, "a", "b")
    assert len(batch_server.files) == 3  # until the results are stored
    await api.discard(last)
    assert batch_server.files == {}
    await api.discard(last)  # what is gone is gone


async def test_no_requests_make_no_batch(api: BatchApi, batch_server: BatchServer) -> None:
    assert await submitted(api) == []
    assert batch_server.files == {}


# -- several batches


async def test_requests_are_split_by_their_number(
    client: AsyncOpenAI, batch_server: BatchServer
) -> None:
    api = BatchApi(client, OpenAIChat(client, "tiny"), BatchLimits(requests=2), TIMES)
    batches = await submitted(api, *"abcde")
    asked = [batch_server.requests_of(batch_server.batches[one.id]) for one in batches]
    assert [[line["custom_id"] for line in lines] for lines in asked] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]


async def test_requests_are_split_by_their_size(
    client: AsyncOpenAI, batch_server: BatchServer
) -> None:
    api = BatchApi(client, OpenAIChat(client, "tiny"), BatchLimits(file_bytes=5_000), TIMES)
    some = turns(*map(str, range(20)), what="x" * 1_000)
    batches = [batch async for batch in api.submit("run", given(some))]
    assert len(batches) == 5
    assert all(len(file) <= 5_000 for file in batch_server.files.values())
    asked = chain(*(batch_server.requests_of(one) for one in batch_server.batches.values()))
    assert [line["custom_id"] for line in asked] == [custom_id for custom_id, _ in some]


async def test_an_id_is_handed_out_before_the_next_batch_exists(
    client: AsyncOpenAI, batch_server: BatchServer
) -> None:
    api = BatchApi(client, OpenAIChat(client, "tiny"), BatchLimits(requests=1), TIMES)
    async for _ in api.submit("run", given(turns("a", "b", "c"))):
        if len(batch_server.batches) == 2:
            break
    assert len(batch_server.batches) == 2


@pytest.mark.parametrize("ids", [("a", "b", "a"), ("",), ("x" * 65,)])
async def test_ids_that_cannot_be_used(api: BatchApi, ids: Sequence[str]) -> None:
    with pytest.raises(ValueError, match="custom id"):
        await submitted(api, *ids)


async def test_a_request_that_fits_no_file(client: AsyncOpenAI) -> None:
    api = BatchApi(client, OpenAIChat(client, "tiny"), BatchLimits(file_bytes=50), TIMES)
    with pytest.raises(ValueError, match="bytes"):
        await submitted(api, "a")


# -- nothing is paid twice


async def test_a_process_that_died_repeats_itself_and_pays_once(
    client: AsyncOpenAI, batch_server: BatchServer
) -> None:
    batch_server.page = 1
    api = BatchApi(client, OpenAIChat(client, "tiny"), BatchLimits(requests=2), TIMES)
    async for _ in api.submit("run", given(turns(*"abcde"))):
        break  # before it stored the id
    await submitted(api, "x", run="another")
    again = await submitted(api, *"abcde")
    assert [batch.id for batch in again] == [batch.id for batch in await api.find("run")]
    assert len(batch_server.batches) == 4
    asked = chain(*(batch_server.requests_of(one) for one in batch_server.batches.values()))
    assert sorted(line["custom_id"] for line in asked) == [*"abcde", "x"]


async def test_other_requests_of_a_run_are_another_batch(
    api: BatchApi, batch_server: BatchServer
) -> None:
    [first] = await submitted(api, "a", "b")
    [second] = await submitted(api, "a", "c")
    assert first.id != second.id


async def test_a_lost_answer_does_not_make_a_second_batch(
    api: BatchApi, batch_server: BatchServer
) -> None:
    batch_server.faults[BATCHES] = [0]
    [batch] = await submitted(api, "a")
    assert list(batch_server.batches) == [batch.id]
    assert texts(await outcomes(api, await ended(api, batch), "a")) == {"a": "a"}


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_batch_that_is_not_made_leaves_no_file(
    api: BatchApi, batch_server: BatchServer, status: int
) -> None:
    batch_server.faults[BATCHES] = [status]
    with pytest.raises(ModelUnavailable):
        await submitted(api, "a")
    assert batch_server.files == {}
    assert len(await submitted(api, "a")) == 1


async def test_what_changes_nothing_is_repeated(api: BatchApi, batch_server: BatchServer) -> None:
    batch_server.faults[FILES] = [503, 0]
    batch_server.faults["GET /v1/batches"] = [500]
    [batch] = await submitted(api, "a")
    last = await ended(api, batch)
    batch_server.faults[f"GET /v1/files/{last.output_file}/content"] = [502, -2]
    assert texts(await outcomes(api, last, "a")) == {"a": "a"}


# -- waiting


async def test_an_outage_does_not_end_the_waiting(api: BatchApi, batch_server: BatchServer) -> None:
    [batch] = await submitted(api, "a")
    batch_server.faults[f"GET /v1/batches/{batch.id}"] = [503, 429, 0, 500]
    assert (await ended(api, batch)).status == "completed"


async def test_an_outage_that_lasts_is_told(client: AsyncOpenAI, batch_server: BatchServer) -> None:
    times = BatchTimes(first_poll_s=0.01, longest_poll_s=0.01, outage_s=0.1)
    api = BatchApi(client, OpenAIChat(client, "tiny"), times=times)
    [batch] = await submitted(api, "a")
    batch_server.faults[f"GET /v1/batches/{batch.id}"] = [503] * 10_000
    with pytest.raises(ModelUnavailable):
        await ended(api, batch)
    batch_server.faults.clear()
    assert (await ended(api, batch)).status == "completed"


async def test_a_call_without_an_answer_ends(
    client: AsyncOpenAI, batch_server: BatchServer
) -> None:
    times = BatchTimes(first_poll_s=0.01, longest_poll_s=0.01, outage_s=0, call_s=0.1)
    api = BatchApi(client, OpenAIChat(client, "tiny"), times=times)
    [batch] = await submitted(api, "a")
    batch_server.faults[f"GET /v1/batches/{batch.id}"] = [-1]
    with pytest.raises(ModelUnavailable) as caught:
        await ended(api, batch)
    assert caught.value.timed_out


async def test_a_batch_can_be_cancelled(api: BatchApi, batch_server: BatchServer) -> None:
    batch_server.states = ["in_progress"] * 500
    batch_server.output = lambda requests: [answered(requests[0])]
    batch_server.errors = lambda requests: [never_asked(requests[1], "batch_cancelled")]
    [batch] = await submitted(api, "a", "b", "c")
    await api.cancel(batch.id)
    last = await ended(api, batch)
    assert last.status == "cancelled"
    found = await outcomes(api, last, "a", "b", "c")
    assert kinds(found) == {"a": "Reply", "b": "ModelUnavailable", "c": "ModelUnavailable"}


async def test_results_are_there_at_the_end(api: BatchApi) -> None:
    [batch] = await submitted(api, "a")
    with pytest.raises(ValueError, match="not ended"):
        await outcomes(api, batch, "a")


async def test_a_batch_that_nobody_knows(api: BatchApi) -> None:
    with pytest.raises(ModelRejected, match="does not know"):
        await ended(api, Batch("batch-77", "in_progress"))


# -- bad results


async def test_each_failed_line_has_a_reason(api: BatchApi, batch_server: BatchServer) -> None:
    batch_server.output = lambda requests: [answered(requests[0])]
    batch_server.errors = lambda requests: [
        refused(requests[1]),
        refused(requests[2], 429, "rate_limit_exceeded"),
        refused(requests[3], 500, "server_error"),
        refused(requests[4], 401, "invalid_api_key"),
        never_asked(requests[5]),
    ]
    found = await all_of(api, *"abcdef")
    assert kinds(found) == {
        "a": "Reply",
        "b": "InvalidReply",
        "c": "ModelUnavailable",
        "d": "ModelUnavailable",
        "e": "ModelRejected",
        "f": "ModelUnavailable",
    }
    assert str(found["b"]) == "the endpoint answers 400 (invalid_value)"
    assert "batch_expired" in str(found["f"])


async def test_a_batch_in_which_everything_fails_has_no_output(
    api: BatchApi, batch_server: BatchServer
) -> None:
    batch_server.output = lambda requests: []
    batch_server.errors = lambda requests: [refused(one) for one in requests]
    assert set(kinds(await all_of(api, "a", "b")).values()) == {"InvalidReply"}


async def test_a_batch_that_expires_gives_what_it_has(
    api: BatchApi, batch_server: BatchServer
) -> None:
    batch_server.states = ["in_progress", "expired"]
    batch_server.output = lambda requests: [answered(requests[1])]
    batch_server.errors = lambda requests: [never_asked(requests[0])]
    found = await all_of(api, "a", "b", "c")
    assert kinds(found) == {"a": "ModelUnavailable", "b": "Reply", "c": "ModelUnavailable"}
    assert "expired" in str(found["c"])


@pytest.mark.parametrize(
    ("problems", "kind"),
    [
        (["model_not_found"], ModelRejected),
        ([], ModelRejected),
        (["token_limit_exceeded"], ModelUnavailable),
        (["token_limit_exceeded", "invalid_json_line"], ModelRejected),
    ],
)
async def test_a_batch_that_is_refused_says_why(
    api: BatchApi, batch_server: BatchServer, problems: list[str], kind: type[ModelError]
) -> None:
    batch_server.states = ["validating", "failed"]
    batch_server.problems = problems
    found = await all_of(api, "a", "b")
    assert {type(outcome) for outcome in found.values()} == {kind}
    assert all(problem in str(found["a"]) for problem in problems)
    again = await submitted(api, "a", "b")  # nothing was paid: it may be tried again
    assert len(batch_server.batches) == 2
    assert again[0].status == "validating"


def shuffled(requests: list[Body]) -> list[Body]:
    return [answered(request) for request in reversed(requests)]


def repeated(requests: list[Body]) -> list[Body]:
    return [answered(request) for request in requests for _ in range(2)]


def foreign(requests: list[Body]) -> list[Body]:
    return [answered({**requests[0], "custom_id": "z"}), *map(answered, requests)]


def failed_first(requests: list[Body]) -> list[Body]:
    """Together writes errors into the output."""
    return [*map(refused, requests), *map(answered, requests)]


@pytest.mark.parametrize("output", [shuffled, repeated, foreign, failed_first])
async def test_each_reply_comes_once_and_is_that_of_its_request(
    api: BatchApi, batch_server: BatchServer, output: Callable[[list[Body]], list[Body]]
) -> None:
    batch_server.output = output
    assert texts(await all_of(api, "a", "b", "c")) == {"a": "a", "b": "b", "c": "c"}


LONG = json.dumps({"custom_id": "a", "response": {"body": {"x": "x" * 9_000_000}}}).encode()


async def test_lines_that_cannot_be_read_are_missing(
    api: BatchApi, batch_server: BatchServer, caplog: pytest.LogCaptureFixture
) -> None:
    torn = [b"", b"null", b"[]", b"{}", b'{"custom_id": 7}', b"\xff\xfe", b"[" * 60_000, LONG]
    batch_server.output = lambda requests: [*torn, answered(requests[1])]
    found = await all_of(api, "a", "b")
    assert kinds(found) == {"a": "ModelUnavailable", "b": "Reply"}
    assert "lack this line" in str(found["a"])
    assert "7 lines of a batch are of no use" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        {}, {"choices": []}, {"choices": [{"message": {"refusal": "no"}}]}, "text", None, 7,
        {"choices": "none", "usage": {"prompt_tokens": 5}},
    ],
)  # fmt: skip
async def test_a_line_without_a_usable_reply(
    api: BatchApi, batch_server: BatchServer, body: object
) -> None:
    def output(requests: list[Body]) -> list[Body]:
        return [
            {"custom_id": one["custom_id"], "response": {"status_code": 200, "body": body}}
            for one in requests
        ]

    batch_server.output = output
    assert kinds(await all_of(api, "a")) == {"a": "InvalidReply"}


async def test_status_in_capitals_and_few_fields(api: BatchApi, batch_server: BatchServer) -> None:
    batch_server.states = ["VALIDATING", "IN_PROGRESS", "COMPLETED"]
    assert texts(await all_of(api, "a")) == {"a": "a"}


# -- money


async def test_usage_counts_at_half_the_price(api: BatchApi, batch_server: BatchServer) -> None:
    def refusing(request: Body) -> Body:
        line = answered(request)
        line["response"]["body"]["choices"][0]["message"]["refusal"] = "I cannot."
        return line

    batch_server.output = lambda requests: [
        answered(requests[0]), answered(requests[0]), refusing(requests[1]),
    ]  # fmt: skip
    batch_server.errors = lambda requests: [refused(requests[2])]
    [batch] = await submitted(api, "a", "b", "c")
    totals = UsageTotals()
    price = Price(input_usd=10, output_usd=40, cached_usd=2)
    last = await ended(api, batch)
    await outcomes(api, last, "a", "b", "c", price=price, totals=totals)
    assert (totals.calls, totals.input_tokens) == (2, 2 * INPUT_TOKENS)  # a refusal is paid, too
    assert totals.cost_usd == pytest.approx((INPUT_TOKENS * 10 + OUTPUT_TOKENS * 40) / 1e6)
    assert price.halved() == Price(5, 20, 1)


# -- servers without it


@pytest.mark.parametrize("status", [404, 405, 501, 200])
async def test_a_server_without_a_batch_api_says_so(
    batch_server: BatchServer, api: BatchApi, status: int
) -> None:
    batch_server.instead = status
    with pytest.raises(NoBatchApi, match="--batch-api"):
        await submitted(api, "a")


async def test_llama_cpp_has_none(llama_url: str) -> None:
    async with connect(llama_url, None) as client:
        api = BatchApi(client, OpenAIChat(client, "tiny"), times=TIMES)
        with pytest.raises(NoBatchApi):
            await submitted(api, "a")


async def test_files_without_batches_are_removed(batch_server: BatchServer, api: BatchApi) -> None:
    batch_server.faults[BATCHES] = [404]
    with pytest.raises(NoBatchApi):
        await submitted(api, "a")
    assert batch_server.files == {}


async def test_a_wrong_key_is_no_missing_api(batch_server: BatchServer, api: BatchApi) -> None:
    batch_server.faults[FILES] = [401]
    with pytest.raises(ModelRejected, match="401") as caught:
        await submitted(api, "a")
    assert not isinstance(caught.value, NoBatchApi)
