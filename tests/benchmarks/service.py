"""A real service in a process of its own, and what it takes to measure it over HTTP."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.servers.tied import tied
from tree.redis.data_folder import running_url


@dataclass(frozen=True, slots=True)
class Service:
    """Where it listens and where its data is."""

    port: int
    data_dir: Path
    pid: int
    key: str | None = None  # that it asks for

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The JSON answer. Raises RuntimeError for any status but 2xx."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        payload = body if isinstance(body, bytes) or body is None else json.dumps(body)
        kind = "application/jsonl" if isinstance(body, bytes) else "application/json"
        headers = {"Content-Type": kind} | ({"X-API-Key": self.key} if self.key else {})
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:500]!r}")
        return json.loads(content) if content else {}

    def finished(self, job: dict[str, Any]) -> dict[str, Any]:
        """The job once it has ended, well. Raises RuntimeError otherwise."""
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = self.call("GET", f"/v1/jobs/{job['id']}")
        if job["state"] != "succeeded":
            raise RuntimeError(f"job ended badly: {job}")
        return job


@contextmanager
def running(**settings: str) -> Iterator[Service]:
    """A service with one worker on an empty data folder, stopped and removed at the end.

    `settings` are those of the service, by the names that they have in its environment.
    """
    temporary = tempfile.TemporaryDirectory(prefix="unillmrec-bench-")
    with temporary as folder, _serving(Path(folder), settings) as service:
        yield service


@contextmanager
def joined(service: Service, replicas: int, **settings: str) -> Iterator[list[Service]]:
    """More services on the store of one that runs."""
    url = running_url(service.data_dir)
    assert url is not None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unillmrec-bench-")))
        shared = {**settings, "REDIS_URL": url}
        yield [
            stack.enter_context(_serving(folder / str(number), shared))
            for number in range(replicas)
        ]


@contextmanager
def _serving(folder: Path, settings: Mapping[str, str]) -> Iterator[Service]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data_dir = folder / "data"
    data_dir.mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UNILLMREC_")}
    environment["UNILLMREC_DATA_DIR"] = str(data_dir)
    environment.update((f"UNILLMREC_{name}", value) for name, value in settings.items())
    log = folder / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied([sys.executable, "-m", "app", "serve", "--port", str(port)]),
            env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    service = Service(port, data_dir, process.pid, settings.get("ADMIN_KEY"))
    try:
        _await_ready(service, process, log)
        yield service
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _await_ready(service: Service, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            service.call("GET", "/readyz")
        except (OSError, RuntimeError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the service did not start:\n" + log.read_text()[-2_000:])


def latencies(port: int, method: str, requests: Iterable[tuple[str, bytes]]) -> list[float]:
    """Milliseconds per request over one kept-alive connection, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    spent = []
    for path, body in requests:
        start = time.perf_counter()
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        spent.append((time.perf_counter() - start) * 1000)
        if response.status >= 300:
            raise RuntimeError(f"{path}: {response.status} {content[:300]!r}")
    connection.close()
    return spent


def throughput(
    port: int, requests: Sequence[tuple[str, bytes]], *, clients: int, seconds: float
) -> tuple[float, list[float]]:
    """POSTs per second that `clients` clients get answered, and the latencies in ms.

    The clients live in processes of their own, so that they do not share the interpreter lock.
    """
    share = 4
    with get_context("spawn").Pool(clients // share) as pool:
        pool.map(_warm, range(clients // share))
        parts = pool.starmap(_load, [(port, requests, share, seconds)] * (clients // share))
    spent = [ms for part in parts for ms in part]
    return len(spent) / seconds, spent


def _warm(_: int) -> None:
    """Make the worker process before the clock runs."""


def _load(
    port: int, requests: Sequence[tuple[str, bytes]], clients: int, seconds: float
) -> list[float]:
    deadline = time.monotonic() + seconds

    def until_the_deadline(client: int) -> Iterator[tuple[str, bytes]]:
        at = client * 17
        while time.monotonic() < deadline:
            at += 1
            yield requests[at % len(requests)]

    def one(client: int) -> list[float]:
        return latencies(port, "POST", until_the_deadline(client))

    with ThreadPoolExecutor(clients) as threads:
        return [ms for part in threads.map(one, range(clients)) for ms in part]


def processor_s(pid: int) -> float:
    """Seconds that a process has computed, which others on the machine change little."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
