"""A registry and cosign, built from source once a version: neither is in Debian, nor in a wheel.

    python -m ml_assets_tests.release.programs     builds what is missing, about four minutes of two cores

Go checks what it downloads against its public database of checksums. Builds are kept in `$XDG_CACHE_HOME/ml_assets`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from k8s.image.build import cache
from ml_assets_tests.k8s.programs import jobs

_PACKAGES = {
    "registry": ("github.com/distribution/distribution/v3/cmd/registry", "v3.1.2"),
    "cosign": ("github.com/sigstore/cosign/v2/cmd/cosign", "v2.6.5"),
}


def build() -> Path:
    """Build the programs that are not there yet and return their folder.

    Raises:
        FileNotFoundError: Go is not installed.
        subprocess.CalledProcessError: a build failed; the compiler has said why.
    """
    versions = "-".join(f"{name}-{version}" for name, (_, version) in _PACKAGES.items())
    folder = cache() / versions
    folder.mkdir(parents=True, exist_ok=True)
    for name, (package, version) in _PACKAGES.items():
        if (folder / name).is_file():
            continue
        go = shutil.which("go")
        if go is None:
            raise FileNotFoundError(f"Go builds {name} from source and is not installed")
        print(f"building {name} {version}", file=sys.stderr, flush=True)  # noqa: T201 - it takes minutes
        environment = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
        subprocess.run(
            ["nice", "-n", "15", go, "install", "-p", jobs(), "-trimpath", "-ldflags=-s -w", f"{package}@{version}"],
            check=True, env=environment, cwd=folder,
        )  # fmt: skip
    return folder


if __name__ == "__main__":
    print(build())  # noqa: T201 - where they are
