"""What is read of the bodies that endpoints are known to answer with."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.chat import Reply, TokenUsage
from app.llm.completion import read_completion, read_usage
from app.llm.errors import AnsweredWithError, InvalidReply

ANSWER = '{"picks": [{"n": 2, "score": 90}]}'
DRAFT = 'First idea: {"picks": [{"n": 1, "score": 50}]}'


def body(content: object, finish: object = "stop", **more: object) -> bytes:
    message = {"role": "assistant", "content": content}
    said: dict[str, object] = {"choices": [{"message": message, "finish_reason": finish}]}
    return json.dumps({**said, **more}).encode()


def message_body(**message: object) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def events(*deltas: object, usage: object = None, blank: str = "\n") -> bytes:
    pieces = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    lines = [*pieces, last, {"choices": [], "usage": usage}]
    said = "".join(f"data: {json.dumps(line)}\n{blank}" for line in lines)
    return f"{said}data: [DONE]\n\n".encode()


# -- thoughts


@pytest.mark.parametrize(
    "content",
    [
        f"<think>\n{DRAFT}\n</think>\n\n{ANSWER}",
        f"<think></think>{ANSWER}",
        f"<think>one</think> <think>{DRAFT}</think>\n{ANSWER}",
        f"{DRAFT}\n</think>\n\n{ANSWER}",
        f"<thinking>{DRAFT}</thinking>{ANSWER}",
        f"<Thinking>{DRAFT}</THINKING>{ANSWER}",
        f"<thought>{DRAFT}</thought>{ANSWER}",
        f"<reasoning>{DRAFT}</reasoning><answer>{ANSWER}</answer>",
        f"<seed:think>{DRAFT}</seed:think>{ANSWER}",
        f"[THINK]{DRAFT}[/THINK]{ANSWER}",
        f"◁think▷{DRAFT}◁/think▷{ANSWER}",
        f"<|START_THINKING|>{DRAFT}<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>",
        f"<|begin_of_thought|>{DRAFT}<|end_of_thought|><|begin_of_solution|>{ANSWER}"
        "<|end_of_solution|>",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final"
        f"<|message|>{ANSWER}<|return|>",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final "
        f"<|constrain|>json<|message|>{ANSWER}<|return|>",
        f"analysisThe user wants picks. {DRAFT}assistantfinal{ANSWER}",
        f"<|channel>thought\n{DRAFT}<channel|>{ANSWER}",
        f"<unused94>thought\n{DRAFT}<unused95>{ANSWER}",
        f"<think>{DRAFT}</think><|begin_of_box|>{ANSWER}<|end_of_box|>",
        f"<think>x</think>{ANSWER}<|im_end|>",
        f"<answer>{ANSWER}</answer>\n<think>{DRAFT}</think>",
        f"<answer>{ANSWER}</answer>\n<think>{DRAFT}",
    ],
)
def test_thoughts_are_no_answer(content):
    reply = read_completion(body(content))
    assert reply.text == ANSWER
    assert not reply.only_thinking


@pytest.mark.parametrize(
    "content",
    [
        ANSWER,
        f" \n{ANSWER}",
        '{"picks": [], "note": "<think> and </think> are tags"}',
        '[{"n": 1, "note": "</think>"}]',
        "3: 90\n1: 45",
        "[3]: 90",
        "analysis of sets: 3",
        "",
    ],
)
def test_an_answer_without_thoughts_stays_as_it_is(content):
    assert read_completion(body(content)).text == content


@pytest.mark.parametrize(
    "content",
    ["<think>", f"<think>{DRAFT}", f"  <thinking>{DRAFT}", "<think>x</think>", "analysisLet me",
     f"<think>x</think><think>{DRAFT}", f"[THINK]{DRAFT}", f"<|channel|>analysis<|message|>{DRAFT}",
     "<think>x</think>\n\n<|im_end|>"],
)  # fmt: skip
def test_thoughts_alone_are_told_apart(content):
    for finish in ("length", "stop"):
        reply = read_completion(body(content, finish))
        assert reply.text == ""
        assert reply.only_thinking


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_the_answer_may_stand_among_the_thoughts(name):
    for thoughts in (ANSWER, f"I think so.\n\n{ANSWER}", f"```json\n{ANSWER}\n```", "3: 9\n1: 4"):
        reply = read_completion(message_body(content=None, **{name: thoughts}))
        assert reply.text == thoughts
        assert not reply.only_thinking
    for thoughts in ("Hm.", f"{DRAFT} but no", f"{ANSWER[:-3]}", "1: 2\nBut then, who knows?"):
        reply = read_completion(message_body(content="", **{name: thoughts}))
        assert (reply.text, reply.only_thinking) == ("", True)
    reply = read_completion(message_body(content=ANSWER, **{name: DRAFT}))
    assert (reply.text, reply.only_thinking) == (ANSWER, False)


def test_an_answer_that_was_cut_off_among_its_thoughts_is_none():
    message = {"content": "", "reasoning_content": ANSWER}
    cut = json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode()
    reply = read_completion(cut)
    assert (reply.text, reply.only_thinking, reply.complete) == ("", True, False)


def test_tokens_that_nobody_sees_may_be_thoughts():
    usage = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49,
             "completion_tokens_details": {"reasoning_tokens": 40}}  # fmt: skip
    reply = read_completion(body("", "length", usage=usage))
    assert reply.only_thinking
    assert reply.usage == TokenUsage(9, 40, 0, 40)
    assert not read_completion(body("")).only_thinking  # an empty answer, and no sign of thoughts


# -- envelopes


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": ANSWER}],
        [{"type": "text", "text": ANSWER[:9]}, {"type": "output_text", "text": ANSWER[9:]}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]},
         {"type": "text", "text": ANSWER}],
        [{"text": ANSWER}],
        [ANSWER],
        {"type": "text", "text": ANSWER},
    ],
)  # fmt: skip
def test_content_may_come_in_parts(content):
    assert read_completion(body(content)).text == ANSWER


def test_content_may_be_the_object_itself():
    for content in (json.loads(ANSWER), [{"n": 2, "score": 90}]):
        assert json.loads(read_completion(body(content)).text) == content


def test_the_answer_may_be_what_a_function_is_called_with():
    for arguments in (ANSWER, json.loads(ANSWER)):
        call = {"type": "function", "function": {"name": "picks", "arguments": arguments}}
        for message in ({"tool_calls": [call]}, {"function_call": call["function"]}):
            reply = read_completion(message_body(content=None, **message))
            assert json.loads(reply.text) == json.loads(ANSWER)


@pytest.mark.parametrize(
    "before",
    [b"\xef\xbb\xbf", b"\n\n", b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n", b" \r\n"],
)
def test_what_stands_before_the_body_is_no_part_of_it(before):
    assert read_completion(before + body(ANSWER)).text == ANSWER
    assert read_completion(before + events({"content": ANSWER})).text == ANSWER


@pytest.mark.parametrize("blank", ["\n", "", "\r\n"])
def test_a_stream_is_put_together(blank):
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    stream = events(
        {"role": "assistant", "content": ""}, {"reasoning_content": DRAFT},
        {"content": ANSWER[:7]}, {"content": ANSWER[7:]}, usage=usage, blank=blank,
    )  # fmt: skip
    for sent in (stream, b": waiting\n\n" + stream, b"event: message\n" + stream):
        reply = read_completion(sent)
        assert reply == Reply(ANSWER, usage=TokenUsage(9, 2), complete=False)
        assert read_usage(sent) == TokenUsage(9, 2)


def test_a_stream_may_hold_whole_messages_calls_and_errors():
    whole = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]}
    assert read_completion(b"data: " + json.dumps(whole).encode()).text == ANSWER
    pieces = [
        {"tool_calls": [{"function": {"arguments": part}}]} for part in (ANSWER[:5], ANSWER[5:])
    ]
    assert read_completion(events(*pieces)).text == ANSWER
    with pytest.raises(AnsweredWithError) as caught:
        read_completion(b'data: {"error": {"message": "slow down", "code": 429}}\n\n')
    assert (caught.value.code, caught.value.words) == (429, "slow down")


@pytest.mark.parametrize("finish", ["stop", None, 1, ["stop"], {"type": "eos_token"}, "", True])
def test_a_reason_of_any_type_is_an_end(finish):
    assert read_completion(body(ANSWER, finish)).complete


@pytest.mark.parametrize("finish", ["length", "MAX_TOKENS", "max_tokens", {"type": "length"}])
def test_a_cut_off_reply_is_told(finish):
    assert not read_completion(body(ANSWER, finish)).complete


def test_numbers_that_are_none_and_doubled_keys_do_no_harm():
    logprobs = b'"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": NaN}]}]}'
    sent = body(ANSWER).replace(b'"finish_reason"', logprobs + b', "finish_reason"')
    assert read_completion(sent).text == ANSWER
    doubled = b'{"choices": [], ' + body(ANSWER)[1:]
    assert read_completion(doubled).text == ANSWER
    assert read_completion(body("\ud800" + ANSWER)).text == "?" + ANSWER


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": [
            {"token": "A", "logprob": -0.1}, {"token": "B", "logprob": None}]}]},
        {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": []}]},
        {"content": [{"token": "A", "logprob": "-0.1", "top_logprobs": None}]},
        {"content": [{"top_logprobs": {"A": -0.1}}]},
        {"tokens": ["A"], "token_logprobs": [-0.1], "top_logprobs": [{"A": -0.1}]},
        {"tokens": ["A"], "token_logprobs": [-0.1]},
    ],
)  # fmt: skip
def test_probabilities_of_tokens_come_in_many_forms(logprobs):
    said = {"message": {"content": "A"}, "logprobs": logprobs}
    assert read_completion(json.dumps({"choices": [said]}).encode()).letters == {"A": -0.1}


@pytest.mark.parametrize("logprobs", [[], {}, "no", {"content": {}}, {"content": [None]}, 3])
def test_other_forms_are_no_probabilities(logprobs):
    said = {"message": {"content": "A"}, "logprobs": logprobs}
    assert read_completion(json.dumps({"choices": [said]}).encode()) == Reply("A")


# -- usage


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2}, TokenUsage(9, 2)),
        ({"prompt_tokens": "9", "completion_tokens": "2"}, TokenUsage(9, 2)),
        ({"prompt_tokens": 9.0, "completion_tokens": 2.0}, TokenUsage(9, 2)),
        ({"input_tokens": 9, "output_tokens": 2}, TokenUsage(9, 2)),
        ([{"prompt_tokens": 9, "completion_tokens": 2}], TokenUsage(9, 2)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 40}, TokenUsage(9, 31)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": None,
          "completion_tokens_details": {"reasoning_tokens": 6}}, TokenUsage(9, 8, 0, 6)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 5},
         TokenUsage(9, 2, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details":
          {"cached_tokens": 50}}, TokenUsage(9, 2, 9)),
        ({"prompt_tokens": 9, "completion_tokens": 0}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": -1, "completion_tokens": 2}, None),
        ({"prompt_tokens": [9], "completion_tokens": {}}, None),
        ({"prompt_tokens": 9, "completion_tokens": True}, None),
        ({"prompt_tokens": "many"}, None),
        ({}, None), ([], None), ("9", None), (9, None), (None, None), ([None], None),
    ],
)  # fmt: skip
def test_usage_is_read_or_unknown(usage, wanted):
    reply = read_completion(body(ANSWER, usage=usage))
    assert reply.text == ANSWER
    assert reply.usage == wanted


# -- errors in the place of a reply


@pytest.mark.parametrize(
    ("said", "code", "kind", "words"),
    [
        ({"error": {"message": "slow down", "code": 429}}, 429, None, "slow down"),
        ({"error": {"message": "slow down", "code": "429"}, "choices": None}, 429, "429",
         "slow down"),
        ({"error": {"message": "no", "type": "bad_key"}}, None, "bad_key", "no"),
        ({"error": "overloaded"}, None, None, "overloaded"),
        ({"error": "overloaded", "code": 503, "choices": []}, 503, None, "overloaded"),
        ({"object": "error", "message": "too long", "code": 400}, 400, None, "too long"),
        ({"detail": "Not Found"}, None, None, "Not Found"),
        ({"status": 439, "msg": "too many"}, 439, None, "too many"),
        ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 1002,
         None, "rate limit"),
        ({"choices": [{"error": {"code": 502, "message": "upstream"}, "finish_reason": "error",
                       "message": {"content": ""}}]}, 502, None, "upstream"),
    ],
)  # fmt: skip
def test_an_error_in_a_200_keeps_its_code_and_words(said, code, kind, words):
    with pytest.raises(AnsweredWithError) as caught:
        read_completion(json.dumps(said).encode())
    error = caught.value
    assert (error.code, error.kind, error.words) == (code, kind, words)
    assert words not in str(error)


def test_an_error_beside_an_answer_is_none():
    assert read_completion(body(ANSWER, error={"message": "a warning"})).text == ANSWER
    assert read_completion(body(ANSWER, base_resp={"status_code": 0})).text == ANSWER


# -- anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["message", "content", "text", "type", "tool_calls", "function", "error",
                         "arguments", "logprobs", "top_logprobs", "usage", "prompt_tokens",
                         "completion_tokens", "total_tokens", "reasoning_content", "code",
                         "finish_reason", "delta", "detail", "refusal"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON, JSON, JSON, st.booleans())
def test_any_answer_is_a_reply_or_an_error_of_ours(message, logprobs, usage, streamed):
    choice = {"message": message, "delta": message, "logprobs": logprobs, "finish_reason": usage}
    sent = json.dumps({"choices": [choice, message], "usage": usage}).encode()
    if streamed:
        sent = b"data: " + sent + b"\n\ndata: " + json.dumps(message).encode()
    with suppress(InvalidReply):
        reply = read_completion(sent)
        reply.text.encode()
        assert not (reply.text and reply.only_thinking)
    read_usage(sent)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_of_ours(sent):
    for start in (b"", b"data:", b":", b"{"):
        with suppress(InvalidReply):
            read_completion(start + sent)


@pytest.mark.parametrize(
    "content",
    ["<think>" * 90_000, "</think>" * 80_000, "<" * 600_000, "analysis" * 80_000, "\n{" * 300_000,
     "\n1: 2" * 100_000, "[" * 600_000, "```" * 200_000],
)  # fmt: skip
def test_no_answer_takes_long_to_read(content):
    began = time.process_time()
    read_completion(body(content))
    read_completion(message_body(content="", reasoning_content=content))
    read_completion(events({"content": content}, *[{"content": "a"}] * 1_000))
    assert time.process_time() - began < 1.5
