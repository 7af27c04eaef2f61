"""What keys, scopes, rates and budgets add to a recommendation, against a service without keys."""

import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import numpy as np

import app.demo
from tests.benchmarks.figures import Figure
from tests.benchmarks.service import Service, running

_ROUNDS = 1_000
_WARM = 100
_PATH = "/v1/catalogs/default/recommend"
_KINDS: Mapping[str, Mapping[str, object]] = {
    "a key": {},
    "a key with a rate": {"rate_per_minute": 10_000_000},
    "a key with a rate, a budget and origins": {
        "rate_per_minute": 10_000_000,
        "max_cost_usd_per_day": 100,
        "origins": ["https://shop.example"],
    },
}


def real() -> Iterator[Figure]:
    """Each request is sent to both services in turn, so that both see the same machine."""
    folder = Path(app.demo.__file__).parent
    items = (folder / "catalogue.jsonl").read_bytes()
    body = json.dumps({"history": [{"item_id": "book-dune"}], "limit": 10}).encode()
    root = token_hex(32)
    with ExitStack() as stack:
        without = stack.enter_context(running())
        keyed = stack.enter_context(running(ADMIN_KEY=root))
        keyed_by_root = Service(keyed.port, keyed.data_dir, keyed.pid, root)
        for service in (without, keyed_by_root):
            imports = service.call("POST", "/v1/catalogs/default/imports", items)
            service.finished(imports)
        headers = {"the root key": {"X-API-Key": root}}
        for kind, limits in _KINDS.items():
            asked = {"name": kind, "scopes": ["recommend"], "catalogs": ["default"], **limits}
            key = keyed_by_root.call("POST", "/v1/keys", asked)["key"]
            own = {"Origin": "https://shop.example"} if "origins" in limits else {}
            headers[kind] = {"X-API-Key": key, **own}
        for kind, sent in headers.items():
            pids = (without.pid, keyed.pid)
            burnt = [_cpu_ms(pid) for pid in pids]
            before, after = _paired(without.port, keyed.port, body, sent)
            spent = [
                _cpu_ms(one.pid) - cpu for one, cpu in zip((without, keyed), burnt, strict=True)
            ]
            usual = float(np.median(before))
            yield Figure(f"recommend without keys, beside {kind}, p50", usual, "ms")
            added = float(np.median(np.subtract(after, before)))
            yield Figure(f"what {kind} adds, p50 of pairs", added, "ms", "≤", 0.5)
            each = (spent[1] - spent[0]) / (_WARM + _ROUNDS)
            yield Figure(f"what {kind} adds, processor time", each, "ms")


def _cpu_ms(pid: int) -> float:
    """Milliseconds that a process has computed, which others on the machine do not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000 / os.sysconf("SC_CLK_TCK")


def _paired(
    without: int, keyed: int, body: bytes, headers: Mapping[str, str]
) -> tuple[list[float], list[float]]:
    """Milliseconds of the same requests to both, over connections that are kept."""
    spent: tuple[list[float], list[float]] = ([], [])
    ports = (without, keyed)
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports]
    sent: tuple[Mapping[str, str], Mapping[str, str]] = ({}, headers)
    for number in range(_WARM + _ROUNDS):
        for at in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            kind = {"Content-Type": "application/json", **sent[at]}
            connections[at].request("POST", _PATH, body, kind)
            response = connections[at].getresponse()
            content = response.read()
            if response.status != 200:
                raise RuntimeError(f"{response.status} {content[:300]!r}")
            if number >= _WARM:
                spent[at].append((time.perf_counter() - began) * 1000)
    for connection in connections:
        connection.close()
    return spent
