"""Roll out an overlay: settings and accounts, the migration, and only then what uses the new schema.

    python k8s/deploy.py <overlay> [--image <image>] [--proxy-image <image>]     what `make deploy` runs

It uses kubectl and its current context. A migration that fails stops the rollout and shows its log: what runs goes on,
also with its settings, since each release has a map of its own.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

NAMESPACE = "ml-assets"
_SERVERS = {"postgres", "s3", "kafka"}  # of the overlay `local`; others have their servers elsewhere
_WORKLOADS = {"Deployment", "StatefulSet"}
_READY_WITH = "ml-assets/ready-with"  # annotation: what must be there before any pod of it is ready
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_NO_REGISTRY = "localhost/"  # images that lie on the node of a throwaway cluster


def main() -> None:
    """Deploy and wait until everything is ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overlay", type=Path)
    parser.add_argument("--image", default="", help="name of the image, in place of the overlay's")
    parser.add_argument("--proxy-image", default="", help="the same for the OAuth proxy's image")
    parser.add_argument("--kubectl", default="kubectl")
    parser.add_argument("--timeout", type=int, default=600, help="seconds to wait for each thing")
    given = parser.parse_args()
    manifests = list(yaml.safe_load_all(kubectl(given.kubectl, "kustomize", str(given.overlay))))
    for name, image in (("ml-assets", given.image), ("oauth2-proxy", given.proxy_image)):
        if image:
            manifests = [with_image(manifest, name, image) for manifest in manifests]
    require_digests(manifests, given.overlay)
    workloads = [m for m in manifests if m["kind"] in _WORKLOADS]
    servers = [m for m in workloads if m["metadata"]["name"] in _SERVERS]
    (migration,) = (m for m in manifests if m["kind"] == "Job")

    def apply(them: Iterable[dict[str, Any]]) -> None:
        items = list(them)
        kubectl(
            given.kubectl, "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        )

    def wait(them: Iterable[dict[str, Any]]) -> None:
        for each in them:
            what = f"{each['kind'].lower()}/{each['metadata']['name']}"
            kubectl(given.kubectl, "-n", NAMESPACE, "rollout", "status", what, f"--timeout={given.timeout}s")

    say("settings, accounts, policies")
    apply(m for m in manifests if m["kind"] not in {*_WORKLOADS, "Job"})
    apply(servers)
    wait(servers)
    say("migration")
    job = f"job/{migration['metadata']['name']}"
    kubectl(given.kubectl, "-n", NAMESPACE, "delete", job, "--ignore-not-found", "--wait")
    apply([migration])
    await_job(given.kubectl, job, given.timeout)
    say("rollout")
    rest = [m for m in workloads if m not in servers]
    later = [m for m in rest if waits_for_the_lifecycle(given.kubectl, m)]
    apply(rest)
    wait(m for m in rest if m not in later)
    for each in later:
        say(f"{each['metadata']['name']} was not waited for: it is ready once there is {annotation(each)}")
    say("everything else is ready" if later else "everything is ready")


def waits_for_the_lifecycle(program: str, manifest: dict[str, Any]) -> bool:
    """Return whether a workload is ready only with something that no deployment brings, and has no ready pod yet."""
    if not annotation(manifest):
        return False
    what = f"{manifest['kind'].lower()}/{manifest['metadata']['name']}"
    there = kubectl(program, "-n", NAMESPACE, "get", what, "--ignore-not-found", "-o", "json")
    return not (there.strip() and json.loads(there)["status"].get("readyReplicas"))


def annotation(manifest: dict[str, Any]) -> str:
    """Return what a workload says must be there before it is ready; nothing of most."""
    return str(manifest["metadata"].get("annotations", {}).get(_READY_WITH, ""))


def await_job(program: str, job: str, seconds: int) -> None:
    """Wait until a Job has completed; if it fails or takes longer, show the end of its log, and this ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status = json.loads(kubectl(program, "-n", NAMESPACE, "get", job, "-o", "json"))["status"]
        ended = {each["type"]: each for each in status.get("conditions", []) if each["status"] == "True"}
        if "Complete" in ended:
            return
        if "Failed" in ended:
            why = ended["Failed"].get("message", "it failed")
            break
        time.sleep(2)
    else:
        why = f"it took longer than {seconds} s"
    say(kubectl(program, "-n", NAMESPACE, "logs", job, "--all-containers", "--prefix", "--tail=20"))
    sys.exit(f"{job}: {why}; nothing after it was done")


def require_digests(manifests: Iterable[dict[str, Any]], overlay: Path) -> None:
    """End unless each image that a registry serves is named by its digest: a tag is whatever its owner made of it."""
    images = {container["image"] for manifest in manifests for container in containers(manifest)}
    if loose := sorted(each for each in images if not (_DIGEST.search(each) or each.startswith(_NO_REGISTRY))):
        sys.exit(
            f"{overlay}: {', '.join(loose)}: named by a tag, which may be another tomorrow; nothing was done. Name "
            "it as <name>@sha256:<64 hex digits>, with IMAGE or PROXY_IMAGE of `make deploy` or as `digest:` in the "
            "overlay's kustomization.yaml"
        )


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of a workload, those that come first too; none of anything else."""
    if manifest["kind"] not in {*_WORKLOADS, "Job"}:
        return []
    pod = manifest["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def with_image(manifest: dict[str, Any], name: str, image: str) -> dict[str, Any]:
    """Return a manifest in which the image of this name is another one, also where the code location names it."""
    for container in containers(manifest):
        before = container["image"]
        if before.rpartition("/")[2].partition("@")[0].partition(":")[0] != name:
            continue
        container["image"] = image
        for variable in container.get("env", []):
            if variable["name"] == "DAGSTER_CURRENT_IMAGE":
                variable["value"] = image
    return manifest


def kubectl(program: str, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl and return what it prints; it says itself what went wrong, and then this ends."""
    done = subprocess.run([program, *arguments], input=stdin, text=True, stdout=subprocess.PIPE, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"kubectl {' '.join(arguments)} failed; nothing after it was done")
    return done.stdout


def say(step: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"{step}\n")


if __name__ == "__main__":
    main()
