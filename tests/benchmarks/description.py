"""Whether a running service keeps what /openapi.json promises: schemathesis asks it.

Every route gets requests that its description allows and requests that it forbids, alone and in
sequences that use the ids of earlier answers. The exceptions are in `description.toml`.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

from tests.benchmarks.figures import Figure
from tests.benchmarks.service import Service, running

_CONFIGURATION = Path(__file__).with_name("description.toml")
_ADMIN_KEY = "a-root-key-for-the-benchmark-alone"
_EXAMPLES = 240  # per route and phase: some 10,600 cases each way
_WAYS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("without keys", {}),
    ("with keys", {"ADMIN_KEY": _ADMIN_KEY}),
)


def described() -> Iterator[Figure]:
    """Cases, server errors and violations, of a service without keys and of one with them."""
    for way, settings in _WAYS:
        with running(**settings) as service:
            _fill(service)
            report = _asked(service)
        yield Figure(f"{way}: cases", _count(r"(\d+) generated", report), "", "≥", 10_000)
        yield Figure(f"{way}: server errors", _count(r"Server error: (\d+)", report), "", "=", 0)
        yield Figure(
            f"{way}: violations", _count(r"found (\d+) unique failure", report), "", "=", 0
        )


def _fill(service: Service) -> None:
    """The bundled catalogue, and a user, for ids that exist."""
    lines = (resources.files("app.demo") / "catalogue.jsonl").read_bytes()
    job = service.call("POST", "/v1/catalogs/default/imports", lines)
    service.finished(job)
    user = {"history": ["book-dune"], "profile": "likes slow science fiction"}
    service.call("PUT", "/v1/catalogs/default/users/u1", user)


def _asked(service: Service) -> str:
    """What schemathesis prints; violations are shown in full on stderr."""
    key = ["-H", f"X-API-Key: {service.key}"] if service.key else []
    with tempfile.TemporaryDirectory() as folder:  # for its cache of earlier cases
        asked = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "--config-file", _CONFIGURATION,
                "run", f"http://127.0.0.1:{service.port}/openapi.json",
                "--checks", "all", "--continue-on-failure", "--no-color",
                "--max-examples", str(_EXAMPLES), *key,
            ],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if "Test cases:" not in asked.stdout:
        raise RuntimeError(f"schemathesis did not run: {asked.stdout}{asked.stderr}")
    if asked.returncode:
        print(asked.stdout, file=sys.stderr)
    return asked.stdout


def _count(pattern: str, report: str) -> int:
    found = re.search(pattern, report)
    return int(found[1]) if found else 0
