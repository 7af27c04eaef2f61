"""Tokens are counted where a vocabulary can be had, and estimated at once where it cannot."""

import re
import time
from string import printable

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from app.llm.tokens import Vocabulary, estimated_tokens, pieces_of_ascii

ANY_TEXT = st.text(st.characters(), max_size=200)  # surrogates and controls included


@pytest.fixture(scope="module")
def absent() -> Vocabulary:
    vocabulary = Vocabulary("no-such-encoding")
    assert not vocabulary.ready(10)
    return vocabulary


@pytest.fixture
def tiny() -> Vocabulary:
    """A vocabulary of the 256 bytes and one word, given to tiktoken under its own name."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"du": 256, b"dun": 257, b"dune": 258}
    encoding = tiktoken.Encoding(
        "unillmrec_tiny", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={"<|end|>": 259}
    )
    tiktoken.registry.ENCODINGS["unillmrec_tiny"] = encoding
    vocabulary = Vocabulary("unillmrec_tiny")
    assert vocabulary.ready(10)
    return vocabulary


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("dune", 1), ("dune dune", 3), ("emma", 4), ("", 0), ("é", 2), ("<|end|>", 7)],
)
def test_with_a_vocabulary_tokens_are_counted(tiny: Vocabulary, text: str, tokens: int) -> None:
    assert tiny.encoding is not None
    assert tiny.tokens_of(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("   \n", 0), ("dune messiah", 2), ("1234567", 4), ("a, b!", 5), ("戦争と平和", 3)],
)
def test_without_one_they_are_estimated(absent: Vocabulary, text: str, tokens: int) -> None:
    assert absent.encoding is None
    assert absent.tokens_of(text) == tokens


@pytest.mark.parametrize("text", ["戦争と平和", "война и мир", "الحرب", "👩‍🚀🚀"])
def test_other_scripts_count_by_the_character(absent: Vocabulary, text: str) -> None:
    seen = sum(not sign.isspace() for sign in text)
    assert 0.5 * seen <= absent.tokens_of(text) <= seen
    assert absent.tokens_of(text * 50) > 40 * absent.tokens_of(text)


@given(ANY_TEXT, ANY_TEXT)
def test_an_estimate_grows_with_its_text(absent: Vocabulary, text: str, more: str) -> None:
    both = absent.tokens_of(f"{text} {more}")
    assert both >= max(absent.tokens_of(text), absent.tokens_of(more)) >= 0
    assert abs(both - absent.tokens_of(text) - absent.tokens_of(more)) <= 1


@given(st.lists(ANY_TEXT, max_size=4))
def test_messages_add_up(texts: list[str]) -> None:
    assert estimated_tokens(*texts) == sum(estimated_tokens(text) for text in texts)
    assert estimated_tokens(*texts) >= 4 * len(texts)


def test_an_estimate_never_waits_for_a_vocabulary() -> None:
    began = time.monotonic()
    vocabulary = Vocabulary("no-such-encoding-either")
    assert vocabulary.tokens_of("one two three four") == 5
    estimated_tokens("word " * 20_000)
    assert time.monotonic() - began < 1.0
    assert not vocabulary.ready(10)


@given(st.text(alphabet=printable))
def test_pieces_of_ascii_are_counted_as_the_pattern_does(text: str) -> None:
    pieces = re.findall(r"[A-Za-z]+|\d{1,3}|[!-/:-@\[-`{-~]", text)
    assert pieces_of_ascii(text) == len(pieces)
