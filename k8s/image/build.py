"""Build the image with Docker: on the base image that is named, or on a Debian that debootstrap makes.

    python -m k8s.image.build <target> <tag> [--base <image>]     what `make image` runs

Where packages come through a mirror with a certificate authority of its own, PIP_CERT or SSL_CERT_FILE names it: it is
a build secret, and stays out of the image.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ml_assets.errors import StateError

ROOT = Path(__file__).parents[2]
BASE = "ml-assets-base:bookworm"
_LEFT_OUT = (
    "proc", "sys", "var/cache/apt", "var/lib/apt/lists", "usr/share/locale", "usr/share/doc", "usr/share/man",
)  # fmt: skip
_INCLUDE = "python3,python3-venv,ca-certificates"


def cache() -> Path:
    """Return the folder of what is built or downloaded once."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ml_assets"


def find(program: str) -> str | None:
    """Return the path of an installed program. Debian's own come first, and administrators' folders count."""
    return shutil.which(program, path=f"/usr/bin:/usr/sbin:/sbin:/bin:{os.environ.get('PATH', '')}")


def require(program: str, otherwise: str) -> str:
    """Return the path of an installed program.

    Raises:
        StateError: it is not installed; the message says what to do `otherwise`.
    """
    path = find(program)
    if path is None:
        raise StateError(f"{program} is not installed on this machine; {otherwise}")
    return path


def docker(*arguments: str, **options: object) -> str:
    """Run docker and return what it prints."""
    program = require("docker", "install it (Debian's package is docker.io)")
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # noqa: S603
        [program, *arguments], check=True, text=True, stdout=subprocess.PIPE, env=environment, **options
    ).stdout


@contextlib.contextmanager
def docker_daemon() -> Iterator[None]:
    """Run dockerd for the length of a block, if none runs. It makes no network: builds use the host's."""
    if _answers():
        yield
        return
    program = require("dockerd", "install it (Debian's package is docker.io), or say by DOCKER_HOST where one runs")
    with tempfile.NamedTemporaryFile(prefix="dockerd-", suffix=".log") as log:
        process = subprocess.Popen([program, "--iptables=false", "--bridge=none"], stdout=log, stderr=log)  # noqa: S603
        try:
            for _ in range(60):
                if _answers():
                    break
                time.sleep(0.5)
            else:
                raise StateError(f"dockerd does not answer: {Path(log.name).read_text()[-2000:]}")
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def _answers() -> bool:
    try:
        docker("info", stderr=subprocess.DEVNULL)
    except subprocess.CalledProcessError:
        return False
    return True


def make_base() -> None:
    """Make the base image, if there is none: Debian's smallest, with Python and certificates."""
    if docker("images", "-q", BASE).strip():
        return
    tar = cache() / "base-bookworm.tar"
    if not tar.is_file():
        tar.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            debootstrap = require("debootstrap", "install it, or name a base image: make image BASE=<image>")
            command = [debootstrap, "--variant=minbase", f"--include={_INCLUDE}", "bookworm", f"{folder}/root"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            left_out = [f"--exclude=./{path}/*" for path in _LEFT_OUT]
            part = tar.with_suffix(".part")
            subprocess.run(["tar", "-C", f"{folder}/root", *left_out, "-cf", str(part), "."], check=True)  # noqa: S603, S607
            part.replace(tar)
    docker("import", str(tar), BASE)


def build(target: str, tag: str, base: str = BASE) -> None:
    """Build a target of the Containerfile and give it a tag."""
    if base == BASE:
        make_base()
    ca = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or ""
    secret = ["--secret", f"id=ca,src={ca}"] if Path(ca).is_file() else []
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)  # noqa: S607
    docker(
        "build", "--network=host", "--progress=plain", "-f", "k8s/image/Containerfile", "--target", target, *secret,
        "--build-arg", f"BASE={base}", "--build-arg", f"COMMIT={commit.stdout.strip()}", "-t", tag, ".",
        cwd=ROOT,
    )  # fmt: skip


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=["runtime", "sandbox"])
    parser.add_argument("tag")
    parser.add_argument("--base", default=BASE)
    arguments = parser.parse_args()
    try:
        with docker_daemon():
            build(arguments.target, arguments.tag, arguments.base)
    except StateError as error:
        sys.exit(f"image: {error}")


if __name__ == "__main__":
    main()
