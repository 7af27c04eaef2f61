"""Lists for many users at once: `recommend:batch` over stored users, beside one by one."""

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.service import Service, latencies, processor_s, running

_CATALOG = "amazon_games"
_PATH = "/v1/catalogs/games"
_USERS = 400
_COUNTED = 4_000  # users whose events count; the lists are for the first ones
_AT_ONCE = 200
_ROUNDS = 3
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
        rounds = [_one_by_one(service, alone) for _ in range(_ROUNDS)]
        yield Figure("400 users' lists, one by one", min(wall for wall, _ in rounds), "s")
        yield Figure("the same, processor time", min(cpu for _, cpu in rounds), "s")
        batches = [_batched(service, wanted) for _ in range(_ROUNDS)]
        least = min(wall for wall, _, _ in batches)
        yield Figure("400 users' lists, two batches of 200", least, "s", "≤", 2)
        yield Figure("the same, processor time", min(cpu for _, cpu, _ in batches), "s")
        full = min(full for _, _, full in batches)
        yield Figure("lists that a batch lacks", _USERS - full, "", "=", 0)


def _one_by_one(service: Service, alone: Sequence[tuple[str, bytes]]) -> tuple[float, float]:
    """Seconds for all, and seconds of processor time of the service."""
    before = processor_s(service.pid)
    wall = sum(latencies(service.port, "POST", alone)) / 1000
    return wall, processor_s(service.pid) - before


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


def _batched(service: Service, wanted: Sequence[dict[str, object]]) -> tuple[float, float, int]:
    """Seconds for all, seconds of processor time of the service, and how many lists are full."""
    before = processor_s(service.pid)
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
    return spent, processor_s(service.pid) - before, full
