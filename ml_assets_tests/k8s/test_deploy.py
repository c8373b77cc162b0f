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
*"get deployment/ml-assets-scoring"*) echo '{scoring}' ;;
*"rollout status"*) echo "$*" >> {log}.waited ;;
*"get job"*) echo '{{"status": {{"conditions": [{{"type": "{ending}", "status": "True"}}]}}}}' ;;
esac
"""


DIGESTS = {
    "--image": f"registry.bank.example/ml-assets@sha256:{'1' * 64}",
    "--proxy-image": f"registry.bank.example/oauth2-proxy@sha256:{'2' * 64}",
}


def deploy(name: str, folder: Path, ending: str) -> tuple[int, list[dict[str, dict]]]:
    """Deploy an overlay to nowhere; return the exit code and what was applied, each time by kind and name."""
    done, applied = run(name, folder, ending, {} if name == "local" else DIGESTS)
    return done.returncode, applied


def run(name, folder, ending, images, scoring=""):
    log, program = folder / "applied", folder / "kubectl"
    program.write_text(_KUBECTL.format(kubectl=kubectl(), log=log, ending=ending, scoring=scoring))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    command = [sys.executable, str(ROOT / "deploy.py"), str(ROOT / "overlays" / name), "--kubectl", str(program)]
    command += [word for option in images.items() for word in option]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    lists = [json.loads(line)["items"] for line in log.read_text().splitlines()] if log.exists() else []
    return done, [{f"{m['kind']}/{m['metadata']['name']}": m for m in items} for items in lists]


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


@pytest.mark.parametrize(("status", "waited"), [("", False), ({}, False), ({"readyReplicas": 2}, True)])
def test_the_scoring_service_is_waited_for_once_it_has_been_ready(status, waited, tmp_path):
    """Guards a first deployment that never ends: without a champion no pod of it is ready."""
    known = "" if status == "" else json.dumps({"status": status})
    done, applied = run("local", tmp_path, "Complete", {}, known)
    assert done.returncode == 0, done.stderr
    assert "Deployment/ml-assets-scoring" in set().union(*applied)
    asked = (tmp_path / "applied.waited").read_text()
    assert ("deployment/ml-assets-scoring" in asked) is waited
    assert "deployment/ml-assets-daemon" in asked
    assert ("ready once there is a champion" in done.stderr) is not waited


@pytest.mark.parametrize(
    ("images", "named"),
    [
        ({}, "mirror/oauth2-proxy:"),
        ({**DIGESTS, "--image": "registry.bank.example/ml-assets:1.2.0"}, "registry.bank.example/ml-assets:1.2.0"),
        ({**DIGESTS, "--image": "registry.bank.example/ml-assets@sha256:12ab"}, "ml-assets@sha256:12ab"),
        ({"--image": DIGESTS["--image"]}, "mirror/oauth2-proxy:"),
    ],
)
@pytest.mark.parametrize("name", ["production", "openshift"])
def test_an_image_that_a_tag_names_is_not_deployed(name, images, named, tmp_path):
    """Guards a tag that somebody moved, and the proxy, whose image nobody gave a digest."""
    done, applied = run(name, tmp_path, "Complete", images)
    assert done.returncode != 0
    assert named in done.stderr
    assert not applied


def test_what_is_deployed_has_the_digests_that_were_given(tmp_path):
    _, applied = run("production", tmp_path, "Complete", DIGESTS)
    made = [m for items in applied for m in items.values()]
    assert {c["image"] for m in made for c in containers_of(m)} == set(DIGESTS.values())
    named = {
        e["value"] for m in made for c in containers_of(m) for e in c.get("env", []) if "CURRENT_IMAGE" in e["name"]
    }
    assert named == {DIGESTS["--image"]}, "what runs use"


def containers_of(manifest):
    pod = manifest["spec"].get("template", {}).get("spec", {}) if "spec" in manifest else {}
    return [*pod.get("initContainers", []), *pod.get("containers", [])]
