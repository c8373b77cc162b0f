"""What a release does with an image, by its make targets: push, sign, verify; and what a verification refuses."""

import base64
import json
import os
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from k8s.image.build import docker, docker_daemon, find
from ml_assets_tests.k8s.programs import install
from ml_assets_tests.release import programs

pytestmark = pytest.mark.release
ROOT = Path(__file__).parents[2]
_PHRASE = "of the test"


@dataclass(frozen=True)
class Release:
    """A checkout in which the targets run, the registry that they push to, and the programs that they call."""

    checkout: Path
    registry: str
    programs: Path

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        debian = Path(find("docker") or "").parent
        path = os.pathsep.join([str(self.programs), str(debian), os.environ["PATH"]])
        return subprocess.run(
            ["make", "--old-file=.venv/.installed", *arguments],
            cwd=self.checkout,
            env={**os.environ, "PATH": path, "COSIGN_PASSWORD": _PHRASE, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def image(self, tag: str, content: str) -> str:
        """Make an image of one file and return its name in the registry."""
        name = f"{self.registry}/ml-assets:{tag}"
        with self.checkout.joinpath(f"{tag}.tar").open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            entry = tarfile.TarInfo("content")
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content.encode()))
        docker("import", str(self.checkout / f"{tag}.tar"), name)
        return name

    def push(self, name: str) -> str:
        """Push an image and return its name with the digest, as the target wrote it down."""
        done(self.make("push", f"IMAGE={name}"))
        return (self.checkout / "dist" / "image").read_text().strip()

    def verify(self, key: str = "cosign.pub", image: str = "") -> subprocess.CompletedProcess[str]:
        return self.make("verify", f"COSIGN_PUBLIC_KEY={key}", *([f"IMAGE={image}"] if image else []))

    def move(self, kind: str, source: str, target: str) -> None:
        """Put the signature (`sig`) or attestation (`att`) of one image beside another, as an attacker would."""
        of, to = (f"sha256-{name.rpartition(':')[2]}.{kind}" for name in (source, target))
        media = "application/vnd.oci.image.manifest.v1+json"
        url = f"http://{self.registry}/v2/ml-assets/manifests"
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{of}", headers={"Accept": media})) as answer:
            manifest = answer.read()
        put = urllib.request.Request(f"{url}/{to}", manifest, {"Content-Type": media}, method="PUT")
        with urllib.request.urlopen(put):
            pass


def done(command: subprocess.CompletedProcess[str]) -> None:
    assert command.returncode == 0, command.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A signed image in a registry of its own, with its bill of materials."""
    install(["dockerd"])
    built = programs.build()
    checkout = tmp_path_factory.mktemp("release")
    for entry in ROOT.iterdir():
        if entry.name != "dist":
            (checkout / entry.name).symlink_to(entry)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path_factory.mktemp("registry") / "config.yml"
    config.write_text(
        f"version: 0.1\nhttp: {{addr: {address}}}\nstorage: {{filesystem: {{rootdirectory: {config.parent}}}}}\n"
    )
    server = subprocess.Popen(
        [str(built / "registry"), "serve", str(config)], env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    made = Release(checkout, address, built)
    try:
        wait_for(f"http://{address}/v2/")
        for name in ("cosign", "other"):
            subprocess.run(
                [str(built / "cosign"), "generate-key-pair", "--output-key-prefix", name], cwd=checkout, check=True,
                env={**os.environ, "COSIGN_PASSWORD": _PHRASE}, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        with docker_daemon():
            yield made
            images = [line.split() for line in docker("images", "--format", "{{.Repository}} {{.ID}}").splitlines()]
            docker("rmi", "--force", *{image for name, image in images if name.startswith(f"{address}/")})
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def signed(release: Release) -> str:
    """The name, with its digest, of an image that has been through the steps of a release."""
    done(release.make("sbom"))
    name = release.push(release.image("1.0.0", "the release"))
    done(release.make("sign", "COSIGN_KEY=cosign.key"))
    return name


def wait_for(url: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


def test_what_was_released_is_verified_with_its_bill_of_materials(release: Release, signed: str) -> None:
    done(release.verify())
    bill = subprocess.run(
        [str(release.programs / "cosign"), "verify-attestation", "--private-infrastructure", "--key", "cosign.pub",
         "--type", "cyclonedx", signed],
        cwd=release.checkout, text=True, capture_output=True, check=True,
    ).stdout  # fmt: skip
    statement = json.loads(base64.b64decode(json.loads(bill)["payload"]))
    assert statement["predicate"] == json.loads((release.checkout / "dist" / "sbom.cdx.json").read_text())
    assert statement["subject"][0]["digest"]["sha256"] == signed.rpartition(":")[2]
    assert "dagster" in {component["name"] for component in statement["predicate"]["components"]}


def test_a_key_may_be_in_a_variable_as_pipelines_have_it(release: Release, signed: str) -> None:
    trusted, other = (release.checkout.joinpath(name).read_text() for name in ("cosign.pub", "other.pub"))
    done(release.make("verify", f"IMAGE={signed}", COSIGN_PUBLIC_KEY=trusted))
    assert release.make("verify", f"IMAGE={signed}", COSIGN_PUBLIC_KEY=other).returncode != 0


def test_another_key_verifies_nothing(release: Release, signed: str) -> None:
    assert "invalid signature" in release.verify("other.pub", signed).stdout
    assert release.verify("other.pub", signed).returncode != 0


def test_an_image_that_was_changed_is_refused(release: Release, signed: str) -> None:
    """Also with the true signature and bill of materials of the other put beside it."""
    changed = release.push(release.image("1.0.0", "the release, and something else"))
    assert changed != signed
    refused = release.verify(image=changed)
    assert refused.returncode != 0
    assert "no signatures found" in refused.stdout
    release.move("sig", signed, changed)
    refused = release.verify(image=changed)
    assert refused.returncode != 0
    assert "digest mismatch" in refused.stdout or "no matching signatures" in refused.stdout
    done(release.verify(image=signed))


def test_an_image_without_its_bill_of_materials_is_refused(release: Release, signed: str) -> None:
    unsaid = release.push(release.image("1.0.1", "signed, and nothing is attested"))
    subprocess.run(
        [str(release.programs / "cosign"), "sign", "--yes", "--tlog-upload=false", "--key", "cosign.key", unsaid],
        cwd=release.checkout, check=True, env={**os.environ, "COSIGN_PASSWORD": _PHRASE}, capture_output=True,
    )  # fmt: skip
    assert release.verify(image=unsaid).returncode != 0
    release.move("att", signed, unsaid)
    assert release.verify(image=unsaid).returncode != 0, "the bill of another image says nothing of this one"


def test_the_digest_is_that_of_the_repository_that_was_pushed_to(release: Release) -> None:
    """Guards an image that has been pushed elsewhere before: the first of its digests named that repository."""
    name = release.image("1.0.2", "pushed twice")
    elsewhere = f"{release.registry}/a-mirror/ml-assets:1.0.2"
    docker("tag", name, elsewhere)
    assert release.push(elsewhere).startswith(f"{release.registry}/a-mirror/ml-assets@sha256:")
    assert release.push(name).startswith(f"{release.registry}/ml-assets@sha256:")
