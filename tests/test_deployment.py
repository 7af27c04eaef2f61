"""What docker-compose.yml starts: its description and, where there is a Caddy, its proxy."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tests.commands import apart, environment
from tests.servers.loopback import Loopback
from tests.servers.tied import tied

ROOT = Path(__file__).parents[1]
CADDYFILE = (ROOT / "Caddyfile").read_text(encoding="utf-8")
PATIENCE_S = 60
ITEMS = "/v1/catalogs/default/items"


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    described = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    for service in described["services"].values():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert source in described["volumes"] or (ROOT / source).exists(), mount
    return described["services"]


def test_several_replicas_share_a_store_and_their_uploads(services):
    api = services["api"]
    assert api["deploy"]["replicas"] >= 2
    assert "ports" not in api, "replicas cannot share a port of the host"
    assert api["environment"]["UNILLMREC_REDIS_URL"].startswith("redis://redis:")
    assert any(mount.endswith(":/data") for mount in api["volumes"])
    command = services["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_one_address_leads_to_them_and_only_this_machine_reaches_it(services):
    (port,) = services["proxy"]["ports"]
    published, inside = port.rsplit(":", 1)
    assert published.startswith("127.0.0.1:")
    assert f"{{$UNILLMREC_SITE::{inside}}} {{" in CADDYFILE
    assert re.search(r"name api\s+port 8000\b", CADDYFILE)
    assert services["proxy"]["depends_on"]["api"]["condition"] == "service_healthy"


def test_nothing_is_served_to_others_without_a_key(services, tmp_path):
    assert services["api"]["environment"]["UNILLMREC_ADMIN_KEY"].startswith(
        "${UNILLMREC_ADMIN_KEY:?"
    )
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^CMD (\[.*\])$", dockerfile, flags=re.MULTILINE)
    name, *arguments = json.loads(line)
    assert name == "unillmrec"
    refused = apart(tmp_path / "data", *arguments)
    assert refused.returncode == 2
    assert "openssl rand -hex 32" in refused.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def until(ready: Callable[..., bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def proxied(folder: Path, *upstreams: str) -> Iterator[str]:
    """Caddy with our file, but for the addresses; its URL."""
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("there is no caddy on this machine")
    port = free_port()
    text, changed = re.subn(
        r"dynamic a \{.*?\}", f"to {' '.join(upstreams)}", CADDYFILE, flags=re.DOTALL
    )
    assert changed == 1
    config = folder / "Caddyfile"
    config.write_text(text, encoding="utf-8")
    command = tied([caddy, "run", "--adapter", "caddyfile", "--config", str(config)])
    own = {**os.environ, "UNILLMREC_SITE": f"http://127.0.0.1:{port}"}
    with (
        (folder / "caddy.log").open("wb") as log,
        subprocess.Popen(command, stderr=log, env=own) as process,
    ):
        try:
            until(lambda: listens(port), (folder / "caddy.log").read_text())
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def replica(folder: Path, redis_url: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A process of the API as in its container, and its address."""
    port = free_port()
    with subprocess.Popen(
        tied([sys.executable, "-m", "app", "serve", "--port", str(port), "--log-level", "error"]),
        env=environment(
            folder, UNILLMREC_REDIS_URL=redis_url, UNILLMREC_KEY_PREFIX=f"test-{folder.name}"
        ),
    ) as process:
        try:
            yield f"127.0.0.1:{port}", process
        finally:
            process.terminate()


def test_replicas_come_and_go_behind_one_address(tmp_path, embedded_url):
    with ExitStack() as stack:
        started = [stack.enter_context(replica(tmp_path, embedded_url)) for _ in range(3)]
        url = stack.enter_context(proxied(tmp_path, *(address for address, _ in started)))
        client = stack.enter_context(httpx2.Client(base_url=url, timeout=PATIENCE_S))
        until(lambda: client.get("/readyz").status_code == 200, "no replica serves")
        for address, _ in started:
            until(lambda a=address: listens(int(a.rpartition(":")[2])), "a replica is not up")

        rows = "".join(f'{{"id": "{n}", "title": "Item {n}"}}\n' for n in range(20_000))
        content = {"Content-Type": "application/x-ndjson"}
        job = client.post("/v1/catalogs/default/imports", content=rows, headers=content)
        assert job.status_code == 202
        path = f"/v1/jobs/{job.json()['id']}"
        ended = ("succeeded", "failed", "cancelled")
        until(lambda: client.get(path).json()["state"] in ended, "the import does not end")
        assert client.get(path).json()["result"]["accepted"] == 20_000

        for _, process in started[:2]:
            process.kill()
            process.wait()
            for number in range(30):
                assert client.get(f"{ITEMS}/{number}").json()["title"] == f"Item {number}"
                assert client.put(f"{ITEMS}/new", json={"title": str(number)}).status_code < 300
        assert client.delete("/v1/catalogs/default?confirm=default").status_code == 204


def test_events_are_not_held_back(tmp_path):
    read = threading.Event()

    async def events(request: Request) -> StreamingResponse:
        def body() -> Iterator[bytes]:
            yield b"data: first\n\n"
            yield b"data: second\n\n" if read.wait(PATIENCE_S) else b"data: too late\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    upstream = Loopback(Starlette(routes=[Route("/events", events)]))
    address = upstream.base_url.removeprefix("http://").removesuffix("/v1")
    try:
        with (
            proxied(tmp_path, address) as url,
            httpx2.stream("GET", f"{url}/events", timeout=PATIENCE_S) as answer,
        ):
            lines = answer.iter_lines()
            assert next(lines) == "data: first"
            read.set()
            assert [line for line in lines if line] == ["data: second"]
    finally:
        upstream.stop()
