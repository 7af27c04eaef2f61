"""Recommenders over models of known worth, which are examined on the bundled catalogue."""

from collections.abc import Sequence

from app.embedders import EmbedderCache
from app.llm import STAGES, ChatModel, Models, ReplyMode, ScriptedChat, StageModel
from app.recommend import PromptConfig, RecommendConfig, Recommender
from app.recommend.candidates import CandidatePool
from app.recommend.standing.examination import Examiner
from app.recommend.standing.standings import Standings
from app.settings import Settings
from app.storage.feedback import Feedback
from prompts import Perspective
from tests.app.conftest import Shop
from tests.scripted_models import ScriptedModel


def pool_of(shop: Shop) -> CandidatePool:
    return CandidatePool(shop.store, RecommendConfig.of(Settings()).retrieval)


def examined(
    shop: Shop,
    chat: ChatModel | ScriptedModel,
    feedback: Feedback | None = None,
    perspective: Perspective = "interest",
    timeout_s: float = 20.0,
) -> Recommender:
    """A recommender whose model has the weight that it has earned."""
    model = ScriptedChat(chat) if isinstance(chat, ScriptedModel) else chat
    stages = dict.fromkeys(STAGES, StageModel(model))
    return Recommender(
        "shop",
        shop.store,
        shop.documents,
        EmbedderCache(),
        RecommendConfig.of(Settings()),
        Models(stages, shop.documents, ReplyMode.JSON_SCHEMA, timeout_s, "here"),
        PromptConfig("shop", perspective),
        feedback,
        examines=True,
    )


def standings_of(recommender: Recommender) -> Standings:
    assert recommender.standings is not None
    return recommender.standings


def examiner_of(recommender: Recommender) -> Examiner:
    return standings_of(recommender).examiner


async def teach(
    shop: Shop,
    recommender: Recommender,
    model: ScriptedModel,
    seed: int,
    histories: Sequence[Sequence[str]] = (),
) -> None:
    """Tell a model what is right in an examination."""
    tree = await shop.store.load()
    for slate in await examiner_of(recommender).slates(tree, histories, seed):
        lines = await pool_of(shop).lines(tree, slate.rows.tolist())
        right = frozenset(line for row, line in lines.items() if row in slate.right)
        model.answers[frozenset(lines.values())] = right
