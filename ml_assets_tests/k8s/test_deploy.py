"""`make deploy`: what it asks of kubectl, in which order."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ml_assets_tests.k8s.manifests import OVERLAYS, ROOT, overlay
from ml_assets_tests.k8s.programs import kubectl

# Notes what is applied, hands `kustomize` on, and has the migration end as it is told.
_KUBECTL = """\
#!/bin/sh
case "$*" in
kustomize*) exec {kubectl} "$@" ;;
apply*) cat >> {log}; echo >> {log} ;;
*"get job"*) echo '{{"status": {{"conditions": [{{"type": "{ending}", "status": "True"}}]}}}}' ;;
esac
"""


def deploy(name: str, folder: Path, ending: str) -> tuple[int, list[dict[str, dict]]]:
    """Deploy an overlay to nowhere; return the exit code and what was applied, each time by kind and name."""
    log, program = folder / "applied", folder / "kubectl"
    program.write_text(_KUBECTL.format(kubectl=kubectl(), log=log, ending=ending))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    command = [sys.executable, str(ROOT / "deploy.py"), str(ROOT / "overlays" / name), "--kubectl", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    lists = [json.loads(line)["items"] for line in log.read_text().splitlines()]
    return done.returncode, [{f"{m['kind']}/{m['metadata']['name']}": m for m in items} for items in lists]


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_runs_for_good_waits_for_the_migration(name, tmp_path):
    code, applied = deploy(name, tmp_path, "Complete")
    assert code == 0
    (migrated,) = (number for number, items in enumerate(applied) if "Job/ml-assets-migrate" in items)
    (rolled,) = (number for number, items in enumerate(applied) if "Deployment/ml-assets-daemon" in items)
    assert rolled > migrated
    assert set().union(*applied) == {f"{m['kind']}/{m['metadata']['name']}" for m in overlay(name)}


def test_a_migration_that_fails_leaves_programs_as_they_are(tmp_path):
    code, applied = deploy("production", tmp_path, "Failed")
    assert code != 0
    assert not [name for name in set().union(*applied) if name.startswith(("Deployment/", "StatefulSet/"))]
