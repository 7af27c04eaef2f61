"""Requests that try to cost as much as they can, and what they hold up meanwhile."""

import json
import random
import socket
import string
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

_BODY_BYTES = 4_194_304
_PATIENCE_S = 60.0  # for an answer; what takes longer counts as this long
_CUT = 3_500  # of 4,000 characters: words around it
_MARKS = "\u0301" * 10_000 + "\u0316" * 9_990  # that Unicode puts in another order
_RARE = 1_000  # one item in so many is rare
_LETTERS = 200_000


@dataclass(frozen=True, slots=True)
class Case:
    """A request that means harm; `timeout_ms` is what it asks for, None where it cannot."""

    what: str
    send: Callable[[int], int]  # to a port; the status, or 0 where the connection was closed
    timeout_ms: int | None = None


def adorned(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Items with attributes and dates for filters to ask for."""
    rng = random.Random(0)
    for number, item in enumerate(items):
        yield item | {
            "attributes": {
                "year": rng.randrange(1950, 2026),
                "price": round(rng.lognormvariate(2.5, 0.6), 2),
                "tags": rng.sample(("live", "remastered", "vinyl", "box", "single", "rare"), 2),
                "released": f"{rng.randrange(1950, 2026)}-{rng.randrange(1, 13):02}-01",
                "in_stock": rng.random() < 0.8,
                "shelf": number % _RARE,
            },
            "published_at": _date(rng),
        }


def cases(catalog: str, titles: list[str], ids: list[str]) -> Iterator[Case]:
    """Requests of at most 4 MB (but for headers), each as bad as its kind can be."""
    path = f"/v1/catalogs/{catalog}"
    rng = random.Random(1)
    yield from _words(path, rng)
    yield from _filters(path, titles, rng)
    yield from _long_lists(path, titles, ids, rng)
    yield from _bodies(path, ids)
    yield from _reading(path, ids)
    yield from _names(path)
    yield from _heavy_items(path)
    yield from _headers()


def _words(path: str, rng: random.Random) -> Iterator[Case]:
    spaces = " " * _CUT
    wishes = {
        "4 kB of spaces": f"a{spaces}b",
        "4 kB of spaces after a no": f"no a{spaces}b",
        "no no no …": "no " * 1_300 + "x",
        "no and and …": "no " + "and " * 990 + "x",
        "one word of 4,000 letters": "a" * 4_000,
        "4,000 characters that grow when folded": "ﷺ" * 3_990 + " ﬃ",
        "4,000 marks of one letter": f"no a{_MARKS[8_000:12_000]}"[:4_000],
        "punctuation alone": "?!" * 2_000,
        "words that nobody knows": " ".join(_word(rng) for _ in range(570)),
    }
    for what, wish in wishes.items():
        body: dict[str, object] = {"instruction": wish, "profile": wish}
        yield _recommend(path, f"wish: {what}", body)
    user = {"profile": f"no a{spaces}b"}
    yield Case("a stored profile of spaces", lambda port: _after(
        port, ("PUT", f"{path}/users/spaces", user), ("POST", f"{path}/recommend",
        {"user_id": "spaces", "timeout_ms": 1_000})), 1_000)  # fmt: skip


def _filters(path: str, titles: list[str], rng: random.Random) -> Iterator[Case]:
    dates = [_date(rng) for _ in range(50)]
    filters: dict[str, object] = {
        "any of 50 dates": {"any": [{"field": "published_at", "eq": date} for date in dates]},
        "title in 1,000 values": {"all": [{"field": "title", "in": titles[:1_000]}]},
        "an unknown field": {"all": [{"field": "colour", "eq": "red"}]},
        "a description in 1,000 values": {"all": [{"field": "description", "in": titles[:1_000]}]},
        "words in order, 50 times": {"any": [{"field": "title", "gte": t} for t in titles[:50]]},
        "150 conditions of 200 titles": {
            kind: [{"field": "title", "in": rng.sample(titles, 200)} for _ in range(50)]
            for kind in ("all", "any", "none")
        },
        "150 unknown fields": {
            kind: [{"field": f"{kind}{n}" * 20, "ne": n} for n in range(50)]
            for kind in ("all", "any", "none")
        },
        "78 conditions of 1,000 dates": {
            kind: [{"field": "published_at", "in": [_date(rng) for _ in range(1_000)]}] * 26
            for kind in ("all", "any", "none")
        },
        "50 values of 20,000 letters": {
            "any": [{"field": "title", "in": ["é" * 19_999] * 2} for _ in range(50)]
        },
        "50 values of 20,000 marks": {"any": [{"field": "title", "in": ["a" + _MARKS] * 50}]},
    }
    for what, asked in filters.items():
        yield _recommend(path, f"filter: {what}", {"filter": asked, "explain": "full"})
        yield _recommend(path, f"the same again: {what}", {"filter": asked}, 10_000)


def _long_lists(path: str, titles: list[str], ids: list[str], rng: random.Random) -> Iterator[Case]:
    known = rng.sample(ids, min(10_000, len(ids)))
    long_titles = [" ".join(rng.choices(titles, k=30))[:360] for _ in range(10_000)]
    asked: dict[str, dict[str, object]] = {
        "history of 10,000 ids": {"history": [{"item_id": one} for one in known]},
        "history of 10,000 titles": {"history": [{"title": one} for one in long_titles]},
        "history of 10,000 unknown ids": {
            "history": [{"item_id": f"{n:0>256}"} for n in range(10_000)]
        },
        "50 titles of 4,000 letters": {
            "history": [{"title": _letters(rng, 4_000)} for _ in range(50)]
        },
        "10,000 excluded ids": {"exclude_items": [f"{n:0>256}" for n in range(10_000)]},
        "100 domains": {"domains": [_letters(rng, 200) for _ in range(100)]},
        "50 fields of 100 items": {
            "limit": 100,
            "explain": "full",
            "history": [{"item_id": one} for one in known[:50]],
            "fields": ["title", "description", "categories", "tags", "year", "published_at"]
            + [_letters(rng, 200) for _ in range(44)],
        },
        "diversity over 500 candidates": {"limit": 100, "diversity": 1.0, "history": [
            {"item_id": one} for one in known[:50]]},
    }  # fmt: skip
    for what, body in asked.items():
        yield _recommend(path, what, body)
    yield _case("user with 10,000 visits", "PUT", f"{path}/users/long", {"history": known})
    events = [
        {"event_id": f"e{n}", "user_id": f"u{n % 7}", "item_id": one, "type": _letters(rng, 64)}
        for n, one in enumerate(known[:1_000])
    ]
    yield _case("1,000 events", "POST", f"{path}/events", {"events": events})
    upserts = [
        {"id": f"new-{n}", "title": "T", "description": _letters(rng, 3_900)} for n in range(1_000)
    ]
    yield _case("1,000 upserts of 4 kB", "POST", f"{path}/items:batch", {"upserts": upserts})
    longest = [_longest(f"long-{n}", rng) for n in range(8)]
    yield _case("8 of the longest items", "POST", f"{path}/items:batch", {"upserts": longest})
    yield _case("one of them", "PUT", f"{path}/items/long-0", _longest("long-0", rng))
    yield _case("a long patch", "PATCH", f"{path}/items/long-1", longest[2] | {"id": "long-1"})
    deletes = [f"new-{n}" for n in range(1_000)]
    yield _case("1,000 deletes", "POST", f"{path}/items:batch", {"deletes": deletes})


def _longest(item: str, rng: random.Random) -> dict[str, object]:
    return {
        "id": item,
        "title": _letters(rng, 1_000),
        "description": _letters(rng, 20_000),
        "categories": [_letters(rng, 200) for _ in range(16)],
        "keywords": [_letters(rng, 200) for _ in range(64)],
    }


def _bodies(path: str, ids: list[str]) -> Iterator[Case]:
    item: dict[str, object] = {"id": "wide", "title": "T"}

    def wide() -> object:
        return item | {f"x{n}": 1 for n in range(300_000)}

    def attributes() -> object:
        return item | {"attributes": {f"x{n}": 1 for n in range(300_000)}}

    def rows() -> object:
        return {"upserts": [item | {f"x{n}": 1 for n in range(5_000)} for _ in range(50)]}

    def texts() -> object:
        many = {"attributes": {"t": [""] * 3_900}}
        return {"upserts": [item | {"id": f"lists-{n}"} | many for n in range(50)]}

    yield _case("an item of 300,000 unknown fields", "PUT", f"{path}/items/wide", wide)
    yield _case("the same as a patch", "PATCH", f"{path}/items/{ids[0]}", wide)
    yield _case("an item of 300,000 attributes", "PUT", f"{path}/items/wide", attributes)
    yield _case("50 rows of 5,000 unknown fields", "POST", f"{path}/items:batch", rows)
    yield _case("50 rows of 3,900 empty texts", "POST", f"{path}/items:batch", texts)
    yield _case(
        "one of 190,000 empty texts", "POST", f"{path}/items:batch",
        lambda: {"upserts": [item | {"attributes": {"t": [""] * 190_000}}]},
    )  # fmt: skip
    yield _case(
        "1,000,000 rows that are none", "POST", f"{path}/items:batch",
        lambda: {"upserts": [0] * 1_000_000},
    )  # fmt: skip
    arrays = "1.3 million empty arrays", lambda: b'{"history":[' + b"[]," * 1_300_000 + b"[]]}"
    deep = "2 million levels", lambda: b'{"history":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}"
    spaces = "4 MB of spaces", lambda: b'{"limit":' + b" " * 4_000_000 + b"1}"
    digits = "4 million digits", lambda: b'{"limit":' + b"9" * 4_000_000 + b"}"
    for what, body in (arrays, deep):
        yield _case(what, "POST", f"{path}/recommend", body)
    yield _case(
        "1,300,000 events that are none", "POST", f"{path}/events",
        lambda: {"events": [[]] * 10**6},
    )  # fmt: skip
    for what, body in (spaces, digits):
        yield _case(what, "POST", f"{path}/recommend", body)


def _reading(path: str, ids: list[str]) -> Iterator[Case]:
    for form in ("graphml", "node-link", "json"):
        yield _case(f"tree of depth 4, {form}", "GET", f"{path}/tree?depth=4&format={form}")
    yield _case("a search that finds nothing", "GET", f"{path}/items?q={'q' * 200}")
    yield _case("100 items", "GET", f"{path}/items?limit=100")
    yield _case("100 neighbours", "GET", f"{path}/similar?item_id={ids[0]}&limit=100")
    yield _case("the whole catalogue", "GET", f"{path}/exports/items")
    yield _case("versions", "GET", f"{path}/tree/versions")


def _names(path: str) -> Iterator[Case]:
    """Names of attributes and categories that are hard to compare with others."""
    rng = random.Random(3)
    fields = ["".join(rng.sample("ab" * 20, 40)) for _ in range(540)]
    rows = [
        {"id": f"field-{at}", "title": "T", "attributes": dict.fromkeys(fields[at : at + 60], 1)}
        for at in range(0, len(fields), 60)
    ]
    yield _case("540 fields named alike", "POST", f"{path}/items:batch", {"upserts": rows})
    asked = {
        kind: [{"field": "".join(rng.sample("ab" * 20, 40)), "ne": 1} for _ in range(50)]
        for kind in ("all", "any", "none")
    }
    yield _recommend(path, "filter: 150 fields named like others", {"filter": asked})
    domains = ["".join(rng.sample("heavy!", 6)) for _ in range(100)]
    yield _recommend(path, "100 domains named alike", {"domains": domains})
    categories = [" ".join(rng.choices("abcdefghij", k=100)) for _ in range(1_000)]
    placed = [
        {"id": f"named-{at}", "title": "T", "categories": [categories[at // 25], name]}
        for at, name in enumerate(categories)
    ]
    yield _case("1,000 upserts in categories of 100 words", "POST", f"{path}/items:batch",
                {"upserts": placed})  # fmt: skip
    wish = "".join(f"no {' '.join(rng.sample('abcdefghij', 2))}, " for _ in range(500))
    yield _recommend(path, "wish: 500 dislikes", {"instruction": wish, "profile": wish})
    yield _case("1,000 deletes of these upserts", "POST", f"{path}/items:batch",
                {"deletes": [row["id"] for row in placed]})  # fmt: skip


def _heavy_items(path: str) -> Iterator[Case]:
    """A hundred items of 180 kB, and what reads all of them at once."""
    rng = random.Random(2)
    item = {
        "title": "Heavy",
        "description": _letters(rng, 20_000),
        "attributes": {f"{n:0>200}": _letters(rng, 2_000) for n in range(64)},
        "domain": "heavy",
    }
    for start in range(0, 100, 20):
        rows = [item | {"id": f"heavy-{n}"} for n in range(start, start + 20)]
        yield _case(f"20 items of 160 kB, from {start}", "POST", f"{path}/items:batch",
                    {"upserts": rows})  # fmt: skip
    fields = ["title", "description", *item["attributes"]][:50]
    body = {"domains": ["heavy"], "limit": 100, "fields": fields, "explain": "full"}
    yield _recommend(path, "50 fields of 100 heavy items", body, 10_000)
    asked = {"any": [{"field": "description", "eq": item["description"]}] * 50}
    yield _recommend(path, "50 long texts to find", {"filter": asked}, 10_000)
    yield _case("the whole catalogue with heavy items", "GET", f"{path}/exports/items")
    yield _case("a search through heavy items", "GET", f"{path}/items?q=heavy&limit=100")


def _headers() -> Iterator[Case]:
    yield Case("one header of 60 MB", lambda port: _header(port, 60))
    yield Case("one header of 300 MB", lambda port: _header(port, 300))
    yield Case("500 half-sent requests", _half_sent)


def _recommend(path: str, what: str, body: dict[str, object], timeout_ms: int = 1_000) -> Case:
    asked = body | {"timeout_ms": timeout_ms}
    return Case(
        what, lambda port: _call(port, "POST", f"{path}/recommend", _encoded(asked)), timeout_ms
    )


def _case(what: str, method: str, path: str, body: object = None) -> Case:
    return Case(
        what, lambda port: _call(port, method, path, b"" if body is None else _encoded(body))
    )


def _encoded(body: object) -> bytes:
    """JSON of a body, or of what makes it: large ones are made when they are sent."""
    made = body() if callable(body) else body
    if isinstance(made, bytes):
        return made
    content = json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(content) <= _BODY_BYTES, f"{len(content):,} bytes"
    return content


def _after(port: int, first: tuple[str, str, object], then: tuple[str, str, object]) -> int:
    for method, path, body in (first, then):
        status = _call(port, method, path, _encoded(body))
    return status


def _call(port: int, method: str, path: str, body: bytes) -> int:
    """The status of the answer, which is read whole; 0 where the connection was closed."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as connection:
        with suppress(OSError):  # an answer may come before all is sent
            connection.sendall(head.encode() + b"\r\n" + body)
        return _status(connection)


def _status(connection: socket.socket) -> int:
    answer = b""
    with suppress(OSError):
        while piece := connection.recv(1 << 20):
            answer = answer or piece
    return int(answer[9:12]) if answer[:5] == b"HTTP/" else 0


def _header(port: int, megabytes: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as connection:
        with suppress(OSError):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Wide: ")
            for _ in range(megabytes):
                connection.sendall(b"x" * 2**20)
            connection.sendall(b"\r\n\r\n")
        return _status(connection)


def _half_sent(port: int) -> int:
    """500 requests that are never sent to their end, until the service gives them up."""
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(500)]
    for connection in connections:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        connection.settimeout(_PATIENCE_S)
    try:
        return max(map(_status, connections))
    finally:
        for connection in connections:
            connection.close()


class Pulse:
    """Asks `/livez` again and again from a process of its own; used as a context."""

    def __init__(self, port: int) -> None:
        context = get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_beat, args=(port, there), daemon=True)

    def __enter__(self) -> "Pulse":
        self._process.start()
        assert self._here.poll(_PATIENCE_S), "/livez is not asked"
        self._here.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send(None)
        self._process.join(_PATIENCE_S)

    def longest(self) -> float:
        """Seconds of the longest wait since it was asked last, or began."""
        self._here.send("longest")
        assert self._here.poll(_PATIENCE_S), "/livez does not answer"
        return float(self._here.recv())


def _beat(port: int, there: Connection) -> None:
    longest, told = 0.0, False
    while True:
        began = time.monotonic()
        with suppress(OSError):
            _call(port, "GET", "/livez", b"")
        longest = max(longest, time.monotonic() - began)
        if not told:
            there.send("ready")
            told, longest = True, 0.0
        while there.poll(0.005):
            if there.recv() is None:
                return
            there.send(longest)
            longest = 0.0


def _date(rng: random.Random) -> str:
    return (
        f"20{rng.randrange(10, 26)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}T00:00:00Z"
    )


def _word(rng: random.Random) -> str:
    return _letters(rng, 6)


def _letters(rng: random.Random, count: int) -> str:
    """So many letters from anywhere in a long text: drawn one by one, they take a second."""
    start = rng.randrange(_LETTERS - count)
    return _long_text()[start : start + count]


@cache
def _long_text() -> str:
    return "".join(random.Random(0).choices(string.ascii_lowercase, k=_LETTERS))
