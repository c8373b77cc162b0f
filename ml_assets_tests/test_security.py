"""docs/security.md names a test for each promise: each must exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"


def boundaries() -> list[list[str]]:
    """The cells of the rows below 'Boundaries'."""
    part = PAGE.read_text().split("## Boundaries")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return rows[2:]


def test_each_boundary_is_held_by_tests_that_exist() -> None:
    """Guards a promise whose test was renamed or never written."""
    rows = boundaries()
    assert len(rows) >= 10
    for boundary, _, held in rows:
        named = re.findall(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", held)
        assert named, f"nothing holds {boundary}"
        assert len(named) == held.count("::"), held
        for file, test in named:
            made = ast.parse((TESTS / file).read_text())
            assert test in {each.name for each in made.body if isinstance(each, ast.FunctionDef)}, f"{file}::{test}"
