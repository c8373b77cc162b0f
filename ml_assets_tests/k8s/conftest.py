"""The project on a real cluster, for the tests of `make test-k8s`.

With KUBECONFIG set they use that cluster, whose nodes must hold the images of `image.build_all`; otherwise a throwaway
one is made on this machine.
"""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k8s.image.build import docker_daemon
from ml_assets_tests.k8s import image
from ml_assets_tests.k8s import programs as installed
from ml_assets_tests.k8s.cluster import cluster as throwaway
from ml_assets_tests.k8s.platform import Platform, deployed


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The project, deployed with its servers on a cluster."""
    if given := os.environ.get("KUBECONFIG"):
        with deployed(Platform(installed.kubectl(), Path(given), None)) as made:
            yield made
        return
    installed.install()
    with tempfile.TemporaryDirectory(prefix="ml_assets_k8s_") as folder, docker_daemon():
        with ThreadPoolExecutor(1) as thread:  # the compiler works while packages of the image are downloaded
            compiled = thread.submit(installed.build)
            images = image.build_all()
            compiled.result()
        with throwaway(Path(folder)) as cluster:
            cluster.node.load_images(*images)
            program = str(cluster.programs / "kubectl")
            with deployed(Platform(program, cluster.kubeconfig, cluster.uid, cluster)) as made:
                yield made
