"""Endpoints for embeddings that refuse a part of a call, or are in trouble, in their own words."""

from collections.abc import Iterator

import pytest
from starlette.responses import JSONResponse, Response

from app.embedders.openai_model import EmbeddingEndpoint, EndpointAddress
from tests.app.llm.endpoint.picky import KEY, Body, PickyServer, picky_server, refused
from tree.errors import EmbedderUnavailable, EmbedderUnusable


@pytest.fixture
def picky() -> Iterator[PickyServer]:
    with picky_server() as server:
        server.rule = embedded
        yield server


@pytest.fixture
def endpoint(picky: PickyServer) -> Iterator[EmbeddingEndpoint]:
    endpoint = EmbeddingEndpoint(EndpointAddress(picky.base_url, KEY))
    yield endpoint
    endpoint.close()


def embedded(body: Body) -> Response:
    """Vectors as plain numbers."""
    data = [{"index": at, "embedding": [len(text), 1.0]} for at, text in enumerate(body["input"])]
    return JSONResponse({"data": data, "usage": {"prompt_tokens": 9}})


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"error": {"message": "Unknown field: encoding_format."}}),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "encoding_format"]}]}),
        (400, "Bad Request"),
        (404, {"error": "encoding_format base64 is not available"}),
        (500, {"error": {"message": "invalid encoding_format"}}),
        (500, "Internal Server Error"),
        (501, {"message": "base64 is not implemented"}),
    ],
)
def test_base64_is_left_out_where_it_is_refused(
    picky: PickyServer, endpoint: EmbeddingEndpoint, status: int, said: object
) -> None:
    picky.rule = lambda body: refused(status, said) if "encoding_format" in body else embedded(body)
    model = endpoint.open("m")
    assert model.vectors(["soup", "a song"]).tolist() == [[4.0, 1.0], [6.0, 1.0]]
    asked = len(picky.requests)
    model.vectors(["tea"])
    assert len(picky.requests) == asked + 1


TROUBLE = [
    (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
    (402, {"error": {"message": "Insufficient Balance"}}),
    (400, {"error": {"message": "Your credit balance is too low"}}),
    (403, "Forbidden"),
    (404, {"error": {"message": "The model `m` does not exist"}}),
    (424, "Failed Dependency"),
]


@pytest.mark.parametrize(("status", "said"), TROUBLE)
def test_trouble_after_an_answer_is_an_outage(
    picky: PickyServer, endpoint: EmbeddingEndpoint, status: int, said: object
) -> None:
    model = endpoint.open("m")
    model.vectors(["soup"])
    picky.rule = lambda body: refused(status, said)
    with pytest.raises(EmbedderUnavailable, match=str(status)) as told:
        model.vectors(["tea"], timeout_s=0.5)
    assert not isinstance(told.value, EmbedderUnusable)
    assert KEY not in str(told.value)
    picky.rule = embedded
    assert model.vectors(["tea"]).tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize(("status", "said"), [TROUBLE[0], TROUBLE[3], TROUBLE[4]])
def test_what_is_refused_before_any_answer_is_a_mistake(
    picky: PickyServer, endpoint: EmbeddingEndpoint, status: int, said: object
) -> None:
    picky.rule = lambda body: refused(status, said)
    with pytest.raises(EmbedderUnusable, match=f"answers {status}"):
        endpoint.open("m").vectors(["tea"])
