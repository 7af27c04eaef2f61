"""The JSON of models, as they write it: the last whole answer counts, and no text takes long."""

import json
import time
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.curate.enrichment.line_prompt import SaidLine
from app.curate.enrichment.line_prompt import read as read_lines
from app.curate.labels.label_prompt import NodeLabel
from app.curate.labels.label_prompt import read as read_labels
from app.llm.chat import Reply
from app.llm.errors import InvalidReply
from app.llm.json_reply import JsonReply, ListForm
from app.llm.loose_json import containers
from app.llm.slates import ReplyMode, Slate, read
from app.recommend.expected import read_expected
from app.recommend.topics import Topic, Topics, read_topics
from prompts import load

SLATE = Slate(load("recall"), ["Dune", "Emma", "Alien"], "Asks for: space", ["space"], 3)
PICKS = [{"n": 3, "score": 90}, {"n": 1, "score": 45}]
GOOD = json.dumps({"picks": PICKS})
DRAFT = json.dumps({"picks": [{"n": 2, "score": 99}]})
STRING = json.dumps(GOOD)


def scores(text: str, mode: ReplyMode = ReplyMode.JSON_OBJECT) -> dict[int, float]:
    found = read(SLATE, mode, Reply(text))
    return {
        at: round(float(score), 2)
        for at, score in enumerate(found.values[:, 0], 1)
        if score == score
    }


@pytest.mark.parametrize("mode", [ReplyMode.JSON_SCHEMA, ReplyMode.JSON_OBJECT, ReplyMode.TEXT])
@pytest.mark.parametrize(
    "text",
    [
        GOOD, f" \n{GOOD}\n", f"```json\n{GOOD}\n```", f"```\n{GOOD}", f"Sure: {GOOD} Enjoy!",
        STRING, f"Here: {STRING}", f"```json\n{STRING}\n```", json.dumps(STRING),
        GOOD + GOOD, f"{GOOD}\n\n{GOOD}",
        f"{DRAFT}\nNo, better:\n{GOOD}", f"{DRAFT}{GOOD} That is all [1], {{really}}.",
        f"I use {{n, score}} as in {{\"n\": 7}}. {GOOD}", f"{{I'd say so}} {GOOD}",
        f'{{"draft": {DRAFT}, "answer": {GOOD}}}', f'{{"answer": {STRING}}}',
        f'<tool_call>{{"name": "picks", "arguments": {GOOD}}}</tool_call>',
        f'{{"properties": {{"picks": {{"type": "array", "items": {{}}}}}}}} {GOOD}',
        f'{{"answer": {GOOD}', f'{GOOD}, "note": "bec', f'{{"note": "{{x", "picks": {GOOD[10:]}',
        '{"picks": [{"n": 3, "score": 90,}, {"n": 1, "score": 45,},],}',
        "{'picks': [{'n': 3, 'score': 90}, {'n': 1, 'score': 45}]}",
        "{picks: [{n: 3, score: 90}, {n: 1, score: 45}]}",
        '{“picks”: [{“n”: 3, “score”: 90}, {“n”: 1, “score”: 45}]}',
        '{"picks": [ // best first\n {"n": 3, "score": 90 /* Alien */}, {"n": 1, "score": 45}]}',
        '{"picks": [{"n": 3, "score": 90} {"n": 1, "score": 45}]}',
        '{"picks": [{"n": 3, "score": 90}, {"n": 1, "score": 45}}',
        '{"picks": [{"n": 3, "why": "the "best" one", "score": 90}, {"n": 1, "score": 45}]}',
        '{"picks": [{"n": 3, "why": "it\'s\ngood", "score": 90}, {"n": 1, "score": 45}]}',
        '{"picks": [{"n": 3, "score": 90}, {"n": 1, "score": 45}, {"n": 2, "sco',
        '{"picks": [{"n": "3", "score": "90"}, {"n": "1", "score": "45"}]}',
        '{"picks": [{"n": 3, "score": "90%"}, {"n": 1, "score": "45 %"}]}',
        '{"picks": [{"n": 3, "score": 90%}, {"n": 1, "score": 45 / 100}]}',
        '{"picks": [{"n": 3, "score": "90/100"}, {"n": 1, "score": "45/100"}]}',
        '{"picks": [{"n": 3, "score": 0.9}, {"n": 1, "score": 0.45}]}',
        '{"picks": [{"n": 3.0, "score": 90.0}, {"n": 1.0, "score": 45.0}]}',
        '{"picks": [{"number": 3, "rating": 90}, {"id": 1, "relevance": "45"}]}',
        '{"picks": [{"n": 3, "score": 90, "for": null}, {"n": 1, "score": 45, "for": "1"}]}',
        '{"picks": [[3, 90], [1, 45]]}', '{"picks": [["3", "90%"], ["1", "45%"]]}',
        '{"picks": {"3": 90, "1": 45}}', '{"picks": {"3": {"score": 90}, "1": {"score": 45}}}',
        '{"3": 90, "1": 45}', "{3: 90, 1: 45}", '{"picks": {"3": 90, "1": 45, "2": 9',
        json.dumps(PICKS), f"{json.dumps({'items': PICKS})}", f'{{"results": {json.dumps(PICKS)}}}',
        f'{{"ok": true, "notes": ["a"], "ranking": {json.dumps(PICKS)}}}',
        '{"n": 3, "score": 90}\n{"n": 1, "score": 45}',
        '{"picks": [{"n": 3, "score": 90}, null, "x", {"n": "?"}, {"n": 1, "score": 45}]}',
        "3: 90\n1: 45", "I would say:\n3: 90\n1: 45",
    ],
)  # fmt: skip
def test_picks_are_read_however_they_are_written(text, mode):
    assert scores(text, mode) == {3: 0.9, 1: 0.45}


