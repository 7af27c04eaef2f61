import asyncio
from pathlib import Path

import pytest

from app.llm.chat import JsonObject, Message, Reply, ScriptedChat, Text, TokenUsage, Turn
from app.llm.errors import InvalidReply, ModelRejected, ModelUnavailable
from app.llm.recording import Recorded, Recorder, RecordingError, Replayed, recorded_models


def turn(question: str, seed: int = 0, timeout_s: float = 5.0) -> Turn:
    return Turn((Message("user", question),), Text(), 100, timeout_s, seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.jsonl"


async def echo(asked: Turn) -> Reply:
    await asyncio.sleep(0.01)
    question = asked.messages[-1].content
    match question:
        case "down":
            raise ModelUnavailable("no luck", timed_out=True)
        case "nonsense":
            raise InvalidReply("what?")
        case "wrong key":
            raise ModelRejected("who are you?")
    return Reply(
        f"{question}!",
        {"A": -0.25},
        ({1: 0.75, 2: 0.25}, None),
        TokenUsage(7, 2, 1),
        complete=question != "long",
    )


QUESTIONS = [turn("one"), turn("two"), turn("one", seed=1), turn("long")]


async def record(path: Path, *turns: Turn) -> tuple[list[Reply], int]:
    calls = 0

    def count(asked: Turn) -> object:
        nonlocal calls
        calls += 1
        return echo(asked)

    with Recorder(path) as recorder:
        model = Recorded(ScriptedChat(count, "m"), recorder)  # type: ignore[arg-type]
        return await asyncio.gather(*map(model.complete, turns)), calls


async def test_a_replay_says_what_the_model_said(path: Path) -> None:
    said, _ = await record(path, *QUESTIONS)
    replayed = Replayed(path, "m")
    assert [await replayed.complete(turn) for turn in QUESTIONS] == said
    assert said[0].usage == TokenUsage(7, 2, 1)
    assert not said[3].complete
    assert recorded_models(path) == {"m"}


async def test_how_long_a_call_may_take_is_not_part_of_the_question(path: Path) -> None:
    said, _ = await record(path, turn("one"))
    assert await Replayed(path, "m").complete(turn("one", timeout_s=0.01)) == said[0]


async def test_the_same_question_is_asked_once(path: Path) -> None:
    said, calls = await record(path, *[turn("one")] * 5)
    assert calls == 1
    assert said == [said[0]] * 5
    _, calls = await record(path, turn("one"), turn("two"))
    assert calls == 1, "the recording is gone on with"
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("question", "error"), [("down", ModelUnavailable), ("nonsense", InvalidReply)]
)
async def test_failures_are_replayed(path: Path, question: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await record(path, turn(question))
    with pytest.raises(error) as raised:
        await Replayed(path, "m").complete(turn(question))
    assert getattr(raised.value, "timed_out", None) in (True, None)


async def test_our_own_mistakes_are_not_recorded(path: Path) -> None:
    with pytest.raises(ModelRejected):
        await record(path, turn("wrong key"))
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "other",
    [
        turn("three"),
        turn("one", seed=2),
        Turn((Message("user", "one"),), JsonObject(), 100, 5.0),
        Turn((Message("user", "one"),), Text(), 99, 5.0),
    ],
)
async def test_another_question_is_not_guessed_at(path: Path, other: Turn) -> None:
    await record(path, *QUESTIONS)
    with pytest.raises(RecordingError, match="does not hold a question"):
        await Replayed(path, "m").complete(other)
    with pytest.raises(RecordingError):
        await Replayed(path, "another").complete(turn("one"))


async def test_a_line_that_was_cut_off_is_made_again(path: Path) -> None:
    said, _ = await record(path, turn("one"), turn("two"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert await record(path, turn("one"), turn("two")) == (said, 1)
    assert path.read_bytes() == whole


async def test_another_file_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    path.write_text('{"id": "a", "title": "An item"}\n')
    with pytest.raises(RecordingError, match=r"replies.jsonl:1: not a line of a recording"):
        await record(path, turn("one"))
    assert path.read_text() == '{"id": "a", "title": "An item"}\n'
    with pytest.raises(RecordingError, match="cannot be read"):
        Replayed(tmp_path / "none", "m")


async def test_who_was_away_is_asked_again_when_a_recording_goes_on(path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        await record(path, turn("down"))
    with Recorder(path) as recorder:
        model = Recorded(ScriptedChat(lambda _: Reply("back"), "m"), recorder)
        assert (await model.complete(turn("down"))).text == "back"
    assert (await Replayed(path, "m").complete(turn("down"))).text == "back"
    assert len(path.read_text().splitlines()) == 2, "what failed is kept"
