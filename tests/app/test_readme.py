"""The README says what is so."""

import re
import subprocess
import sys
from pathlib import Path

from app.settings import Settings, table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_settings_table_is_the_generated_one():
    assert table() in README, "paste the output of: .venv/bin/python -m app.settings"


def test_every_setting_says_what_it_does():
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_command_of_the_readme_exists():
    commands = set(re.findall(r"unillmrec ([a-z]+)", README))
    assert commands
    for command in commands:
        run = [sys.executable, "-m", "app", command, "--help"]
        assert subprocess.run(run, cwd=ROOT, capture_output=True, check=False).returncode == 0