def test_bare_numbers_are_a_ranking():
    for text in ('{"picks": [3, 1]}', "[3, 1]", '{"picks": ["3", "1"]}'):
        assert scores(text) == {3: 1.0, 1: 0.5}


def test_the_last_whole_answer_counts_even_if_it_is_empty():
    assert scores(f'{GOOD} but no: {{"picks": []}}') == {}
    assert scores(f'{GOOD} or {{"picks": [{{"n": 2, "sc') == {3: 0.9, 1: 0.45}
    assert scores(f'{GOOD} or {{"picks": ["none"]}}') == {3: 0.9, 1: 0.45}


def test_lines_that_are_given_twice_count_once():
    assert scores("1: 80\n2: 70\nNo wait, the final answer:\n2: 95\n1: 20", ReplyMode.TEXT) == {
        1: 0.2, 2: 0.95,
    }  # fmt: skip
    # Other options after some words belong to the same answer.
    assert scores("Good:\n1: 80\nWeak:\n2: 10", ReplyMode.TEXT) == {1: 0.8, 2: 0.1}


@pytest.mark.parametrize(
    "text",
    ["[1, 2", "{}", "[]", "[[]]", '{"picks": "?"}', '{"topics": [1]}', '{"picks": {"a": 1}}',
     '{"a": {"3": 90}, "b": [1, 2]}'],
)  # fmt: skip
def test_other_json_is_no_answer(text):
    with pytest.raises(InvalidReply):
        scores(text)


TOPICS = Topics((Topic("slow films", 70.0, (1, 2)), Topic("tea", 30.0)), ("horror",))
SAID = '{"topics": [{"topic": "slow films", "weight": 70, "choices": [1, 2]}, {"topic": "tea", '
SAID += '"weight": 30, "choices": []}], "avoid": ["horror"]}'


@pytest.mark.parametrize("mode", [ReplyMode.JSON_SCHEMA, ReplyMode.TEXT])
@pytest.mark.parametrize(
    "text",
    [
        SAID, f"Sure!\n```json\n{SAID}\n```", json.dumps(SAID), f"{SAID} {SAID}",
        f'{{"topics": [{{"topic": "draft"}}]}} Now: {SAID}', SAID.replace('"', "'"),
        SAID.replace("]}", "],}").replace("}]", "},]"), f'{{"profile": {SAID}}}',
        SAID.replace("70", '"70%"'), SAID.replace('["horror"]', '"horror"'),
        SAID.replace('"topic":', '"name":'),
        "70: slow films (1, 2)\n30: tea\n0: horror",
    ],
)  # fmt: skip
def test_topics_are_read_however_they_are_written(text, mode):
    assert read_topics(mode, Reply(text)) == TOPICS


def test_topics_may_be_words_or_a_map():
    found = read_topics(ReplyMode.JSON_OBJECT, Reply('{"topics": ["slow films", "tea"]}'))
    assert [topic.topic for topic in found.topics] == ["slow films", "tea"]
    found = read_topics(ReplyMode.JSON_OBJECT, Reply('{"topics": {"slow films": 70, "tea": "30"}}'))
    assert [(topic.topic, topic.weight) for topic in found.topics] == [
        ("slow films", 70.0),
        ("tea", 30.0),
    ]


