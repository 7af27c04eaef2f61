"""Files for one test."""

import gzip
from pathlib import Path

import pytest

from tests.app.evaluation.support import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file, compressed where its name says so, and returns the folder."""

    def writer(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return tmp_path

    return writer
