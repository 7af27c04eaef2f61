"""The processes of a service, as Linux lists them."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2

PATIENCE_S = 60


def family(process: subprocess.Popen[str]) -> dict[int, str]:
    """The children of a process and what they run."""
    found = {}
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(OSError):  # gone since
            for child in (task / "children").read_text().split():
                line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if line:  # a zombie has none
                    found[int(child)] = line
    return found


def workers(process: subprocess.Popen[str]) -> set[int]:
    return {pid for pid, line in family(process).items() if "spawn_main" in line}


def until(ready: Callable[..., bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=PATIENCE_S).status_code == 200
    except httpx2.TransportError:
        return False


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
