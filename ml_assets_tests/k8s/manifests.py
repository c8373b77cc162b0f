"""What Kustomize makes of the overlays."""

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ml_assets_tests.k8s.programs import kubectl

ROOT = Path(__file__).parents[2] / "k8s"
CLOUDS = ("aws", "gcp")  # pods have roles there, and no keys
BANKS = ("production", "openshift", *CLOUDS)
OVERLAYS = ("local", *BANKS)
WORKLOADS = ("Deployment", "StatefulSet", "Job")


@functools.cache
def built(folder: str) -> tuple[dict[str, Any], ...]:
    """Return the manifests of a folder below k8s/."""
    done = subprocess.run([kubectl(), "kustomize", str(ROOT / folder)], check=True, capture_output=True, text=True)
    return tuple(yaml.safe_load_all(done.stdout))


def overlay(name: str) -> tuple[dict[str, Any], ...]:
    """Return the manifests of an overlay."""
    return built(f"overlays/{name}")


def of_kind(manifests: tuple[dict[str, Any], ...], *kinds: str) -> dict[str, dict[str, Any]]:
    """Return the manifests of these kinds by name."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def pods(manifests: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """Return the pod template of each workload, by its name."""
    return {name: each["spec"]["template"] for name, each in of_kind(manifests, *WORKLOADS).items()}


def containers(manifests: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, bool, dict[str, Any]]]:
    """Yield each container as `workload/container`, whether it runs for good, and the container."""
    for name, each in of_kind(manifests, *WORKLOADS).items():
        spec = each["spec"]["template"]["spec"]
        for container in spec.get("initContainers", []):
            yield f"{name}/{container['name']}", False, container
        for container in spec["containers"]:
            yield f"{name}/{container['name']}", each["kind"] != "Job", container
