"""How many texts one call of an endpoint may have."""

from collections.abc import Iterator, Sequence

TEXTS_PER_CALL = 256
CHARS_PER_CALL = 200_000  # providers limit the tokens of a call: 300,000 at OpenAI
# About 500 tokens: most of a description, and as much as many models read at all.
CHARS_PER_TEXT = 2_000


def batches(texts: Sequence[str], most: int = TEXTS_PER_CALL) -> Iterator[list[str]]:
    """The texts, at most `most` to a call; only the beginning of a long text counts."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = min(len(text), CHARS_PER_TEXT)
        if batch and (len(batch) == most or size + length > CHARS_PER_CALL):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch
