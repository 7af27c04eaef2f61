"""What the costliest requests hold up: the longest wait of `/livez` beside each of them."""

import json
import time
from collections.abc import Iterator

import numpy as np

from tests.benchmarks import data
from tests.benchmarks.costly import Pulse, adorned, cases
from tests.benchmarks.figures import Figure
from tests.benchmarks.service import latencies, running
from tree.item import Item

_WAIT_MS, _LATE_MS = 100, 250


def real() -> Iterator[Figure]:
    """64,031 items with attributes and dates, and one harmful request after the other."""
    plain = [
        item.model_dump(mode="json", exclude_defaults=True)
        for item in data.real_items("amazon_cds")
    ]
    items = [Item.model_validate_json(json.dumps(item)) for item in adorned(plain)]
    with running() as service:
        service.call("PUT", "/v1/catalogs/cds", {})
        payload = b"\n".join(item.record() for item in items)
        service.finished(service.call("POST", "/v1/catalogs/cds/imports", payload))
        yield from _rare(service.port)
        with Pulse(service.port) as pulse:
            time.sleep(1)
            yield Figure("idle: longest /livez wait", 1000 * pulse.longest(), "ms")
            for case in cases("cds", [item.title for item in items], [item.id for item in items]):
                pulse.longest()
                began = time.monotonic()
                status = case.send(service.port)
                spent_ms = 1000 * (time.monotonic() - began)
                wait_ms = 1000 * pulse.longest()
                yield Figure(f"{case.what} ({status}): /livez", wait_ms, "ms", "≤", _WAIT_MS)
                if case.timeout_ms is not None:
                    late = max(0.0, spent_ms - case.timeout_ms)
                    yield Figure(f"{case.what}: late", late, "ms", "≤", _LATE_MS)


def _rare(port: int) -> Iterator[Figure]:
    """Recommend with a filter that one item in a thousand passes."""

    def requests(count: int) -> list[tuple[str, bytes]]:
        return [
            ("/v1/catalogs/cds/recommend", json.dumps({
                "history": [{"item_id": one} for one in ids],
                "filter": {"all": [{"field": "shelf", "eq": number}]},
            }).encode())
            for number, ids in enumerate(data.histories("amazon_cds", count))
        ]  # fmt: skip

    first = latencies(port, "POST", requests(1))
    yield Figure("first filter on a field: all records are read", first[0], "ms")
    spent = latencies(port, "POST", requests(300))
    yield Figure(
        "recommend, one in a thousand passes, p50", float(np.percentile(spent, 50)), "ms", "≤", 15
    )
    yield Figure("recommend, one in a thousand passes, p99", float(np.percentile(spent, 99)), "ms")
