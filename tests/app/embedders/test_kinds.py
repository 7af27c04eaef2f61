"""The names of embedders: which are accepted, and which kind each of them means."""

import re
from contextlib import closing

import pytest

from app.embedders import BUILT_IN, DEFAULT_EMBEDDER, NAME_PATTERN, EmbedderCache, first_space
from app.embedders.kinds import embedder_kinds, parse_name
from app.settings import Settings
from tree.errors import EmbedderUnusable
from tree.node import TreeSettings

KINDS = embedder_kinds()


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("lexical", "lexical", ""),
        ("openai:m", "openai", "m"),
        ("openai:a:b", "openai", "a:b"),
        ("sentence-transformers:/a folder", "sentence-transformers", "/a folder"),
        ("minilm", "minilm", ""),
        ("hybrid+minilm", "hybrid+minilm", ""),
        ("hybrid+openai:a:b", "hybrid+openai", "a:b"),
        ("hybrid+sentence-transformers:/a folder", "hybrid+sentence-transformers", "/a folder"),
    ],
)
def test_a_name_is_a_kind_and_perhaps_a_model(name, kind, model):
    found, rest = parse_name(name, KINDS)
    assert (found.name, rest) == (kind, model)
    assert re.fullmatch(NAME_PATTERN, name)


@pytest.mark.parametrize(
    "name",
    [
        "", "lexical:", "lexical:x", "openai", "openai:", "other:m", "hybrid+", "hybrid+lexical",
        "hybrid+openai", "hybrid+minilm:x", "hybridminilm", "lexical+openai:m",
    ],
)  # fmt: skip
def test_other_names_are_unknown_to_the_settings_too(name):
    with pytest.raises(EmbedderUnusable, match="unknown embedder"):
        parse_name(name, KINDS)
    assert not re.fullmatch(NAME_PATTERN, name)


def test_every_service_has_the_embedders_that_defaults_name():
    assert {DEFAULT_EMBEDDER, Settings().embedder, TreeSettings().embedder} <= set(BUILT_IN)


def test_an_endpoint_stays_one_of_this_process_beside_spelling():
    with closing(EmbedderCache()) as embedders:
        assert not embedders.is_local("hybrid+openai:m")
        assert embedders.is_local("hybrid+minilm")
    assert first_space("hybrid+openai:m") == first_space("hybrid")
