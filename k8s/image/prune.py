"""Take out of an installed environment what no process of the project opens: `prune.py <environment>`.

Tests of libraries, source maps of web pages, headers, type stubs, AWS services other than S3 and its credentials, and
ways to servers that nobody goes. Prints what each cut saved.
"""

import shutil
import sys
from pathlib import Path

# botocore reads a folder a service; these are what S3 and credentials from roles need.
_SERVICES = {"s3", "sts", "sso", "sso-oidc"}
_KEEP_TESTS = {"numpy"}  # its numpy.testing imports them at run time


def main(environment: Path) -> None:
    """Prune and report."""
    (site,) = environment.glob("lib/python*/site-packages")
    cuts = {
        "tests of libraries": [
            path for path in site.rglob("tests") if path.is_dir() and path.relative_to(site).parts[0] not in _KEEP_TESTS
        ],
        "source maps": list(site.rglob("*.map")),
        "headers": [path for path in site.glob("*/include") if path.is_dir()],
        "AWS services": [
            path for path in (site / "botocore/data").iterdir() if path.is_dir() and path.name not in _SERVICES
        ],
        "Arrow Flight": [path for path in (site / "pyarrow").glob("*flight*") if path.suffix != ".py"],
        "Kubernetes' asyncio client": [path for path in [site / "kubernetes/aio"] if path.is_dir()],
        "type stubs": list(site.rglob("*.pyi")),
        "sample data": [
            path for path in [site / "sklearn/datasets/data", site / "sklearn/datasets/images"] if path.is_dir()
        ],
    }
    for what, paths in cuts.items():
        saved = sum(_size(path) for path in paths)
        for path in paths:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        sys.stdout.write(f"{saved / 1e6:8.1f} MB  {what}\n")
    sys.stdout.write(f"{_size(environment) / 1e6:8.1f} MB  left\n")


def _size(path: Path) -> int:
    if path.is_file() and not path.is_symlink():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
