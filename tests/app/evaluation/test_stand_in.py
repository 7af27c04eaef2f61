import pytest

from app.embedders import EmbedderCache
from app.evaluation.stand_in import stand_in
from app.llm import STAGES, Models, ReplyMode, StageModel
from app.llm.chat import JsonObject, Message, Turn
from app.recommend import RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore


async def recommender(items: list[Item], tree: SemanticTree) -> Recommender:
    store = MemoryTreeStore(space=tree.space, settings=tree.settings)
    await store.stage(items)
    await store.replace(tree, base=0)
    documents = MemoryDocuments()
    stages = dict.fromkeys(STAGES, StageModel(stand_in()))
    models = Models(stages, documents, ReplyMode.JSON_SCHEMA)
    return Recommender(
        "shop", store, documents, EmbedderCache(), RecommendConfig.of(Settings()), models
    )


@pytest.mark.parametrize(
    "way",
    [
        {"effort": "economy"},
        {"effort": "balanced"},
        {"strategy": "walk"},
        {"strategy": "paper"},
        {"strategy": "flat"},
    ],
    ids=lambda way: next(iter(way.values())),
)
async def test_it_answers_every_prompt_of_the_chain(
    demo_items: list[Item], demo_tree: SemanticTree, way: dict[str, str]
) -> None:
    request = RecommendRequest.model_validate(
        {
            "history": [{"item_id": "film-solaris"}, {"item_id": "book-dune"}],
            "instruction": "something slow",
            "limit": 20,
            **way,
        }
    )
    answers = [
        await (await recommender(demo_items, demo_tree)).recommend(request) for _ in range(2)
    ]
    assert [item.item_id for item in answers[0].items] == [
        item.item_id for item in answers[1].items
    ]
    assert len(answers[0].items) == 20
    assert not answers[0].degraded
    assert answers[0].usage.input_tokens > answers[0].usage.output_tokens > 0


async def test_other_reply_modes_are_refused() -> None:
    turn = Turn((Message("user", "Items:\n1. Tea"),), JsonObject(), 10, 1.0)
    with pytest.raises(TypeError, match="json_schema only"):
        await stand_in().complete(turn)
