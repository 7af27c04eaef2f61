"""Every system that is compared: what it answers, and what it never answers."""

import importlib.util
import random

import pytest

from app.evaluation.case import Question, System, Training
from app.evaluation.dataset import Reader
from app.evaluation.systems import (
    NAMES,
    MissingLibrary,
    Surroundings,
    Trees,
    UnknownSystem,
    systems,
)
from app.llm import STAGES, Models, ReplyMode, StageModel
from app.llm.chat import Reply, ScriptedChat, TokenUsage
from app.settings import Settings
from tree.embedders import embedder_for
from tree.item import Item
from tree.store.documents import MemoryDocuments

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
    """Readers of the bundled catalogue, each of whom keeps to one or two categories."""
    chance = random.Random(1)
    shelves: dict[tuple[str, ...], list[Item]] = {}
    for item in demo_items:
        shelves.setdefault(item.key[:2], []).append(item)
    readers = []
    for number in range(120):
        liked = chance.sample(sorted(shelves), 2)
        choices = [item.id for shelf in liked for item in shelves[shelf]]
        chance.shuffle(choices)
        readers.append(Reader(f"r{number}", tuple(choices[: chance.randint(2, 12)])))
    return Training(demo_items, readers)


@pytest.fixture
def questions(training) -> list[Question]:
    ids = [item.id for item in training.items]
    known = training.readers[0].history
    return [
        Question("plain", known),
        Question("bounded", known, candidates=tuple(ids[10:40]), excluded=frozenset(ids[10:20])),
        Question("short of candidates", known[:2], candidates=(ids[60], ids[61], known[0])),
        Question("excluding", known[:3], excluded=frozenset(ids[::2])),
        Question("stranger", ("nobody-knows-it", *training.readers[5].history[:2])),
        Question("profile alone", (), profile="likes slow science fiction about space"),
        Question("nothing at all", ()),
    ]


def made(name: str, **surroundings: object) -> System:
    [system] = systems([name], Surroundings(Settings(), **surroundings))
    return system


async def answered(
    system: System, training: Training, questions: list[Question]
) -> list[list[str]]:
    await system.fit(training)
    answers = await system.rank(questions, LIMIT)
    await system.aclose()
    return answers


@pytest.mark.parametrize("name", each(*sorted(set(NAMES) - {"paper", "flat"})))
async def test_answers_are_allowed_ones(name, training, questions):
    catalogue = {item.id for item in training.items}
    answers = await answered(made(name), training, questions)
    assert len(answers) == len(questions)
    for question, answer in zip(questions, answers, strict=True):
        allowed = catalogue if question.candidates is None else set(question.candidates)
        allowed = allowed - set(question.history) - question.excluded
        assert set(answer) <= allowed, question.reader
        assert len(answer) == len(set(answer)) <= LIMIT
    if name not in ("bm25", "itemknn"):  # which answer with what they can tell something of
        assert len(answers[0]) == LIMIT
        assert len(answers[2]) == 2


@pytest.mark.parametrize("name", each(*sorted(set(NAMES) - {"paper", "flat"})))
async def test_the_same_seed_gives_the_same_answers(name, training, questions):
    first = await answered(made(name), training, questions)
    assert first == await answered(made(name), training, questions)


@pytest.mark.parametrize("name", each("random", "als", "fm", "sasrec"))
async def test_another_seed_gives_others(name, training, questions):
    seeded = f"{name}{',' if ':' in name else ':'}seed=5"
    first = await answered(made(name), training, questions)
    assert first != await answered(made(seeded), training, questions)


@pytest.mark.parametrize("name", each(*sorted(LEARNED - {"popular"})))
async def test_who_learns_finds_what_a_reader_likes(name, training):
    """Better than chance on the shelves of readers whom it was not trained with."""
    shelf = {item.id: item.key[:2] for item in training.items}
    asked = [Question(one.id, one.history[:-1]) for one in training.readers[:60]]
    told = [  # NRMS knows nothing but titles
        item.model_copy(update={"title": f"{' '.join(item.key[:2])} {item.title}"})
        for item in training.items
    ]
    learned = Training(told, training.readers[60:])
    thorough = name.replace("epochs=1", "epochs=25")

    async def on_shelf(system: System) -> float:
        answers = await answered(system, learned, asked)
        return sum(
            shelf[one] in {shelf[item] for item in question.history}
            for question, answer in zip(asked, answers, strict=True)
            for one in answer
        )

    assert await on_shelf(made(thorough)) > 1.3 * await on_shelf(made("random"))


async def test_popular_counts_readers(training):
    counts = {item.id: 0 for item in training.items}
    for reader in training.readers:
        for item in reader.history:
            counts[item] += 1
    [answer] = await answered(made("popular"), training, [Question("new", ())])
    assert [counts[item] for item in answer] == sorted(counts.values(), reverse=True)[:LIMIT]


@pytest.mark.parametrize("name", each("itemknn", "als", "sasrec"))
async def test_strangers_get_what_is_popular(name, training):
    asked = [Question("new", ()), Question("elsewhere", ("nobody-knows-it",))]
    answers = await answered(made(name), training, asked)
    assert answers == await answered(made("popular"), training, asked)


@pytest.mark.parametrize("name", each(*sorted(LEARNED - {"popular"}), "semantic", "random", "bm25"))
@pytest.mark.parametrize("readers", [0, 1])
async def test_hardly_any_training(name, readers, training, questions):
    answers = await answered(
        made(name), Training(training.items, training.readers[:readers]), questions
    )
    assert len(answers) == len(questions)


