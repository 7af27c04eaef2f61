"""Every system that is compared: what it answers, and what it never answers."""

import importlib.util
import random
from typing import Any

import pytest

from app.embedders import EmbedderCache, embedder_for
from app.evaluation.case import Query, System, Training
from app.evaluation.dataset import DatasetUser
from app.evaluation.systems import (
    NAMES,
    EvalContext,
    MissingLibrary,
    Trees,
    UnknownSystem,
    systems,
)
from app.llm import STAGES, Models, ReplyMode, StageModel
from app.llm.chat import Reply, ScriptedChat, TokenUsage
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from tests.app.tuning.worlds import COLOURED_ITEMS, coloured_histories
from tree.item import Item

LEARNED = {"popular", "itemknn", "als", "sasrec", "nrms", "fm", "deepfm"}
NEEDS = {
    "bm25": "bm25s", "itemknn": "implicit", "als": "implicit",
    "nrms": "torch", "fm": "torch", "deepfm": "torch", "sasrec": "cornac",
}  # fmt: skip
QUICK = {name: f"{name}:epochs=1" for name in ("sasrec", "nrms", "fm", "deepfm")}
LIMIT = 7


def needs(name: str) -> pytest.MarkDecorator:
    library = NEEDS.get(name.partition(":")[0])
    missing = library is not None and importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"{library} is not installed")


def each(*names: str) -> list[object]:
    return [
        pytest.param(
            QUICK.get(name, name),
            marks=[needs(name), *[pytest.mark.slow] * (name in ("sasrec", "nrms", "deepfm"))],
            id=name,
        )
        for name in names
    ]


@pytest.fixture(scope="module")
def training(demo_items) -> Training:
    """Users of the bundled catalogue, each of whom keeps to one or two categories."""
    chance = random.Random(1)
    by_category: dict[tuple[str, ...], list[Item]] = {}
    for item in demo_items:
        by_category.setdefault(item.key[:2], []).append(item)
    users = []
    for number in range(120):
        liked = chance.sample(sorted(by_category), 2)
        choices = [item.id for category in liked for item in by_category[category]]
        chance.shuffle(choices)
        users.append(DatasetUser(f"r{number}", tuple(choices[: chance.randint(2, 12)])))
    return Training(demo_items, users)


@pytest.fixture
def queries(training) -> list[Query]:
    ids = [item.id for item in training.items]
    known = training.users[0].history
    return [
        Query("plain", known),
        Query("bounded", known, candidates=tuple(ids[10:40]), excluded=frozenset(ids[10:20])),
        Query("short of candidates", known[:2], candidates=(ids[60], ids[61], known[0])),
        Query("excluding", known[:3], excluded=frozenset(ids[::2])),
        Query("stranger", ("unknown-item", *training.users[5].history[:2])),
        Query("profile alone", (), profile="likes slow science fiction about space"),
        Query("nothing at all", ()),
    ]


def made(name: str, **surroundings: Any) -> System:
    [system] = systems([name], EvalContext(Settings(), **surroundings))
    return system


async def answered(system: System, training: Training, queries: list[Query]) -> list[list[str]]:
    await system.fit(training)
    answers = await system.rank(queries, LIMIT)
    await system.aclose()
    return answers


@pytest.mark.parametrize("name", each(*sorted(set(NAMES) - {"walk", "paper", "flat"})))
async def test_answers_are_allowed_ones(name, training, queries):
    catalogue = {item.id for item in training.items}
    answers = await answered(made(name), training, queries)
    assert len(answers) == len(queries)
    for query, answer in zip(queries, answers, strict=True):
        allowed = catalogue if query.candidates is None else set(query.candidates)
        allowed = allowed - set(query.history) - query.excluded
        assert set(answer) <= allowed, query.user
        assert len(answer) == len(set(answer)) <= LIMIT
    if name not in ("bm25", "itemknn"):  # which answer with what they can tell something of
        assert len(answers[0]) == LIMIT
        assert len(answers[2]) == 2


@pytest.mark.parametrize("name", each(*sorted(set(NAMES) - {"walk", "paper", "flat"})))
async def test_the_same_seed_gives_the_same_answers(name, training, queries):
    first = await answered(made(name), training, queries)
    assert first == await answered(made(name), training, queries)


