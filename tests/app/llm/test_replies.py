"""What is made of good and bad replies to a slate, in every reply mode."""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.llm.chat import Reply
from app.llm.errors import InvalidReply
from app.llm.slates import ReplyMode, Scored, Slate, read
from app.recommend.topics import MAX_TOPICS, read_topics
from prompts import load

FILMS = ["Dune", "Emma", "Alien"]
ONE = Slate(load("recall"), FILMS, "Asks for: space", ["space"], 3)
TWO = Slate(load("recall"), FILMS, "Asks for: space", ["space", "manners"], 3)
TEXTUAL = [ReplyMode.JSON_SCHEMA, ReplyMode.JSON_OBJECT, ReplyMode.TEXT]
JSON_MODES = TEXTUAL[:2]
NAN = math.nan
FIRST = (0.07, NAN, NAN)
FORMAT, RANGE = ["wrong_format"], ["out_of_range"]


def scores(found: Scored) -> list[float] | list[list[float]]:
    """In plain numbers; of one column as a flat list."""
    values = found.values.round(4).astype(float)
    return values[:, 0].tolist() if values.shape[1] == 1 else values.tolist()


def same(found: Scored, *wanted: float | tuple[float, ...]) -> bool:
    expected = np.array(wanted, np.float32).reshape(found.values.shape)
    return np.allclose(found.values, expected, atol=1e-4, equal_nan=True)


def json_picks(*picks: Mapping[str, object]) -> Reply:
    return Reply(json.dumps({"picks": picks}))


# -- JSON


@pytest.mark.parametrize("mode", JSON_MODES)
def test_picks_are_read(mode: ReplyMode) -> None:
    found = read(ONE, mode, json_picks({"n": 3, "score": 90}, {"n": 1, "score": 45}))
    assert same(found, 0.45, NAN, 0.9)
    assert found.values.dtype == np.float32
    assert found.flaws == {}


def test_picks_are_read_by_interest() -> None:
    reply = json_picks(
        {"n": 1, "score": 90, "for": 1}, {"n": 1, "score": 20, "for": 2}, {"n": 2, "score": 70}
    )
    found = read(TWO, ReplyMode.JSON_SCHEMA, reply)
    assert same(found, (0.9, 0.2), (0.7, NAN), (NAN, NAN))
    assert found.flaws == {}


def test_no_picks_is_an_answer() -> None:
    found = read(ONE, ReplyMode.JSON_SCHEMA, json_picks())
    assert same(found, NAN, NAN, NAN)
    assert found.flaws == {"missing": 1}


