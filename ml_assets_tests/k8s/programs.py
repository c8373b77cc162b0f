"""The programs of a throwaway cluster: Kubernetes and a few built from source once a version, the others from Debian.

    python -m ml_assets_tests.k8s.programs     installs and builds what is missing, ten minutes of processor time

Builds are kept in `$XDG_CACHE_HOME/ml_assets/kubernetes-<version>-<digest of binaries/>`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from k8s.image.build import cache, find

SOURCE = Path(__file__).parent / "binaries"
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
OWN = ("pause", "dns", "netpol")  # what else a cluster needs, each a main.go below binaries/
_PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "dockerd": "docker.io",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ipset": "ipset",
    "ip": "iproute2",
    "host-local": "containernetworking-plugins",
}
CNI = Path("/usr/lib/cni")


def version() -> str:
    """Return the version of Kubernetes, as go.mod names it."""
    for line in (SOURCE / "go.mod").read_text().splitlines():
        words = line.removeprefix("require ").split()
        if words[:1] == ["k8s.io/kubernetes"]:
            return words[1]
    raise LookupError(f"{SOURCE / 'go.mod'} requires no k8s.io/kubernetes")


def folder() -> Path:
    """Return where the programs of this source are, built or not."""
    digest = hashlib.sha256()
    for path in [SOURCE / "go.mod", *sorted(SOURCE.glob("*/*.go"))]:
        digest.update(path.read_bytes())
    return cache() / f"kubernetes-{version()}-{digest.hexdigest()[:12]}"


def build(programs: Sequence[str] = (*KUBERNETES, *OWN)) -> Path:
    """Build the programs that are not there yet, all at once, and return their folder.

    ML_ASSETS_BUILD_JOBS says how many packages are compiled at a time, two if not given.

    Raises:
        FileNotFoundError: Go is not installed.
        subprocess.CalledProcessError: a build failed; the compiler has said why.
    """
    made = folder()
    made.mkdir(parents=True, exist_ok=True)
    if missing := [program for program in programs if not (made / program).is_file()]:
        go = shutil.which("go")
        if go is None:
            raise FileNotFoundError(f"Go builds {', '.join(missing)} from source and is not installed (1.24 or newer)")
        major, minor, _ = version().removeprefix("v").split(".", 2)
        stamps = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}
        flags = "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={v}" for name, v in stamps.items())
        packages = [f"./{name}" if name in OWN else f"k8s.io/kubernetes/cmd/{name}" for name in missing]
        print(f"building {', '.join(missing)} {version()}", file=sys.stderr, flush=True)  # noqa: T201 - it takes minutes
        with tempfile.TemporaryDirectory(dir=made, prefix=".") as part:
            subprocess.run(
                [go, "build", "-p", jobs(), "-trimpath", "-mod=readonly", "-ldflags", flags, "-o", f"{part}/",
                 *packages],
                cwd=SOURCE, check=True, env={**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": ""},
            )  # fmt: skip
            for program in missing:
                (Path(part) / program).replace(made / program)
    return made


def jobs() -> str:
    """Return how many packages are compiled at a time."""
    return os.environ.get("ML_ASSETS_BUILD_JOBS", "2")


def install(programs: Collection[str] = tuple(_PACKAGES)) -> None:
    """Install what Debian has of these programs and this machine lacks.

    Raises:
        RuntimeError: it is not Debian, or nobody may install here.
    """
    missing = [_PACKAGES[program] for program in programs if find(program) is None and not (CNI / program).is_file()]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise RuntimeError(f"this machine lacks {', '.join(missing)}; install them (for a cluster, or set KUBECONFIG)")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=environment
    )


def kubectl() -> str:
    """Return kubectl: the one that is installed, else the one that is built."""
    return find("kubectl") or str(build(["kubectl"]) / "kubectl")


if __name__ == "__main__":
    install()
    print(build())  # noqa: T201 - where they are
