"""Estimates that do not change in the middle of a test."""

import pytest

from app.llm.tokens import vocabulary


@pytest.fixture(scope="session", autouse=True)
def settled_vocabulary() -> None:
    """Where tiktoken can fetch its vocabulary, tests begin once it is there."""
    vocabulary.ready(60)
