"""No server outlives a test run that was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_WAIT_S = 30

_RUN = """
import sys
from pathlib import Path
from tests.servers.cluster import start
cluster = start(Path(sys.argv[1]))
print(*[node.pid for node in cluster.nodes], flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a child")
def test_a_cluster_ends_with_the_process_that_started_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as run:
        assert run.stdout is not None
        nodes = list(map(int, run.stdout.readline().split()))
        assert len(nodes) == 3
        assert all(map(_runs, nodes))
        run.kill()
    deadline = time.monotonic() + _WAIT_S
    try:
        while any(map(_runs, nodes)):
            assert time.monotonic() < deadline, "nodes go on without anybody"
            time.sleep(0.02)
    finally:
        for pid in filter(_runs, nodes):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"valkey" in command