@pytest.mark.parametrize("name", each("random", "als", "fm", "sasrec"))
async def test_another_seed_gives_other_answers(name, training, queries):
    seeded = f"{name}{',' if ':' in name else ':'}seed=5"
    first = await answered(made(name), training, queries)
    assert first != await answered(made(seeded), training, queries)


@pytest.mark.parametrize("name", each(*sorted(LEARNED - {"popular"})))
async def test_trained_systems_find_the_users_category(name, training):
    """Better than chance in the categories of users without training data."""
    category = {item.id: item.key[:2] for item in training.items}
    asked = [Query(one.id, one.history[:-1]) for one in training.users[:60]]
    with_titles = [  # NRMS uses titles only
        item.model_copy(update={"title": f"{' '.join(item.key[:2])} {item.title}"})
        for item in training.items
    ]
    learned = Training(with_titles, training.users[60:])
    thorough = name.replace("epochs=1", "epochs=25")

    async def on_shelf(system: System) -> float:
        answers = await answered(system, learned, asked)
        return sum(
            category[one] in {category[item] for item in query.history}
            for query, answer in zip(asked, answers, strict=True)
            for one in answer
        )

    assert await on_shelf(made(thorough)) > 1.3 * await on_shelf(made("random"))


async def test_popular_counts_users(training):
    counts = {item.id: 0 for item in training.items}
    for user in training.users:
        for item in user.history:
            counts[item] += 1
    [answer] = await answered(made("popular"), training, [Query("new", ())])
    assert [counts[item] for item in answer] == sorted(counts.values(), reverse=True)[:LIMIT]


@pytest.mark.parametrize("name", each("itemknn", "als", "sasrec"))
async def test_unknown_users_get_popular_items(name, training):
    asked = [Query("new", ()), Query("elsewhere", ("unknown-item",))]
    answers = await answered(made(name), training, asked)
    assert answers == await answered(made("popular"), training, asked)


@pytest.mark.parametrize("name", each(*sorted(LEARNED - {"popular"}), "semantic", "random", "bm25"))
@pytest.mark.parametrize("users", [0, 1])
async def test_very_little_training_data(name, users, training, queries):
    answers = await answered(made(name), Training(training.items, training.users[:users]), queries)
    assert len(answers) == len(queries)


async def test_semantic_equals_embedded_without_diversity_and_words(training):
    """Both are the same formula over the same vectors: one by the service, one in plain floats."""
    asked = [Query(one.id, one.history) for one in training.users]
    ours = await answered(made("embedded:diversity=0,exact_words=0"), training, asked)
    semantic = await answered(made("semantic"), training, asked)
    same = sum(len(set(a) & set(b)) for a, b in zip(ours, semantic, strict=True))
    assert same >= 0.98 * LIMIT * len(asked)


async def test_tfidf_finds_the_same_theme(training):
    [answer] = await answered(
        made("semantic:embedder=tfidf"), training, [Query("new", (training.items[0].id,))]
    )
    assert len(answer) == LIMIT


async def test_popularity_changes_the_semantic_order(training):
    asked = [Query(one.id, one.history[:2]) for one in training.users]
    plain = await answered(made("semantic"), training, asked)
    with_popularity = await answered(made("semantic:popularity=10"), training, asked)
    popular = await answered(made("popular"), training, asked)

    def like_popular(answers: list[list[str]]) -> int:
        return sum(len(set(a) & set(b)) for a, b in zip(answers, popular, strict=True))

    assert like_popular(with_popularity) > 2 * like_popular(plain)


async def test_systems_with_one_embedder_share_a_tree(training):
    trees = Trees()
    context = EvalContext(Settings(), trees=trees)
    for system in systems(["embedded", "beam:diversity=0.3"], context):
        await system.fit(training)
    store = await trees.of(training.items, "lexical")
    assert store is await trees.of(training.items, "lexical")
    assert embedder_for((await store.load()).space).population == len(training.items)


@pytest.mark.parametrize("name", ["embedded", "semantic"])
async def test_an_endpoint_may_encode_the_catalogue(training, hostile_server, name):
    settings = Settings(embedder_base_url=hostile_server.base_url)
    trees = Trees(EmbedderCache(settings.embedder_endpoint))
    context = EvalContext(settings, trees=trees)
    [system, plain] = systems([f"{name}:embedder=openai:m", name], context)
    asked = [Query(one.id, one.history) for one in training.users][:20]
    found = await answered(system, training, asked)
    assert hostile_server.counts.total() > 2
    hostile_server.counts.clear()
    assert found != await answered(plain, training, asked)
    assert not hostile_server.counts
    context.trees.embedders.close()


