"""SIGTERM while a service is busy in every way; the long form: `make bench ARGS=sigterm`."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import stopping
from tests.servers.hostile import HostileServer
from tests.servers.tied import tied

ENDS_S = 10
ITEMS = 5_200  # a rebuild of so many is done by processes of their own
WAYS = (
    stopping.a_rebuild,
    stopping.an_import,
    stopping.bombs,
    stopping.hanging_readers,
    stopping.unread,
    stopping.a_trickle,
)


def test_a_busy_service_ends_in_time_and_loses_nothing():
    hostile = HostileServer()
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            (outcome,) = stopping.stopped(Path(folder), hostile, ITEMS, [WAYS])
    finally:
        hostile.stop()
    assert outcome.acknowledged > 0
    assert outcome.lost == []
    assert outcome.seconds <= ENDS_S, outcome.told
    assert "without waiting for" not in outcome.told
    assert "Traceback" not in outcome.told


STUCK = """
import signal, threading, time
from app.cli.shutdown import end_in_time
signal.signal(signal.SIGTERM, lambda *_: print("closing", flush=True))
end_in_time(lambda: 1.0)
threading.Thread(target=time.sleep, args=(600,), name="stuck").start()
print("ready", flush=True)
time.sleep(600)
"""


def test_a_thread_that_never_ends_holds_up_no_end():
    process = subprocess.Popen(
        tied([sys.executable, "-c", STUCK]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert (out, process.returncode) == ("closing\n", 0)
    assert "without waiting for MainThread, stuck" in errors
    assert 1.0 <= time.monotonic() - began < ENDS_S