async def test_the_oracle_is_what_embedded_answers_without_diversity(training):
    """Both are the same formula over the same vectors: one by the service, one in plain floats."""
    asked = [Question(one.id, one.history) for one in training.readers]
    ours = await answered(made("embedded:diversity=0"), training, asked)
    oracle = await answered(made("semantic"), training, asked)
    same = sum(len(set(a) & set(b)) for a, b in zip(ours, oracle, strict=True))
    assert same >= 0.98 * LIMIT * len(asked)


async def test_tfidf_finds_the_same_theme(training):
    [answer] = await answered(
        made("semantic:embedder=tfidf"), training, [Question("new", (training.items[0].id,))]
    )
    assert len(answer) == LIMIT


async def test_popularity_moves_the_oracle(training):
    asked = [Question(one.id, one.history[:2]) for one in training.readers]
    plain = await answered(made("semantic"), training, asked)
    moved = await answered(made("semantic:popularity=10"), training, asked)
    popular = await answered(made("popular"), training, asked)

    def like_popular(answers: list[list[str]]) -> int:
        return sum(len(set(a) & set(b)) for a, b in zip(answers, popular, strict=True))

    assert like_popular(moved) > 2 * like_popular(plain)


async def test_systems_that_ask_alike_share_a_tree(training):
    trees = Trees()
    around = Surroundings(Settings(), trees=trees)
    for system in systems(["embedded", "beam:diversity=0.3"], around):
        await system.fit(training)
    store = await trees.of(training.items, "lexical")
    assert store is await trees.of(training.items, "lexical")
    assert embedder_for((await store.load()).space).population == len(training.items)


@pytest.mark.parametrize("name", ["embedded", "semantic"])
async def test_an_endpoint_may_embed_the_catalogue(training, hostile_server, name):
    settings = Settings(embedder_base_url=hostile_server.base_url)
    around = Surroundings(settings)
    [system, plain] = systems([f"{name}:embedder=openai:m", name], around)
    asked = [Question(one.id, one.history) for one in training.readers][:20]
    found = await answered(system, training, asked)
    assert hostile_server.counts.total() > 2
    hostile_server.counts.clear()
    assert found != await answered(plain, training, asked)
    assert not hostile_server.counts
    around.trees.embedders.close()


async def test_diversity_changes_the_answer(training):
    asked = [Question(one.id, one.history) for one in training.readers]
    plain = await answered(made("embedded:diversity=0"), training, asked)
    assert plain != await answered(made("embedded:diversity=0.9"), training, asked)


@pytest.mark.parametrize("name", ["beam:effort=economy", "paper:k=2", "flat"])
async def test_with_a_model(name, training, questions):
    """A model that never answers to the point: the embedded ranker stands in, and it is counted."""
    chat = ScriptedChat(lambda turn: Reply("no idea", usage=TokenUsage(10, 2)))
    models = Models(dict.fromkeys(STAGES, StageModel(chat)), MemoryDocuments(), ReplyMode.TEXT)
    heard = []
    system = made(name, models=models, heard=lambda *told: heard.append(told))
    answers = await answered(system, training, questions[:2])
    assert all(answers)
    assert system.degraded == 2
    assert {(by, question.reader) for by, question, _ in heard} == {
        (name, "plain"), (name, "bounded")
    }  # fmt: skip
    assert all(answer.usage.calls for _, _, answer in heard)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sasreg", "there is no system 'sasreg': the names are embedded, beam, paper,"),
        ("random:share=0.5", "share is not known; random takes seed"),
        ("bm25:seed=1", "seed is not known; bm25 takes no parameters"),
        ("als:share=0", "als takes seed, share, factors, epochs"),
        ("als:share", "is not NAME:PARAMETER=VALUE"),
        ("als:share=1,share=0.5", "is not NAME:PARAMETER=VALUE"),
        ("embedded:diversity=nan", "finite number"),
        ("beam:embedder=openai", "embedder"),
        ("paper", "set UNILLMREC_LLM_MODEL"),
        ("flat:perspective=action", "set UNILLMREC_LLM_MODEL"),
        ("beam:effort=quality", "set UNILLMREC_LLM_MODEL"),
        ("embedded:embedder=openai:m", "set UNILLMREC_EMBEDDER_BASE_URL"),
        ("semantic:embedder=openai:m", "set UNILLMREC_EMBEDDER_BASE_URL"),
        ("embedded:embedder=openai", "embedder String should match"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name, said):
    with pytest.raises(UnknownSystem) as raised:
        made(name)
    assert said in str(raised.value)


def test_a_name_is_given_once():
    with pytest.raises(UnknownSystem, match="named twice"):
        systems(["random", "popular", "random"], Surroundings(Settings()))


@pytest.mark.parametrize(
    ("name", "extra"), [("bm25", "evaluation"), ("als", "evaluation"), ("sasrec", "baselines")]
)
def test_a_missing_library_says_what_to_install(name, extra):
    if importlib.util.find_spec(NEEDS[name]) is not None:
        assert made(name).name == name
        return
    with pytest.raises(MissingLibrary, match=rf"unillmrec\[{extra}\]"):
        made(name)


@needs("sasrec")
async def test_training_ends_in_time_and_says_how_far_it_is(training):
    told: list[float] = []
    system = made("fm:epochs=100000,seconds=0.5", progress=lambda _, done: told.append(done))
    await system.fit(training)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert 0 < system.epochs_trained < 100_000