async def test_diversity_changes_the_answer(training):
    asked = [Query(one.id, one.history) for one in training.users]
    plain = await answered(made("embedded:diversity=0"), training, asked)
    assert plain != await answered(made("embedded:diversity=0.9"), training, asked)


@pytest.mark.parametrize("name", ["beam:effort=economy", "paper:k=2", "flat"])
async def test_with_a_model(name, training, queries):
    """A model with invalid replies: the embedded ranker answers, and the answers are counted."""
    chat = ScriptedChat(lambda turn: Reply("no idea", usage=TokenUsage(10, 2)))
    models = Models(dict.fromkeys(STAGES, StageModel(chat)), MemoryDocuments(), ReplyMode.TEXT)
    answered_calls = []
    system = made(name, models=models, on_answer=lambda *call: answered_calls.append(call))
    answers = await answered(system, training, queries[:2])
    assert all(answers)
    assert getattr(system, "degraded") == 2  # noqa: B009 - not every system counts them
    assert {(by, query.user) for by, query, _ in answered_calls} == {
        (name, "plain"), (name, "bounded")
    }  # fmt: skip
    assert all(answer.usage.calls for _, _, answer in answered_calls)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sasreg", "there is no system 'sasreg': the names are embedded, beam, walk,"),
        ("random:share=0.5", "share is not known; random takes seed"),
        ("bm25:seed=1", "seed is not known; bm25 takes no parameters"),
        ("als:share=0", "als takes seed, share, factors, epochs"),
        ("als:share", "is not NAME:PARAMETER=VALUE"),
        ("als:share=1,share=0.5", "is not NAME:PARAMETER=VALUE"),
        ("embedded:diversity=nan", "finite number"),
        ("beam:embedder=openai", "embedder"),
        ("paper", "set UNILLMREC_LLM_MODEL"),
        ("flat:perspective=action", "set UNILLMREC_LLM_MODEL"),
        ("walk", "set UNILLMREC_LLM_MODEL"),
        ("embedded:embedder=openai:m", "set UNILLMREC_EMBEDDER_BASE_URL"),
        ("semantic:embedder=openai:m", "set UNILLMREC_EMBEDDER_BASE_URL"),
        ("embedded:embedder=openai", "embedder String should match"),
    ],
)
def test_errors_in_names_are_explained(name, message):
    with pytest.raises(UnknownSystem) as raised:
        made(name)
    assert message in str(raised.value)


def test_a_name_may_not_be_repeated():
    with pytest.raises(UnknownSystem, match="named twice"):
        systems(["random", "popular", "random"], EvalContext(Settings()))


@pytest.mark.parametrize(
    ("name", "extra"), [("bm25", "evaluation"), ("als", "evaluation"), ("sasrec", "baselines")]
)
def test_a_missing_library_is_named_with_its_extra(name, extra):
    if importlib.util.find_spec(NEEDS[name]) is not None:
        assert made(name).name == name
        return
    with pytest.raises(MissingLibrary, match=rf"\.\[{extra}\]"):
        made(name)


@needs("sasrec")
async def test_training_ends_in_time_and_reports_progress(training):
    reported: list[float] = []
    system = made("fm:epochs=100000,seconds=0.5", progress=lambda _, done: reported.append(done))
    await system.fit(training)
    assert reported == sorted(reported)
    assert reported[-1] == 1.0
    assert 0 < getattr(system, "epochs_trained") < 100_000  # noqa: B009 - of trained ones


async def test_tuned_vectors_have_learned_from_the_training_users():
    histories = coloured_histories(by_colour=True)
    users = [DatasetUser(f"u{n}", tuple(some)) for n, some in enumerate(histories)]
    training = Training(COLOURED_ITEMS, users[:900])
    names = [f"embedded:embedder=lexical,exact_words=0{more}" for more in ("", ",tuned=true")]
    found = []
    for system in systems(names, EvalContext(Settings(), trees=Trees())):
        await system.fit(training)
        answers = await system.rank([Query(user.id, user.history[:-1]) for user in users[900:]], 20)
        found.append(
            sum(
                user.history[-1] in answer
                for user, answer in zip(users[900:], answers, strict=True)
            )
        )
        await system.aclose()
    plain, tuned = found
    assert tuned > 1.5 * plain
