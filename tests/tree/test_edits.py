"""Every edit can be stored and read; what is no edit is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tree.edits import DropItem, NodeSpec, PutItem, Relabel, Reshape, decode, encode
from tree.errors import InvalidEdit

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.lists(words, max_size=4).map(tuple)
numbers = st.integers(0, 2**31)
specs = st.builds(
    NodeSpec, numbers, words, words, names, st.lists(numbers).map(tuple), names, st.booleans()
)
finite = st.floats(allow_nan=False, allow_infinity=False)
edits = st.one_of(
    st.builds(
        PutItem, words, numbers, st.binary(max_size=300), words, finite,
        st.none() | finite, st.booleans(), st.binary(max_size=50),
    ),
    st.builds(DropItem, words),
    st.builds(Reshape, st.lists(numbers).map(tuple), st.lists(specs, max_size=4).map(tuple)),
    st.builds(Relabel, numbers, words, words, st.booleans()),
)  # fmt: skip


@given(st.lists(edits, max_size=10))
def test_edits_come_back_as_they_went(batch):
    assert decode(encode(batch)) == batch


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"not a list", encode([DropItem("x")])[:-1], encode([DropItem("x")]) + b"\x00",
     b"\x91\x92\xa4nope\xa1x", b"\x91\x92\xa4drop\x05"],
    ids=["nothing", "no MessagePack", "text", "cut", "more", "unknown tag", "wrong type"],
)  # fmt: skip
def test_what_was_not_written_here_is_refused(data):
    with pytest.raises(InvalidEdit):
        decode(data)


def test_a_field_of_a_later_release_is_skipped():
    """Replicas of two releases share a log for a while."""
    known = encode([DropItem("x")])
    longer = known.replace(b"\x92\xa4drop", b"\x93\xa4drop") + b"\x01"
    assert decode(longer) == [DropItem("x")]
