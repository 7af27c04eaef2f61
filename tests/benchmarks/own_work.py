"""What the service does for a request beside the calls to a model: its own work.

The endpoint is the one of `golden`: it answers at once, in the form that is asked for. The
processor time is that of the service's process, less what it spends while nobody asks; the store
and the endpoint are others.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from app.options import EffortName
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.golden import ScriptedServer
from tests.benchmarks.service import Service, latencies, running

_CATALOG = "amazon_games"
_PATH = "/v1/catalogs/games/recommend"
_REQUESTS = 150
_ROUNDS = 3
_REST_S = 3.0
_TARGET_MS = 5.0


@dataclass(frozen=True, slots=True)
class _Spent:
    """What one request takes on average, and its wall time beside the endpoint's."""

    cpu_ms: float
    p50_ms: float
    calls: float


def real() -> Iterator[Figure]:
    """Requests with a model over 16,859 items, profiles cached, one after the other."""
    server = ScriptedServer()
    settings = {
        "LLM_BASE_URL": server.base_url,
        "LLM_API_KEY": "none",
        "LLM_MODEL": "scripted",
        "LLM_REPLY_MODE": "json_schema",
        "LLM_EXAMINATION": "false",
        "LLM_LABELS": "false",
    }
    try:
        with running(**settings) as service:
            service.call("PUT", "/v1/catalogs/games", {})
            lines = b"\n".join(item.record() for item in data.real_items(_CATALOG))
            service.finished(service.call("POST", "/v1/catalogs/games/imports", lines))
            idle = _idle(service)
            yield Figure("processor time while nobody asks", 1000 * idle, "ms/s")
            for what, bodies in (("history", _histories()), ("wish", _wishes())):
                yield _figure(f"{what}, no model", _spent(service, server, bodies, {}, idle), None)
                for effort in get_args(EffortName):
                    way = {"strategy": "beam", "effort": effort}
                    spent = _spent(service, server, bodies, way, idle)
                    yield _figure(f"{what}, {effort}", spent, _TARGET_MS)
                    yield Figure(f"{what}, {effort}: p50 without its calls", spent.p50_ms, "ms")
    finally:
        server.stop()


def _figure(what: str, spent: _Spent, target: float | None) -> Figure:
    calls = f" beside {spent.calls:.1f} calls" if spent.calls else ""
    return Figure(f"{what}: processor time{calls}", spent.cpu_ms, "ms", "≤", target)


def _histories() -> list[dict[str, object]]:
    histories = data.histories(_CATALOG, _REQUESTS)
    return [{"history": [{"item_id": one} for one in ids]} for ids in histories]


def _wishes() -> list[dict[str, object]]:
    with (data.FOLDER / "wishes.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [{"instruction": row["wish"]} for row in rows][:_REQUESTS]


def _idle(service: Service) -> float:
    """Seconds of processor time in a second, while nobody asks."""
    before = _cpu_s(service.pid)
    time.sleep(_REST_S)
    return (_cpu_s(service.pid) - before) / _REST_S


def _spent(
    service: Service,
    server: ScriptedServer,
    bodies: Sequence[dict[str, object]],
    way: dict[str, object],
    idle: float,
) -> _Spent:
    way = way or {"strategy": "embedded"}
    requests = [(_PATH, json.dumps(body | way).encode()) for body in bodies]
    latencies(service.port, "POST", requests)  # profiles are cached now
    server.asked()
    found = []
    for _ in range(_ROUNDS):  # the least: others may use the machine
        before, called_s = _cpu_s(service.pid), server.busy_s
        walls = latencies(service.port, "POST", requests)
        cpu_ms = 1000 * (_cpu_s(service.pid) - before) / len(requests)
        cpu_ms -= idle * float(np.mean(walls))
        endpoint_ms = 1000 * (server.busy_s - called_s) / len(requests)
        found.append((cpu_ms, float(np.percentile(walls, 50)) - endpoint_ms))
    calls = len(server.asked()) / _ROUNDS / len(requests)
    cpus, p50s = zip(*found, strict=True)
    return _Spent(min(cpus), min(p50s), calls)


def _cpu_s(pid: int) -> float:
    """The seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
