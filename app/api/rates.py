"""The rate limit of a key: every request counts, and a batch counts as several."""

import math
from http import HTTPStatus

from fastapi import Request

from app.api.dependencies import caller_of, dependencies_of
from app.api.problems import ApiError
from app.keys import Key, Keyring

ROWS = 100  # this many rows count as one request
RATE_HEADERS = "unillmrec.headers"  # headers of the answer in its ASGI scope, set by the gate


async def count(
    keyring: Keyring,
    key: Key,
    headers: dict[str, str],
    requests: int = 1,
    advice: str = "slow down",
) -> None:
    """Count requests of a key, and put the rest of its limit into `headers`.

    Their form is draft-ietf-httpapi-ratelimit-headers-10. Raises ApiError with the advice,
    StoreBusy.
    """
    found = await keyring.count(key, requests)
    if key.rate_per_minute is None or found is None:
        return
    headers["RateLimit-Policy"] = f'"key";q={key.rate_per_minute};w=60'
    headers["RateLimit"] = f'"key";r={found.left};t={math.ceil(found.reset_s)}'
    if not found.granted:
        raise ApiError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "rate_limited",
            f"this key allows {key.rate_per_minute:,} requests a minute: {advice}",
            headers={"Retry-After": str(max(1, math.ceil(found.reset_s)))},
        )


async def count_rows(request: Request, rows: int) -> None:
    """Count a batch as one request per 100 rows; the gate has counted the first one.

    Raises ApiError, StoreBusy; call it before any part of the batch is stored.
    """
    advice = f"send fewer rows, {ROWS} of which count as one"
    await _count_more(request, math.ceil(rows / ROWS) - 1, advice)


async def count_requests(request: Request, requests: int) -> None:
    """Count a batch of requests, each as one; the gate has counted the first one.

    Raises ApiError, StoreBusy.
    """
    await _count_more(request, requests - 1, "send fewer requests at once")


async def _count_more(request: Request, more: int, advice: str) -> None:
    key = caller_of(request).key
    if key is not None and more > 0:
        keyring = dependencies_of(request).keyring
        await count(keyring, key, request.scope[RATE_HEADERS], more, advice)
