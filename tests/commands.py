"""The command line, as tests use it: in this process, or in one of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from typer.testing import CliRunner

import app
from app.cli import commands
from tests.servers.tied import tied

ROOT = Path(app.__file__).parents[1]
DEMO = ROOT / "app" / "demo" / "catalogue.jsonl"
DEMO_ITEMS = len(DEMO.read_text(encoding="utf-8").splitlines())
WAIT_S = 60


def environment(folder: Path, **more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("UNILLMREC_")}
    return {
        **own,
        "UNILLMREC_DATA_DIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "default",
        **more,
    }


def command(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A command in this process: its own would take a second or two to begin."""
    own = {name: None for name in os.environ if name.startswith("UNILLMREC_")}
    runner = CliRunner(env={**own, "UNILLMREC_DATA_DIR": str(folder), **more})
    with chdir(folder.parent):
        done = runner.invoke(commands, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def apart(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env=environment(folder, **more),
        cwd=folder.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=WAIT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


def told(done: subprocess.CompletedProcess[str]) -> dict:
    """The JSON document on stdout of a command that succeeded."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def serving(
    folder: Path, *arguments: str, **more: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`serve` on a free port: its URL and its process."""
    with subprocess.Popen(
        tied([sys.executable, "-m", "app", "serve", "--port", "0", *arguments]),
        env=environment(folder, **more),
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield _url(process), process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise AssertionError("the service does not start:\n" + "".join(lines))


def model(url: str, name: str) -> dict[str, str]:
    """The environment in which a model is asked."""
    return {
        "UNILLMREC_LLM_BASE_URL": url,
        "UNILLMREC_LLM_API_KEY": "key",
        "UNILLMREC_LLM_MODEL": name,
    }
