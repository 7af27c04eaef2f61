"""Addresses and keys as people write them."""

import pytest

from app.llm.chat import Message, Text, Turn
from app.llm.client import OpenAIChat, connect
from app.llm.errors import ModelRejected
from app.settings import Settings
from tests.app.llm.endpoint.picky import PickyServer, refused

TURN = Turn((Message("user", "Hi"),), Text(), 20, 10.0)


@pytest.mark.parametrize(
    ("ending", "called"),
    [
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1//", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1/embeddings", "/v1/chat/completions"),
        ("", "/chat/completions"),
        (
            "/openai/deployments/gpt?api-version=2024-10-21",
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
        ),
        (
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21&b=",
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21&b=",
        ),
    ],
)
async def test_an_address_leads_to_the_route(picky: PickyServer, ending: str, called: str) -> None:
    root = picky.base_url.removesuffix("/v1")
    async with connect(f"{root}{ending}", "key") as client:
        await OpenAIChat(client, "m").complete(TURN)
    assert picky.urls == [f"{root}{called}"]
    assert picky.azure_keys == ["key" if "api-version" in ending else None]


@pytest.mark.parametrize("key", ["secret\n", " secret", "\tsecret\r\n"])
async def test_a_key_is_sent_without_the_end_of_its_line(picky: PickyServer, key: str) -> None:
    settings = Settings(llm_api_key=key, embedder_api_key=key)
    assert settings.llm_api_key is not None
    assert settings.embedder_api_key is not None
    assert settings.embedder_api_key.get_secret_value() == "secret"
    for given in (key, settings.llm_api_key.get_secret_value()):
        async with connect(picky.base_url, given) as client:
            await OpenAIChat(client, "m").complete(TURN)
    assert set(picky.keys) == {"Bearer secret"}


@pytest.mark.parametrize("key", ["sec\nret", "sécret", "sec\0ret"])
def test_a_key_that_no_header_carries_is_refused_with_the_reason(key: str) -> None:
    with pytest.raises(ValueError, match="line end or another sign") as told:
        Settings(llm_api_key=key)
    assert key not in str(told.value)


@pytest.mark.parametrize(
    ("to", "place"),
    [
        ("https://user:pw@new.example/v1/x?token=s", "https://new.example/v1/x"),
        ("/v2/chat/completions", "/v2/chat/completions"),
    ],
)
async def test_a_redirect_is_told_and_not_followed(picky: PickyServer, to: str, place: str) -> None:
    picky.rule = lambda body: refused(308, "", location=to)
    async with connect(picky.base_url, "key") as client:
        with pytest.raises(ModelRejected, match="it has moved to") as told:
            await OpenAIChat(client, "m").complete(TURN)
    assert place in str(told.value)
    assert "pw@" not in str(told.value)
    assert "token" not in str(told.value)
    assert len(picky.requests) == 1
