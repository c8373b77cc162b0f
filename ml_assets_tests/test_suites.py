"""Each test belongs to a suite, and each suite has its target in the Makefile, its line in README and its run in CI."""

import re
import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
MAKEFILE = (ROOT / "Makefile").read_text()
MARKERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
SUITES = sorted({marker.split(":")[0] for marker in MARKERS} - {"long"})
# These are run before a release: they build what they need, and with them CI would take over an hour.
NOT_IN_CI = {"gcs", "k8s", "release", "spark"}


def target_of(suite: str) -> str:
    return f"test-{suite.replace('_', '-')}"


def test_make_test_runs_what_is_of_no_suite() -> None:
    (said,) = re.findall(r"^SUITES = (.+)$", MAKEFILE, re.MULTILINE)
    assert sorted(said.split(" or ")) == SUITES


@pytest.mark.parametrize("suite", SUITES)
def test_each_test_of_a_suite_is_run_by_its_target(suite: str) -> None:
    """Guards a test that no target ran: it was marked, and its target named one file of its folder."""
    recipe = MAKEFILE.split(f"\n{target_of(suite)}:")[1].split("\n\n")[0]
    runs = re.findall(r"pytest[^\n]*|\$\(BOTH_CORES\)[^\n]*", recipe.replace("\\\n", " "))
    paths = [path for run in runs for path in re.findall(r"ml_assets_tests\S*", run)]
    marked = [file for file in TESTS.rglob("*.py") if re.search(rf"pytest\.mark\.{suite}\b", file.read_text())]
    assert marked
    for file in marked:
        name = str(file.relative_to(ROOT))
        assert any(name == path or name.startswith(f"{path}/") for path in paths), f"{target_of(suite)}: {name}"


@pytest.mark.parametrize("suite", SUITES)
def test_each_suite_is_told_of_and_is_run(suite: str) -> None:
    target = f"make {target_of(suite)}"
    assert f"| `{target}` |" in (ROOT / "README.md").read_text()
    assert (target in (ROOT / ".ci" / "run").read_text().split("\n")) == (suite not in NOT_IN_CI)
