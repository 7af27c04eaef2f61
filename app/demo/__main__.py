"""`make demo`: start the service, load the bundled catalogue, and recommend to each example user.

Everything goes over HTTP, to a server on a free port with a temporary data folder.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table

_Json = dict[str, Any]  # an answer of the service

_HERE = Path(__file__).parent
_CATALOG = "demo"
_START_S = 60.0
_JOB_S = 120.0


def main() -> int:
    """The exit status: 0 when every user got recommendations."""
    console = Console(width=max(100, Console().width))
    with tempfile.TemporaryDirectory(prefix="unillmrec-demo-") as folder:
        console.print("Starting the service (embedded store, embedded ranker) …")
        with _service(Path(folder)) as client:
            _load(client, console)
            users = json.loads((_HERE / "users.json").read_text(encoding="utf-8"))
            unanswered = [user["name"] for user in users if not _show(client, console, user)]
    if unanswered:
        console.print(f"[red]No recommendations for {', '.join(unanswered)}.[/red]")
        return 1
    console.print(
        "\n[bold]Your own catalogue:[/bold] make serve, then "
        ".venv/bin/unillmrec import FILE.jsonl --url http://127.0.0.1:8000"
    )
    return 0


@contextmanager
def _service(folder: Path) -> Iterator[httpx2.Client]:
    """A client of a service that runs until the block ends."""
    port = _free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UNILLMREC_")}
    environment["UNILLMREC_DATA_DIR"] = str(folder / "data")
    log = folder / "service.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "app", "serve", "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _await_ready(client, server, log)
            yield client
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(client: httpx2.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            if client.get("/readyz").is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    raise SystemExit("The service did not start. Its last log lines:\n  " + "\n  ".join(lines))


def _load(client: httpx2.Client, console: Console) -> None:
    _checked(client.put(f"/v1/catalogs/{_CATALOG}", json={}))
    start = time.perf_counter()
    with (_HERE / "catalogue.jsonl").open("rb") as lines:
        job = _checked(
            client.post(
                f"/v1/catalogs/{_CATALOG}/imports",
                content=lines,
                headers={"Content-Type": "application/jsonl"},
            )
        )
    deadline = time.monotonic() + _JOB_S
    while job["state"] in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.1)
        job = _checked(client.get(f"/v1/jobs/{job['id']}"))
    if job["state"] != "succeeded":
        raise SystemExit(f"The import ended as {job['state']}: {job['problem']}")
    result = job["result"]
    console.print(
        f"Imported {result['accepted']} items ({result['rejected']} rejected), "
        f"tree built, in {time.perf_counter() - start:.1f} s.\n"
    )


def _show(client: httpx2.Client, console: Console, user: _Json) -> int:
    request = {**user["request"], "fields": ["title", "creator", "year"]}
    answer = _checked(client.post(f"/v1/catalogs/{_CATALOG}/recommend", json=request))
    table = Table(
        title=f"[bold]{user['name']}[/bold]: {user['about']}",
        title_justify="left",
        caption=f"{answer['timing_ms']['total']:.1f} ms, tree version {answer['tree_version']}",
        caption_justify="right",
        expand=True,
    )
    table.add_column("Title", ratio=3)
    table.add_column("Path", ratio=3, style="cyan")
    table.add_column("Reason", ratio=4, style="dim")
    table.add_column("Score", justify="right", width=5)
    for item in answer["items"]:
        fields = item["fields"]
        table.add_row(
            f"{fields['title']} ({fields['year']})",
            " › ".join(item["path"]),
            item["reason"],
            f"{item['score']:.2f}",
        )
    console.print(table)
    return len(answer["items"])


def _checked(response: httpx2.Response) -> _Json:
    if not response.is_success:
        raise SystemExit(f"{response.request.url} answered {response.status_code}: {response.text}")
    return json.loads(response.content)


if __name__ == "__main__":
    sys.exit(main())
