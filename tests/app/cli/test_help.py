"""The help of commands reads well."""

import pytest

from tests.commands import command


@pytest.mark.parametrize("name", ["enrich", "backup"])
def test_no_line_of_help_breaks_within_a_sentence(tmp_path, name):
    done = command(tmp_path / "data", name, "--help", COLUMNS="400", TERMINAL_WIDTH="400")
    prose = done.stdout.split("Usage:")[1].split("╭")[0].splitlines()[1:]
    lines = [line.strip() for line in prose if line.strip()]
    assert len(lines) == 2
    assert all(line.endswith(".") for line in lines)