@pytest.mark.parametrize(
    ("text", "wanted", "flaws"),
    [
        ('```json\n{"picks": [{"n": 2, "score": 80}]}\n```', (NAN, 0.8, NAN), ["wrong_format"]),
        ('Sure! {"picks": [{"n": 2, "score": 80}]} Enjoy', (NAN, 0.8, NAN), ["wrong_format"]),
        ('{"picks": [{"n": 2, "score": 80}, {"n": 1, "sc', (NAN, 0.8, NAN), ["wrong_format"]),
        ('{"picks": [{"n": "2", "score": "80"}]}', (NAN, 0.8, NAN), ["wrong_format"]),
        ('[{"n": 2, "score": 80}]', (NAN, 0.8, NAN), ["wrong_format"]),
        ('{"n": 2, "score": 80}\n{"n": 1, "score": 7}', (0.07, 0.8, NAN), ["wrong_format"]),
        ('{"picks": [{"n": 2, "score": NaN}, {"n": 1, "score": 7}]}', FIRST, FORMAT),
        ('{"picks": [{"n": 2, "score": Infinity}, {"n": 1, "score": 7}]}', FIRST, FORMAT),
        ('{"picks": [{"n": 2, "score": 1e999}, {"n": 1, "score": 7}]}', FIRST, FORMAT),
        ('{"picks": [{"n": 2, "score": "high"}, {"n": 1, "score": 7}]}', FIRST, FORMAT),
        ('{"picks": [{"n": 2, "score": 80.5}]}', (NAN, 0.805, NAN), []),
        ('{"picks": [{"n": 2, "score": 8, "why": "good"}], "note": {}}', (NAN, 0.08, NAN), []),
        ('{"picks": [{"n": 2}, {"n": 3}, {"n": 1, "score": 5}]}', (0.05, 1.0, 0.6667), []),
        ('{"picks": [{"n": 2, "score": 120}, {"n": 1, "score": -4}]}', (0.0, 1.0, NAN), 2 * RANGE),
        ('{"picks": [{"n": 2, "score": 1e300}]}', (NAN, 1.0, NAN), RANGE),
        ('{"picks": [{"n": 9, "score": 80}, {"n": 1, "score": 7}]}', FIRST, RANGE),
        ('{"picks": [{"n": 0, "score": 80}, {"n": 1, "score": 7}]}', FIRST, RANGE),
        ('{"picks": [{"n": 1, "score": 80, "for": 2}, {"n": 1, "score": 7}]}', FIRST, RANGE),
        ('{"picks": [{"n": 1, "score": 80}, {"n": 1, "score": 7}]}', (0.8, NAN, NAN), ["repeated"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", JSON_MODES)
def test_what_can_be_used_of_a_broken_reply_is(
    mode: ReplyMode, text: str, wanted: tuple[float, ...], flaws: list[str]
) -> None:
    found = read(ONE, mode, Reply(text))
    assert same(found, *wanted), scores(found)
    assert sorted(found.flaws.elements()) == flaws


DEEP = "[" * 60_000
BROKEN = [
    "", " ", "null", "{}", "[]", "{", '{"picks": null}', '{"picks": ["a"]}', "no", "{}" * 9,
    '{"picks": [{"score": 4}]}', '{"picks": [{"n": null}]}', '{"picks": [{"n": 1.5}]}', "\ud800",
    f'{{"picks": {DEEP}', f'{{"x": {DEEP}', f'{{"picks": [{{"n": 1, "x": {DEEP}', "\x00",
    '{"picks": [{"n": 1' + "0" * 5_000 + ', "score": 4}]}',
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("mode", JSON_MODES)
def test_a_reply_without_a_pick_is_invalid(mode: ReplyMode, text: str) -> None:
    with pytest.raises(InvalidReply) as caught:
        read(ONE, mode, Reply(text))
    assert caught.value.flaw == "wrong_format"


@pytest.mark.parametrize("mode", TEXTUAL)
def test_picks_of_options_that_nobody_offered_are_invalid(mode: ReplyMode) -> None:
    text = "8: 70\n9: 60" if mode is ReplyMode.TEXT else '{"picks": [{"n": 8, "score": 70}]}'
    with pytest.raises(InvalidReply) as caught:
        read(ONE, mode, Reply(text))
    assert caught.value.flaw == "out_of_range"


# -- text


@pytest.mark.parametrize(
    "text",
    [
        "3: 90\n1: 45", "3: 90\r\n1: 45\r\n", "\n\n3: 90\n\n\n1: 45\n", "3 = 90\n1 = 45",
        "3. 90\n1. 45", "3) 90\n1) 45", "3 - 90\n1 - 45", "3 – 90\n1 – 45", "3:90\n1:45",
        "- 3: 90\n- 1: 45", "* **3**: 90\n* **1**: 45", "#3: 90\n#1: 45", "3: 90%\n1: 45%",
        "3: 90 %\n1: 45 %", "3: 90/100\n1: 45/100", "3: 90,\n1: 45,", "3: 90.\n1: 45.",
        "3: 90, 1: 45", "3: 90; 1: 45", "| 3 | 90 |\n| 1 | 45 |", "3: 90.0\n1: 45.0",
        "Here are the scores\n3: 90 good\n1: 45 poor", "3: 90 (1)\n1: 45 (1)", "(3): 90\n(1): 45",
        "3: **90**\n1: **45**", "[3]: 90\n[1]: 45", "`3: 90`\n`1: 45`", "  3 : 90\n  1 : 45",
    ],
)  # fmt: skip
def test_lines_are_read_in_many_formats(text: str) -> None:
    found = read(ONE, ReplyMode.TEXT, Reply(text))
    assert same(found, 0.45, NAN, 0.9), scores(found)
    assert found.flaws == {}


@pytest.mark.parametrize(
    "text",
    [
        "1: 90 (1)\n1: 20 (2)\n2: 70 (2)", "1: 90 [1]\n1: 20 [2]\n2: 70 [2]",
        "1: 90% (1)\n1: 20% (2)\n2: 70% (2)", "1: 90, 1\n1: 20, 2\n2: 70, 2",
        "1: 90/100 (1)\n1: 20/100 (2)\n2: 70/100 (2)", "1: 90\n1: 20 (2)\n2: 70 (2)",
        "1: 90 (1), 1: 20 (2), 2: 70 (2)", "| 1 | 90 | 1 |\n| 1 | 20 | 2 |\n| 2 | 70 | 2 |",
    ],
)  # fmt: skip
def test_lines_name_their_interest(text: str) -> None:
    found = read(TWO, ReplyMode.TEXT, Reply(text))
    assert same(found, (0.9, 0.2), (NAN, 0.7), (NAN, NAN)), scores(found)
    assert found.flaws == {}


@pytest.mark.parametrize(
    ("text", "wanted", "flaws"),
    [
        ("3: 90\n3: 80\n1: 45", (0.45, NAN, 0.9), ["repeated"]),
        ("3: 90\n7: 80", (NAN, NAN, 0.9), ["out_of_range"]),
        ("3: 250", (NAN, NAN, 1.0), ["out_of_range"]),
        ("3: 90 (4)\n1: 45", (0.45, NAN, NAN), ["out_of_range"]),
        ("I would take 3, then 1", (0.5, NAN, 1.0), ["wrong_format"]),
        ("3\n1\n2", (0.6667, 0.3333, 1.0), ["wrong_format"]),
        ("3", (NAN, NAN, 1.0), ["wrong_format"]),
    ],
)
def test_flaws_of_lines_are_counted(text: str, wanted: tuple[float, ...], flaws: list[str]) -> None:
    found = read(ONE, ReplyMode.TEXT, Reply(text))
    assert same(found, *wanted), scores(found)
    assert sorted(found.flaws.elements()) == flaws


@pytest.mark.parametrize("text", ["", "none of them", "\ud800", "12345", "a1: 20b"])
def test_text_without_numbers_is_invalid(text: str) -> None:
    with pytest.raises(InvalidReply):
        read(ONE, ReplyMode.TEXT, Reply(text))


@pytest.mark.parametrize(
    "text",
    ["," * 65_000, "1," * 32_000, "1:" * 32_000, " " * 65_000, "\n" * 65_000, "1 \n" * 20_000,
     "1:2" + "!" * 65_000, "1: 2 (" + "1" * 65_000, "1" * 65_000, "1: 2." + "3" * 65_000,
     "{" * 65_000, '{"n":' * 13_000, "{" + "a" * 65_000, "{a" * 32_000],
)  # fmt: skip
@pytest.mark.parametrize("mode", TEXTUAL)
def test_no_reply_takes_long_to_read(mode: ReplyMode, text: str) -> None:
    began = time.process_time()
    with suppress(InvalidReply):
        read(ONE, mode, Reply(text))
    assert time.process_time() - began < 1.0


# -- any text at all

GOOD = json.dumps({"picks": [{"n": n, "score": 90 - n, "for": 1} for n in (3, 1, 2)]})
LINES = "3: 90 (1)\n1: 45 (2)\n2: 5 (1)"
SNIPPETS = st.sampled_from(
    ["{", "}", "[", "]", '"', ",", ":", "-", "NaN", "Infinity", "1e999", "null", "true", "\n",
     '{"n":', '"score":', "0", "9" * 400, "9" * 5_000, "\ud800", "```", "(", ")", ".", "%", "/100"]
)  # fmt: skip
ANY_TEXT = st.one_of(
    st.text(st.characters()),
    st.text('0123456789 :,.-()\n{}[]"ns', max_size=80),
    st.lists(SNIPPETS, max_size=25).map("".join),
    st.text("٠١٢३४५ :\n", max_size=20),
)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from([GOOD, LINES]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.one_of(SNIPPETS, st.just(""))) + text[end:]
    return text


def assert_readable(slate: Slate, mode: ReplyMode, reply: Reply) -> None:
    try:
        found = read(slate, mode, reply)
    except InvalidReply:
        return
    assert found.values.shape == (len(slate.options), slate.columns)
    assert found.values.dtype == np.float32
    said = found.values[~np.isnan(found.values)]
    assert ((said >= 0) & (said <= 1)).all()
    assert len(said) or found.flaws["missing"]
    assert all(count > 0 for count in found.flaws.values())


@given(st.one_of(ANY_TEXT, mutations()), st.sampled_from([ONE, TWO]))
@example("1: 80 (" + "1" * 5_000 + ")", ONE)
@example('{"a": ' + DEEP, ONE)
def test_any_text_is_read_or_invalid(text: str, slate: Slate) -> None:
    for mode in TEXTUAL:
        assert_readable(slate, mode, Reply(text))


ANY_CHANCE = st.floats(allow_nan=False)


@given(st.dictionaries(st.text(max_size=3), ANY_CHANCE), st.sampled_from([ONE, TWO]))
def test_any_letters_are_read_or_invalid(letters: dict[str, float], slate: Slate) -> None:
    assert_readable(slate, ReplyMode.LOGPROBS, Reply(letters=letters))


@given(
    st.lists(st.none() | st.dictionaries(st.integers(-1, 5), ANY_CHANCE), max_size=6),
    st.sampled_from([ReplyMode.DECISIONS, ReplyMode.PREDICATES]),
    st.sampled_from([ONE, TWO]),
)
def test_any_decisions_are_read_or_invalid(
    decisions: list[dict[int, float] | None], mode: ReplyMode, slate: Slate
) -> None:
    assert_readable(slate, mode, Reply(decisions=tuple(decisions)))


@given(st.permutations([1, 2, 3]), st.lists(st.integers(0, 100), min_size=3, max_size=3))
def test_what_is_written_is_read(order: list[int], given_scores: list[int]) -> None:
    said = list(zip(order, given_scores, strict=True))
    replies = {
        ReplyMode.JSON_SCHEMA: json_picks(*({"n": n, "score": score} for n, score in said)),
        ReplyMode.TEXT: Reply("\n".join(f"{n}: {score}" for n, score in said)),
    }
    wanted = [score / 100 for _, score in sorted(said)]
    for mode, reply in replies.items():
        found = read(ONE, mode, reply)
        assert same(found, *wanted)
        assert found.flaws == {}


@given(st.one_of(ANY_TEXT, mutations()))
def test_any_text_has_topics_or_is_invalid(text: str) -> None:
    assume(len(text) < 4_000)
    for mode in TEXTUAL:
        try:
            topics = read_topics(mode, Reply(text))
        except InvalidReply:
            continue
        assert 1 <= len(topics.topics) <= MAX_TOPICS


# -- one letter


def test_letters_are_read_with_and_without_blanks() -> None:
    half = math.log(0.5)
    reply = Reply(letters={"C": half, " C": math.log(0.25), "a": math.log(0.125), "Z": -0.1})
    found = read(ONE, ReplyMode.LOGPROBS, reply)
    assert same(found, 1 + math.log(0.125) / 8, 0.0, 1 + math.log(0.75) / 8)
    assert found.flaws == {"missing": 1}


def test_letters_serve_every_interest_alike() -> None:
    found = read(TWO, ReplyMode.LOGPROBS, Reply(letters={"A": 0.0, "B": -4.0, "C": -9.0}))
    assert same(found, (1.0, 1.0), (0.5, 0.5), (0.0, 0.0))
    assert found.flaws == {}


@pytest.mark.parametrize("letters", [{}, {"D": -0.1, "1": -0.2, "": -0.3}])
def test_no_letter_of_an_option_is_invalid(letters: dict[str, float]) -> None:
    with pytest.raises(InvalidReply):
        read(ONE, ReplyMode.LOGPROBS, Reply(letters=letters))


# -- decisions


def test_choices_are_read_by_interest() -> None:
    reply = Reply(decisions=({1: 1.0, 2: math.exp(-4), 3: 0.0}, {2: 0.5}))
    found = read(TWO, ReplyMode.DECISIONS, reply)
    assert same(found, (1.0, NAN), (0.5, 1 + math.log(0.5) / 8), (0.0, NAN))
    assert found.flaws == {}


def test_a_refused_choice_leaves_its_interest_unsaid() -> None:
    found = read(TWO, ReplyMode.DECISIONS, Reply(decisions=(None, {1: 1.0, 7: 0.2})))
    assert same(found, (NAN, 1.0), (NAN, NAN), (NAN, NAN))
    assert found.flaws == {"missing": 1, "out_of_range": 1}


def test_predicates_are_read_by_option() -> None:
    reply = Reply(decisions=({1: 0.75}, None, {1: 1.5}))
    found = read(ONE, ReplyMode.PREDICATES, reply)
    assert same(found, 0.75, NAN, 1.0)
    assert found.flaws == {"missing": 1}
    both = read(TWO, ReplyMode.PREDICATES, reply)
    assert same(both, (0.75, 0.75), (NAN, NAN), (1.0, 1.0))


@pytest.mark.parametrize("mode", [ReplyMode.DECISIONS, ReplyMode.PREDICATES])
@pytest.mark.parametrize("decisions", [(), (None,), (None, None, None), ({},), ({9: 0.5},)])
def test_no_decision_at_all_is_invalid(
    mode: ReplyMode, decisions: tuple[dict[int, float] | None, ...]
) -> None:
    with pytest.raises(InvalidReply) as caught:
        read(ONE, mode, Reply(decisions=decisions))
    assert caught.value.flaw == "missing"
