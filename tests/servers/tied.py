"""Servers of tests that end with the test process, also when that is killed."""

import os
import sys
from collections.abc import Sequence

# By exec it becomes the server itself, under the same process id. A `preexec_fn` would run between
# fork and exec, which newer Pythons warn of in a process with threads.
_TIE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def tied(command: Sequence[str]) -> list[str]:
    """The command, killed when the thread that starts it ends, however it ends; Linux only."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
