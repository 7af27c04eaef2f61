"""Pictures in a turn: how they are sent, counted and remembered, and models that refuse them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from app.llm.ask import estimated_input
from app.llm.chat import JsonSchema, Message, Picture, Reply, ScriptedChat, Text, Turn
from app.llm.client import OpenAIChat, connect
from app.llm.errors import InvalidReply, ModelRejected, ModelUnavailable, PicturesRefused
from app.llm.recording import Recorded, Recorder
from app.llm.sight import Sighted
from app.llm.tokens import PICTURE_TOKENS
from app.llm.wrappers import Cached
from app.storage.documents import MemoryDocuments
from tests.servers.hostile import MODEL, Behaviour, HostileServer, pictures_of
from tests.servers.llama import MODEL as TINY

RED, BLUE = "data:image/png;base64,cmVk", "data:image/png;base64,Ymx1ZQ=="
PLAIN = Turn((Message("system", "Be brief."), Message("user", "1. A vase")), Text(), 40, 5.0)


def shown(*urls: str) -> Turn:
    """PLAIN with pictures of its items."""
    pictures = tuple(Picture(f"Item {number}:", url) for number, url in enumerate(urls, 1))
    system, user = PLAIN.messages
    return replace(PLAIN, messages=(system, replace(user, pictures=pictures)))


@pytest.fixture
async def endpoint(hostile_server: HostileServer) -> AsyncIterator[OpenAIChat]:
    async with connect(hostile_server.base_url, "key") as client:
        yield OpenAIChat(client, MODEL)


@pytest.fixture
async def sighted(endpoint: OpenAIChat) -> AsyncIterator[Sighted]:
    model = Sighted(endpoint, MemoryDocuments())
    yield model
    await model.aclose()


# -- what is sent


async def test_pictures_follow_the_text_each_after_its_caption(
    endpoint: OpenAIChat, hostile_server: HostileServer
) -> None:
    await endpoint.complete(shown(RED, BLUE))
    system, user = hostile_server.requests[0]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == [
        {"type": "text", "text": "1. A vase"},
        {"type": "text", "text": "Item 1:"},
        {"type": "image_url", "image_url": {"url": RED, "detail": "low"}},
        {"type": "text", "text": "Item 2:"},
        {"type": "image_url", "image_url": {"url": BLUE, "detail": "low"}},
    ]


async def test_text_alone_is_sent_as_a_string(
    endpoint: OpenAIChat, hostile_server: HostileServer
) -> None:
    await endpoint.complete(PLAIN)
    assert hostile_server.requests[0]["messages"][1] == {"role": "user", "content": "1. A vase"}


def test_pictures_count_as_tokens_however_large_they_are() -> None:
    captions = sum(estimated_input(replace(PLAIN, messages=(Message("user", f"Item {n}:"),)))
                   for n in (1, 2))  # fmt: skip
    both = estimated_input(shown("data:" + "A" * 100_000, BLUE))
    assert both == estimated_input(PLAIN) + captions + 2 * PICTURE_TOKENS


def test_no_log_line_shows_a_whole_picture() -> None:
    assert "base64" not in repr(shown(RED))


# -- caches and recordings


async def test_each_picture_has_a_reply_of_its_own_in_the_cache() -> None:
    asked = []

    def answer(turn: Turn) -> Reply:
        asked.append(turn)
        return Reply(str(len(asked)))

    cached = Cached(ScriptedChat(answer), MemoryDocuments(), 60)
    for turn in (PLAIN, shown(RED), shown(BLUE), shown(RED, BLUE)):
        reply = await cached.complete(turn)
        assert reply.keep is not None
        await reply.keep()
    again = [await cached.complete(turn) for turn in (shown(BLUE), PLAIN, shown(RED))]
    assert [reply.text for reply in again] == ["3", "1", "2"]


async def test_replies_to_texts_that_earlier_releases_have_stored_are_found(tmp_path) -> None:
    form = JsonSchema("a", {"type": "object"})
    words = (Message("system", "Be brief."), Message("user", "One? „Zwei“ \x1f"))
    documents = MemoryDocuments()
    old = "b39c2c9f7aa59de3c6a27380f8eaf40a40fc56648a6a88a569c3d7c561b2468d"
    await documents.put("reply", old, b'{"text": "yes", "letters": {}, "decisions": []}', 60)
    cached = Cached(ScriptedChat(lambda _: Reply("no"), "m"), documents, 60, "http://x/v1")
    turn = Turn(words, form, 40, 5.0, seed=1)
    assert (await cached.complete(turn)).text == "yes"

    path = tmp_path / "replies.jsonl"
    path.write_text('{"key":"d112b76607bd31fe50d4a4373c0bcc67","model":"m","text":"recorded"}\n')
    with Recorder(path) as recorder:
        model = Recorded(ScriptedChat(lambda _: Reply("no"), "m"), recorder)
        assert (await model.complete(turn)).text == "recorded"


# -- models that refuse

WORDINGS: list[tuple[int, object]] = [
    (400, {"error": {"message": "Invalid content type. image_url is only supported by certain "
                     "models.", "type": "invalid_request_error", "param": "messages.[0].content"}}),
    (404, {"error": {"message": "No endpoints found that support image input", "code": 404}}),
    (400, {"object": "error", "message": "tiny is not a multimodal model", "code": 400}),
    (400, {"error": {"message": "messages[1].content must be a string"}}),
    (422, {"error": {"message": "Failed to deserialize the JSON body into the target type: "
                     "messages[1]: unknown variant `image_url`, expected `text`"}}),
    (422, {"detail": [{"loc": ["body", "messages", 1, "content"], "msg": "str type expected"}]}),
    (500, {"error": {"code": 500, "message": "image input is not supported - hint: you may need "
                     "to provide the mmproj", "type": "server_error"}}),
    (413, "Request Entity Too Large"),
    (501, {}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), WORDINGS)
async def test_a_blind_model_gets_the_text_alone(
    sighted: Sighted, hostile_server: HostileServer, status: int, body: object
) -> None:
    hostile_server.refusal = status, body  # type: ignore[assignment]
    hostile_server.play([Behaviour.NO_PICTURES] * 9)
    for _ in range(3):
        assert (await sighted.complete(shown(RED))).text
    assert not await sighted.sees(1)
    pictures = [pictures_of(body) for body in hostile_server.requests]
    assert [len(urls) for urls in pictures] == [1, 0, 0, 0, 0]  # the probe, without, three turns


async def test_a_model_that_sees_is_shown_pictures(
    sighted: Sighted, hostile_server: HostileServer
) -> None:
    for turn in (shown(RED), PLAIN, shown(BLUE)):
        await sighted.complete(turn)
    _probe, *asked = [pictures_of(body) for body in hostile_server.requests]
    assert asked == [[RED], [], [BLUE]]


async def test_one_broken_picture_does_not_make_a_model_blind(
    sighted: Sighted, hostile_server: HostileServer
) -> None:
    hostile_server.play([Behaviour.WELL_FORMED, Behaviour.NO_PICTURES])
    assert (await sighted.complete(shown(BLUE))).text
    await sighted.complete(shown(RED))
    _probe, *asked = [pictures_of(body) for body in hostile_server.requests]
    assert asked == [[BLUE], [], [RED]]


async def test_what_is_known_of_a_model_is_kept_for_its_endpoint_and_name(
    endpoint: OpenAIChat, hostile_server: HostileServer
) -> None:
    documents = MemoryDocuments()
    hostile_server.play([Behaviour.NO_PICTURES])
    assert not await Sighted(endpoint, documents, "a").sees(5)
    calls = len(hostile_server.requests)
    assert not await Sighted(endpoint, documents, "a").sees(5)
    assert len(hostile_server.requests) == calls
    assert await Sighted(endpoint, documents, "b").sees(5)
    assert len(hostile_server.requests) == calls + 1


async def test_many_callers_share_one_probe(
    sighted: Sighted, hostile_server: HostileServer
) -> None:
    await asyncio.gather(*(sighted.complete(shown(RED)) for _ in range(8)))
    probes = [body for body in hostile_server.requests if pictures_of(body) != [RED]]
    assert len(probes) == 1


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Behaviour.UNAUTHORIZED, ModelRejected),
        (Behaviour.UNKNOWN_MODEL, ModelRejected),
        (Behaviour.UNAVAILABLE, ModelUnavailable),
        (Behaviour.BROKEN, ModelUnavailable),
    ],
)
async def test_an_outage_or_a_wrong_key_says_nothing_about_pictures(
    endpoint: OpenAIChat,
    hostile_server: HostileServer,
    behaviour: Behaviour,
    error: type[Exception],
) -> None:
    documents = MemoryDocuments()
    hostile_server.play([behaviour] * 2)
    with pytest.raises(error) as caught:
        await Sighted(endpoint, documents).complete(shown(RED))
    assert not isinstance(caught.value, PicturesRefused)
    hostile_server.play([])
    assert await Sighted(endpoint, documents).sees(5)


async def test_a_turn_waits_for_the_probe_no_longer_than_it_has(
    sighted: Sighted, hostile_server: HostileServer
) -> None:
    hostile_server.play([Behaviour.HANG])
    with pytest.raises(ModelUnavailable) as caught:
        await sighted.complete(replace(shown(RED), timeout_s=0.05))
    assert caught.value.timed_out


async def test_a_real_server_without_sight_gets_the_text_alone(llama_url: str) -> None:
    async with connect(llama_url, None) as client:
        model = Sighted(OpenAIChat(client, TINY), MemoryDocuments())
        assert not await model.sees(30)
        reply = await model.complete(replace(shown(RED), timeout_s=30))
        assert reply.usage is not None


@pytest.mark.parametrize("refuses", [PicturesRefused("no"), InvalidReply("what?")])
async def test_what_a_model_says_of_the_probe_does_not_count(refuses: Exception) -> None:
    """Only a refusal of the picture does, where the text is taken."""

    def script(turn: Turn) -> Reply:
        if turn.pictures:
            raise refuses
        raise InvalidReply("never useful")

    answer: Callable[[Turn], Reply] = script
    sees = await Sighted(ScriptedChat(answer), MemoryDocuments()).sees(5)
    assert sees == isinstance(refuses, InvalidReply)