@pytest.mark.parametrize("mode", [ReplyMode.JSON_OBJECT, ReplyMode.TEXT])
@pytest.mark.parametrize(
    "text",
    [
        '{"titles": ["Green tea", "Black tea"]}',
        '["Green tea", "Black tea"]',
        '{"titles": [{"title": "Green tea"}, {"name": "Black tea"}]}',
        '{"titles": {"1": "Green tea", "2": "Black tea"}}',
        '{"Titles": ["Green tea", "Black tea"]}',
        '{"items": ["Green tea", "Black tea"], "count": 2}',
        '<draft>{"titles": ["Red paint"]}</draft> {"titles": ["Green tea", "Black tea",]}',
        "Sure! Here are two titles:\n\n1. Green tea\n2. Black tea\n\nLet me know if you need more!",
        "[1] Green tea\n[2] Black tea",
        "- **Green tea\n- **Black tea",
    ],
)
def test_titles_are_read_however_they_are_written(text, mode):
    assert read_expected(mode, Reply(text)).titles == ("Green tea", "Black tea")


@pytest.mark.parametrize("mode", [ReplyMode.JSON_OBJECT, ReplyMode.TEXT])
@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that request.",
        "Sure! Here are six titles:",
        '{"titles": []}',
        '{"titles": ["..", "?", "12"]}',
        '{"titles": 7',
        "[" * 1_000,
        "",
    ],
)
def test_talk_is_no_title(text, mode):
    with pytest.raises(InvalidReply):
        read_expected(mode, Reply(text))


@pytest.mark.parametrize("mode", [ReplyMode.JSON_OBJECT, ReplyMode.TEXT])
@pytest.mark.parametrize(
    "text",
    [
        '{"signs": {"1": {"title": "Tea", "signpost": "All teas"}}}',
        '{"labels": [{"number": "1", "name": "Tea", "description": "All teas"}]}',
        "{'signs': [{'n': 1, 'title': 'Tea', 'signpost': 'All teas',},]}",
        "1: Tea | All teas",
    ],
)
def test_labels_are_read_however_they_are_written(text, mode):
    assert read_labels(1, mode, Reply(text)) == {1: NodeLabel("Tea", "All teas")}


@pytest.mark.parametrize("mode", [ReplyMode.JSON_OBJECT, ReplyMode.TEXT])
@pytest.mark.parametrize(
    "text",
    [
        '{"lines": {"1": {"tag": "a mug", "line": "For tea"}}}',
        '{"items": [{"n": "1", "tag": "a mug", "line": "For tea"}], "note": "done"}',
        '```\n{"lines": [{"n": 1, "tag": "a mug", "line": "For tea"}, {"n": 2, "tag": "cu',
        "1 [a mug]: For tea",
    ],
)
def test_lines_are_read_however_they_are_written(text, mode):
    assert read_lines(mode, Reply(text)) == [SaidLine(1, "a mug", "For tea")]


# -- JSON of any kind

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=4),
    max_leaves=15,
)  # fmt: skip
_CONTAINER = st.lists(_JSON, max_size=4) | st.dictionaries(st.text(max_size=5), _JSON, max_size=4)


@given(_CONTAINER, st.booleans(), st.sampled_from(["", "Sure: ", "```json\n"]))
def test_well_formed_json_is_read_as_it_is(value, ascii_only, before):
    said = json.dumps(value, ensure_ascii=ascii_only, indent=1)
    outermost = [found for found in containers(before + said) if not found.depth]
    assert [(found.value, found.whole) for found in outermost] == [(value, True)]


class Row(msgspec.Struct):
    n: int
    line: str = ""


ROWS = ListForm("rows", Row, "n")


@given(st.text("{}[]\"':,n1 rows\\/*\n“", max_size=60))
def test_any_text_has_entries_or_none(text):
    with suppress(InvalidReply):
        assert all(isinstance(row.n, int) for row in JsonReply(text).entries(ROWS))
    assert all(isinstance(word, str) for word in JsonReply(text).strings("rows"))


@pytest.mark.parametrize(
    "piece",
    ["{", "[", "{}", "[]", '{"', '"', "'", "{'", "{'a}", "{'a' ", "“", "{“", ":", ",", "/*", "//",
     "{//", "\\", '{"a": "{', '{\\"a\\": "{', '["[', '{"a":"[",', "{a ", '"b" ', '{"n": 1}', "1,",
     '{"n": 1, "sc', "[1,", "{1:", "\n", "/* ", "'a ", "{a'}", "“a ",
     '{"rows": [', '"\n', "{ /* *", "}", "]", "NaN ", "[{1}"],
)  # fmt: skip
def test_no_text_takes_long(piece):
    text = piece * (65_536 // len(piece))
    began = time.process_time()
    for before in ("", "{", '{"rows": [', '{"a": "'):
        with suppress(InvalidReply):
            JsonReply(before + text).entries(ROWS)
    assert time.process_time() - began < 3.0  # .3 s by itself
