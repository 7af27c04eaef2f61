"""The vectors in the reply of an OpenAI-compatible /v1/embeddings."""

import base64
import binascii

import msgspec
import numpy as np

from app.llm.errors import InvalidReply
from tree.vectors import FloatArray


class _EmbeddingRow(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None


class _EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int | None = None


class _EmbeddingsReply(msgspec.Struct):
    data: list[_EmbeddingRow]
    usage: _EmbeddingUsage | None = None


_reply = msgspec.json.Decoder(_EmbeddingsReply)


def read_embeddings(content: bytes, count: int) -> tuple[FloatArray, int]:
    """float32[count, width] of finite numbers, and the tokens read. Raises InvalidReply."""
    try:
        found = _reply.decode(content)
        rows = [_numbers(row.embedding) for row in found.data]
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise InvalidReply("the endpoint's answer holds no embeddings") from error
    places = [at if row.index is None else row.index for at, row in enumerate(found.data)]
    if sorted(places) != list(range(count)):
        raise InvalidReply(f"the endpoint answers {count} texts with {len(rows)} embeddings")
    if len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise InvalidReply("the endpoint answers with embeddings of different widths")
    vectors = np.empty((count, len(rows[0])), np.float32)
    vectors[places] = rows
    if not np.isfinite(vectors).all():
        raise InvalidReply("the endpoint answers with values that are not finite numbers")
    usage = found.usage.prompt_tokens if found.usage else None
    return vectors, max(0, usage or 0)


def _numbers(embedding: str | list[float]) -> FloatArray:
    """An embedding, in base64 as we ask for it, or as a list from endpoints without base64."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    with np.errstate(over="ignore"):  # too large numbers become inf, which is rejected later
        return np.array(embedding, np.float32)
