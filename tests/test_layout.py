"""Where tests are: folders mirror the code, and what tests share is in modules of their own."""

import ast
from pathlib import Path

from tests.commands import ROOT

TESTS = ROOT / "tests"
# What has no folder of the code: a whole request, with a model that answers it.
BESIDE = {"app/recommend/with_model"}


def imports_of(file: Path) -> set[str]:
    """The modules that a file imports, and the names that it imports from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_no_test_imports_a_module_of_tests():
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in TESTS.rglob("test_*.py")
    }
    assert {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in TESTS.rglob("*.py")
        for name in imports_of(file) & modules
    } == set()


def test_folders_mirror_the_code():
    folders = {
        str(file.parent.relative_to(TESTS))
        for package in ("app", "tree", "prompts")
        for file in (TESTS / package).rglob("*.py")
    }
    assert {folder for folder in folders - BESIDE if not (ROOT / folder).is_dir()} == set()


def test_schedules_that_take_minutes_are_where_make_looks_for_them():
    marked = {
        file.relative_to(TESTS).parts[0]
        for file in TESTS.rglob("test_*.py")
        if "mark." + "long" in file.read_text(encoding="utf-8")
    }
    assert marked == {"faults"}
