"""The image, built here: on a Debian made by debootstrap, with dockerd from Debian.

    python -m ml_assets_tests.k8s.image <target> <tag> [--base <image>]

Where packages come through a mirror with a certificate authority of its own, PIP_CERT or SSL_CERT_FILE names it: it is
a build secret, and stays out of the image.
"""

import argparse
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ml_assets_tests.k8s.programs import cache, find

ROOT = Path(__file__).parents[2]
BASE = "ml-assets-base:bookworm"
IMAGE, SANDBOX = "localhost/ml-assets:local", "localhost/ml-assets-sandbox:local"  # as the overlay `local` names them
NEXT = "localhost/ml-assets:next"
_LEFT_OUT = (
    "proc", "sys", "var/cache/apt", "var/lib/apt/lists", "usr/share/locale", "usr/share/doc", "usr/share/man",
)  # fmt: skip
_INCLUDE = "python3,python3-venv,ca-certificates"


def docker(*arguments: str, **options: object) -> str:
    """Run Debian's docker and return what it prints."""
    program = find("docker")
    assert program is not None, "install() brings docker"
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [program, *arguments], check=True, text=True, stdout=subprocess.PIPE, env=environment, **options
    ).stdout


@contextlib.contextmanager
def docker_daemon() -> Iterator[None]:
    """Run dockerd for the length of a block, if none runs. It makes no network: builds use the host's."""
    if _answers():
        yield
        return
    program = find("dockerd")
    assert program is not None, "install() brings dockerd"
    with tempfile.NamedTemporaryFile(prefix="dockerd-", suffix=".log") as log:
        process = subprocess.Popen([program, "--iptables=false", "--bridge=none"], stdout=log, stderr=log)
        try:
            for _ in range(60):
                if _answers():
                    break
                time.sleep(0.5)
            else:
                raise RuntimeError(f"dockerd does not answer: {Path(log.name).read_text()[-2000:]}")
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
            debootstrap = find("debootstrap")
            assert debootstrap is not None, "install() brings debootstrap"
            command = [debootstrap, "--variant=minbase", f"--include={_INCLUDE}", "bookworm", f"{folder}/root"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            left_out = [f"--exclude=./{path}/*" for path in _LEFT_OUT]
            part = tar.with_suffix(".part")
            subprocess.run(["tar", "-C", f"{folder}/root", *left_out, "-cf", str(part), "."], check=True)
            part.replace(tar)
    docker("import", str(tar), BASE)


def build(target: str, tag: str, base: str = BASE) -> None:
    """Build a target of the Containerfile and give it a tag."""
    if base == BASE:
        make_base()
    ca = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or ""
    secret = ["--secret", f"id=ca,src={ca}"] if Path(ca).is_file() else []
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)
    docker(
        "build", "--network=host", "--progress=plain", "-f", "k8s/image/Containerfile", "--target", target, *secret,
        "--build-arg", f"BASE={base}", "--build-arg", f"COMMIT={commit.stdout.strip()}", "-t", tag, ".",
        cwd=ROOT,
    )  # fmt: skip


def build_all() -> tuple[str, ...]:
    """Build what a throwaway cluster runs, and a release to upgrade to, which only calls itself newer; return tags."""
    build("runtime", IMAGE)
    build("sandbox", SANDBOX)
    docker("build", "-t", NEXT, "-", input=f"FROM {IMAGE}\nENV ML_ASSETS_CODE_VERSION=next\n")
    return IMAGE, SANDBOX, NEXT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=["runtime", "sandbox"])
    parser.add_argument("tag")
    parser.add_argument("--base", default=BASE)
    arguments = parser.parse_args()
    with docker_daemon():
        build(arguments.target, arguments.tag, arguments.base)


if __name__ == "__main__":
    main()
