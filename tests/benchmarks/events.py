"""Events over HTTP: how many one process takes, and what the store keeps of them.

Of every ten events six are impressions and one a click on what a recommendation showed; the others
are views and purchases of real histories. So most are joined with a recommendation.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np

from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.service import Service, latencies, running, throughput, timed
from tests.benchmarks.signals import bytes_by_role
from tree.redis.connection import connect
from tree.redis.data_folder import running_url

_CATALOG = "amazon_games"
_HOME = "/v1/catalogs/games"
_BATCH = 100
_ASKED = 300  # recommendations that events name
_LATENCIES = 300
_BATCHES = 2_000
_CLIENTS = 4
_SECONDS = 10.0
_KINDS, _SHARES = ("impression", "click", "view", "purchase"), (0.6, 0.1, 0.2, 0.1)
_OF_USERS = ("visited", "deed", "reader", "owned")


def real() -> Iterator[Figure]:
    """Batches of 100 events of 16,859 items, the service in one process."""
    users = data.histories(_CATALOG, 20_000, least=3)
    with running(EVENTS_PER_USER_DAY="0") as service:
        service.call("PUT", _HOME, {})
        lines = b"\n".join(item.record() for item in data.real_items(_CATALOG))
        service.finished(service.call("POST", f"{_HOME}/imports", lines))
        answers = [
            service.call("POST", f"{_HOME}/recommend", _wanted(history))
            for history in users[:_ASKED]
        ]
        before = _sizes(service)
        batches = list(islice(_batches(users, answers), _BATCHES + _LATENCIES))
        spent = latencies(service.port, "POST", batches[:_LATENCIES])
        yield Figure("100 events, median", float(np.median(spent)), "ms")
        yield Figure("100 events, p99", float(np.percentile(spent, 99)), "ms", "≤", 50)
        rest = batches[_LATENCIES:]
        rate, _ = throughput(service.port, rest, clients=_CLIENTS, seconds=_SECONDS)
        yield Figure(f"events taken, {_CLIENTS} clients", rate * _BATCH, "a second", "≥", 3_000)
        yield from _kept(service, users, before)


def _wanted(history: Sequence[str]) -> dict[str, object]:
    return {"history": [{"item_id": item} for item in history[-10:]], "explain": "none"}


def _batches(
    users: Sequence[Sequence[str]], answers: Sequence[dict[str, object]]
) -> Iterator[tuple[str, bytes]]:
    """Endless batches; no event id comes twice."""
    rng, numbers = np.random.default_rng(0), count()
    shown = [
        (answer["recommendation_id"], item["item_id"], item["rank"])
        for answer in answers
        for item in answer["items"]  # type: ignore[attr-defined]
    ]
    own = ((user, item) for user, history in enumerate(users) for item in history)
    while True:
        rows = []
        for kind in rng.choice(_KINDS, _BATCH, p=_SHARES):
            row: dict[str, object] = {"event_id": f"e{next(numbers)}", "type": str(kind)}
            if kind in ("impression", "click"):
                at = int(rng.integers(len(shown)))
                recommendation, item, rank = shown[at]
                row |= {"recommendation_id": recommendation, "rank": rank}
                user: object = f"asked {at % _ASKED}"
            else:
                user, item = next(own)
            rows.append({**row, "user_id": str(user), "item_id": item})
        yield f"{_HOME}/events", json.dumps({"events": rows}).encode()


def _kept(
    service: Service, users: Sequence[Sequence[str]], before: dict[str, int]
) -> Iterator[Figure]:
    """What the store keeps of whole histories, each of one user."""
    some = users[:5_000]
    rows = [
        {"event_id": f"h{number}.{at}", "user_id": f"h{number}", "item_id": item, "type": "view"}
        for number, history in enumerate(some)
        for at, item in enumerate(history)
    ]
    between = _sizes(service)
    took = timed(
        lambda: [
            service.call("POST", f"{_HOME}/events", {"events": rows[start : start + 1_000]})
            for start in range(0, len(rows), 1_000)
        ]
    )
    after = _sizes(service)
    grown = {role: size - between.get(role, 0) for role, size in after.items()}
    of_users = sum(grown.get(role, 0) for role in _OF_USERS) / len(some)
    yield Figure("events in batches of 1,000, one client", len(rows) / took, "a second")
    yield Figure(f"kept per user with {len(rows) / len(some):.1f} events", of_users, "B")
    yield Figure("kept per event, for a day or two: its id", grown["event"] / len(rows), "B")
    for role, size in after.items():
        if role not in (*_OF_USERS, "event") and size != before.get(role):
            yield Figure(f"in all for {role}", size / 1024, "kB")


def _sizes(service: Service) -> dict[str, int]:
    """The memory of the keys of the store, by their kind."""

    async def read() -> dict[str, int]:
        url = running_url(service.data_dir)
        assert url is not None
        async with connect(url) as client:
            return await bytes_by_role(client)

    return asyncio.run(read())
