"""Bytes behind a checksum of them: an append-only file has none of its own."""

import zlib

from tree.errors import CorruptSnapshot

_CRC_BYTES = 4


def seal(body: bytes) -> bytes:
    """`body` behind its CRC-32."""
    return zlib.crc32(body).to_bytes(_CRC_BYTES, "big") + body


def unseal(data: bytes | None, what: str) -> bytes:
    """What `seal` was given. Raises CorruptSnapshot, which names `what`, if it is not that."""
    if data is None:
        raise CorruptSnapshot(f"{what} is missing")
    body = data[_CRC_BYTES:]
    if zlib.crc32(body).to_bytes(_CRC_BYTES, "big") != data[:_CRC_BYTES]:
        raise CorruptSnapshot(f"{what} is damaged")
    return body
