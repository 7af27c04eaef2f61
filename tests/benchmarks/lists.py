"""Lists for many users at once: `recommend:batch` over stored users, beside one by one."""

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.service import Service, latencies, running

_CATALOG = "amazon_games"
_PATH = "/v1/catalogs/games"
_USERS = 400
_COUNTED = 4_000  # users whose events count; the lists are for the first ones
_AT_ONCE = 200
_ROUNDS = 5
_EVENTS = 1_000
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def real() -> Iterator[Figure]:
    """400 stored users' lists over 16,859 items with events; the best of some rounds each.

    Others use the machine, too: the least is what the work takes.
    """
    with running() as service:
        service.call("PUT", _PATH, {})
        lines = b"\n".join(item.record() for item in data.real_items(_CATALOG))
        service.finished(service.call("POST", f"{_PATH}/imports", lines))
        histories = data.histories(_CATALOG, _COUNTED)
        _count(service, histories)
        wanted = [
            {"user_id": f"u{number}", "strategy": "embedded", "limit": 10}
            for number in range(_USERS)
        ]
        alone = [(f"{_PATH}/recommend", json.dumps(one).encode()) for one in wanted]
        latencies(service.port, "POST", alone[:50])
        one_by_one = min(sum(latencies(service.port, "POST", alone)) for _ in range(2)) / 1000
        yield Figure("400 users' lists, one by one", one_by_one, "s")
        spent, answered = zip(*(_batched(service, wanted) for _ in range(_ROUNDS)), strict=True)
        yield Figure("400 users' lists, two batches of 200", min(spent), "s", "≤", 2)
        yield Figure("lists that a batch lacks", _USERS - min(answered), "", "=", 0)


def _count(service: Service, histories: Sequence[Sequence[str]]) -> None:
    """Store the users by their events."""
    events = [
        {
            "event_id": f"{number}-{place}",
            "user_id": f"u{number}",
            "item_id": item,
            "type": "purchase",
            "at": (_FIRST + timedelta(hours=place)).isoformat(),
        }
        for number, history in enumerate(histories)
        for place, item in enumerate(history)
    ]
    for start in range(0, len(events), _EVENTS):
        sent = {"events": events[start : start + _EVENTS]}
        rows = service.call("POST", f"{_PATH}/events", sent)["results"]
        if any(row["status"] == "rejected" for row in rows):
            raise RuntimeError(f"an event is rejected: {rows[0]}")


def _batched(service: Service, wanted: Sequence[dict[str, object]]) -> tuple[float, int]:
    """Seconds for all, and how many have a full list."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    began, full = time.perf_counter(), 0
    for start in range(0, len(wanted), _AT_ONCE):
        body = json.dumps({"requests": wanted[start : start + _AT_ONCE]})
        kind = {"Content-Type": "application/json"}
        connection.request("POST", f"{_PATH}/recommend:batch", body, kind)
        content = connection.getresponse().read()
        rows = json.loads(content)["results"]
        full += sum(len((row["answer"] or {"items": ()})["items"]) == 10 for row in rows)
    spent = time.perf_counter() - began
    connection.close()
    return spent, full
